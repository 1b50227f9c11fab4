"""Readers, tokenizers and batches of text, and one clear sentence for each mistake in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from family.losses.language_model import IGNORE
from tasks.data.batching import LoaderProgress, TokenBatches, as_many
from tasks.data.language_modeling import LanguageModelingData
from tasks.data.mixing import MixedBatches
from tasks.data.text_files import read_lines, read_parallel, read_text
from tasks.data.tokenizers import Tokenizer, train_tokenizer
from tasks.data.translation import TranslationData
from tasks.errors import UserError

TEXTS = ["Two young men, outside.", "Zwei junge weiße Männer.", "naïve\tœuvre"]


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_round_trip_and_json(kind):
    tokenizer = train_tokenizer(kind, TEXTS, 300)
    again = Tokenizer.from_json(tokenizer.to_json())
    for text in TEXTS:
        assert again.decode(again.encode(text)) == text
    assert (again.pad_id, again.bos_id, again.eos_id, again.unk_id) == (0, 1, 2, 3)


def test_characters_without_specials():
    tokenizer = train_tokenizer("char", ["abca\n"], specials=False)
    assert tokenizer.vocab_size == 4
    assert tokenizer.decode(tokenizer.encode("cab\n")) == "cab\n"
    with pytest.raises(ValueError, match="'é'"):
        tokenizer.encode("é")


def test_vocabulary_smaller_than_the_bytes():
    with pytest.raises(UserError, match="vocab_size=100 .* at least 260"):
        train_tokenizer("bpe", TEXTS, 100)


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_reads_each_layout(tmp_path):
    pairs = [("one", "eins"), ("two", "zwei")]
    write(
        tmp_path,
        a_en="one\ntwo\n",
        a_de="eins\nzwei",
        b_tsv="de\ten\neins\tone\nzwei\ttwo\n",
        c_po='msgid "one"\nmsgstr "eins"\n\nmsgid "two"\nmsgstr "zwei"\n\nmsgid "x"\nmsgstr ""\n',
    )
    for split in "abc":
        assert read_parallel(tmp_path, split, "en", "de") == pairs


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"train_en": "one\n"}, "train.de does not exist"),
        ({"train_en": "one\ntwo\n", "train_de": "eins\n"}, "2 lines .* 1"),
        ({"train_en": "", "train_de": "eins\n"}, "train.en is empty"),
        ({"train_en": "one\n\ntwo\n", "train_de": "a\nb\nc\n"}, "line 2 is empty"),
        ({"train_en": b"one\xff\n", "train_de": "a\n"}, "offset 3"),
        ({"train_tsv": "one\n"}, "line 1 needs"),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, files, words):
    write(tmp_path, **files)
    with pytest.raises(UserError, match=words):
        read_parallel(tmp_path, "train", "en", "de")


def test_missing_file_names_its_neighbour(tmp_path):
    write(tmp_path, train_txt="x")
    with pytest.raises(UserError, match="Did you mean 'train.txt'"):
        read_text(tmp_path / "trian.txt")


def test_carriage_returns(tmp_path):
    write(tmp_path, a_txt="one\r\ntwo\r\n")
    assert read_lines(tmp_path / "a.txt") == ["one", "two"]


def test_batches_keep_the_budget_and_every_example():
    lengths = np.random.default_rng(0).integers(1, 60, 500).tolist()
    sampler = TokenBatches([*lengths, 900], 256)
    first = sampler.batches()
    assert sorted(i for batch in first for i in batch) == list(range(501))
    for batch in first:
        longest = max([*lengths, 900][i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= 256
    sampler.progress = At(epoch=1)
    assert sampler.batches() != first
    sampler.progress.load_state_dict({"epoch": 1, "batches": 3})
    assert list(sampler) == sampler.batches()[3:]
    sampler.progress = At(epoch=0)
    assert list(sampler) == first


class At(LoaderProgress):
    """Progress that no trainer decides."""

    epoch, process = 0, (0, 1)

    def __init__(self, epoch, process=(0, 1)):
        super().__init__()
        self.epoch, self.process = epoch, process


def test_every_epoch_has_as_many_batches_as_the_first():
    # The trainer counts them once: one more would not be trained on, with one less nothing is validated.
    lengths = np.random.default_rng(0).integers(1, 91, 800).tolist()
    alone = TokenBatches(lengths, 512)
    groups = {len(alone._grouped(alone.chosen(epoch), epoch, 512, None)) for epoch in range(12)}
    assert len(groups) > 1  # else nothing is shown here
    for mixed in (False, True):
        found = []
        for epoch in range(12):
            progress = At(epoch)
            sampler = (
                MixedBatches(lengths, 512, [0] * 700 + [1] * 100, 3, progress=progress)
                if mixed
                else TokenBatches(lengths, 512, progress=progress)
            )
            batches = list(sampler)
            assert len(sampler) == len(batches)
            assert all(len(b) * max(lengths[i] for i in b) <= 512 for b in batches)
            found.append(batches)
        assert len({len(batches) for batches in found}) == 1
        rows = [sum(map(len, batches)) for batches in found]
        assert min(rows) > 700 and max(rows) == 800
        if not mixed:
            every = [sorted(i for b in batches for i in b) for batches in found]
            assert all(len(set(each)) == len(each) for each in every)
            assert set.union(*map(set, every)) == set(range(800))
    assert as_many([[0, 1, 2, 3], [4]], 4) == [[0], [4], [2, 3], [1]]
    assert as_many([[0], [1], [2]], 2) == [[0], [1]]


def test_an_epoch_that_goes_on_in_smaller_batches_is_no_longer_than_a_whole_one():
    sampler = TokenBatches([5] * 100, 50, progress=At(3))
    sampler.progress.load_state_dict({"epoch": 3, "batches": 0, "parts": [[0, 1, [100, None]]]})
    assert len(list(sampler)) == len(sampler) == 10


def test_processes_share_the_batches():
    lengths = np.random.default_rng(0).integers(1, 60, 500).tolist()
    parts = [list(TokenBatches(lengths, 256, progress=At(2, (rank, 3)))) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    seen = [i for part in parts for batch in part for i in batch]
    assert len(seen) == len(set(seen)) > 400
    # In evaluation no example is missing, and none counts twice.
    parts = [
        TokenBatches(lengths, 256, shuffle=False, progress=At(0, (rank, 3))) for rank in range(3)
    ]
    seen = [i for part in parts for batch in part for i in batch]
    assert sorted(seen) == list(range(500))


def test_translation_batches(tmp_path):
    write(
        tmp_path,
        train_en="a cat\nthe dog runs\n",
        train_de="eine Katze\nder Hund läuft\n",
        val_en="zebra\n",
        val_de="Zebra\n",
    )
    data = TranslationData(
        str(tmp_path), source="en", target="de", tokenizer="char", shared_vocabulary=False
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    tokenizer = data.target_tokenizer
    for row, text in enumerate(batch["target_text"]):
        target, labels = batch["target"][row], batch["labels"][row]
        count = int((labels != IGNORE).sum())
        assert target[0] == tokenizer.bos_id
        assert labels[count - 1] == tokenizer.eos_id
        assert torch.equal(target[1:count], labels[: count - 1])
        assert tokenizer.decode(target.tolist()) == text
        assert batch["source_mask"][row].sum() == len(batch["source_text"][row]) + 1
    # z is only in the validation text: tokenizers learn from the training split alone.
    assert "z" not in data.source_tokenizer.inner.get_vocab()
    assert data.model_arguments["vocab_size"] == data.source_tokenizer.vocab_size
    # A decoder begins as it was trained to, whatever its member begins with by itself.
    assert data.model_arguments["bos_id"] == int(batch["target"][0, 0])
    with pytest.raises(UserError, match="data.test='test'"):
        data.test_dataloader()


def test_language_model_predicts_every_token_once(tmp_path):
    text = "abcdefghijklmnopqrstuvwxyz" * 10
    write(tmp_path, all_txt=text)
    data = LanguageModelingData(
        str(tmp_path), context=8, batch_size=3, cache=str(tmp_path / "cache")
    )
    validation = text[234:]
    seen = []
    for batch in data.val_dataloader():
        seen += batch["labels"][batch["labels"] != IGNORE].tolist()
    assert data.tokenizer.decode(seen) == validation[1:]
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape == (3, 8)
    assert torch.equal(batch["input_ids"][:, 1:], batch["labels"][:, :-1])
    assert data.bytes_per_token("val") == 1
    assert data.model_arguments == {"vocab_size": 26}


def test_language_model_bad_files(tmp_path):
    write(tmp_path, a_txt="abc" * 100, b_txt=b"abc\xff" + b"d" * 50)
    with pytest.raises(UserError, match="offset 3"):
        LanguageModelingData(str(tmp_path), cache=str(tmp_path)).setup()
    with pytest.raises(UserError, match="too few"):
        LanguageModelingData(str(tmp_path / "a.txt"), context=1000, cache=str(tmp_path)).setup()
    with pytest.raises(UserError, match="does not exist"):
        LanguageModelingData(str(tmp_path / "c.txt"), cache=str(tmp_path)).setup()


def test_language_model_splits_are_all_files_or_none(tmp_path):
    write(tmp_path, train_txt="abc\n" * 50)
    data = LanguageModelingData(str(tmp_path), context=8, cache=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"has train.txt but no val.txt"):
        data.setup("fit")
    write(tmp_path, val_txt="cab\n" * 9, test_txt="bca\n" * 5)
    data.setup("fit")
    assert len(data.tokens("train")) == 200
    assert len(data.tokens("val")) == 36
    assert data.tokenizer.decode(data.tokens("test").tolist()) == "bca\n" * 5
    lone = LanguageModelingData(str(tmp_path / "train.txt"), context=8, cache=str(tmp_path / "c"))
    with pytest.raises(UserError, match=r"no test.txt"):
        lone.test_dataloader()
