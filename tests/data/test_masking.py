"""What is hidden of texts, how they are packed, and that a resumed run sees the same."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import tokenizers
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tokenizers import decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

import tasks
from family.losses.language_model import IGNORE
from tasks.data.masked_language_modeling import MaskedLanguageModelingData
from tasks.data.masking import chosen, masked, vocabulary_of, words_of
from tasks.data.packing import packed, parts_of
from tasks.data.sampling import Pick
from tasks.data.tokenizers import MASK, SPECIALS, Tokenizer, train_tokenizer
from tasks.errors import UserError

TEXTS = ["a red circle", "two blue squares, far away", "the star: it's small", "one hexagon"] * 30


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(kind="bpe", size=330):
    return train_tokenizer(kind, TEXTS, size, specials=(*SPECIALS, MASK))


def word_piece():
    """As BERT's: pieces that go on with a word begin with ``##``."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##happ", "##y", "it", "'", "s"]
    inner = tokenizers.Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    )
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    inner.add_special_tokens(tokens[:5])
    return Tokenizer(
        inner, pad="[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]", max_tokens=64
    )


def data_of(folder, texts=TEXTS, **options):
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("".join(f"{text}\n" for text in texts))
    options = {"vocab_size": 330, "context": 16, "batch_size": 4, "separator": "\n", **options}
    data = MaskedLanguageModelingData(str(folder), **options)
    data.setup("fit")
    return data


def batches(data, split="train"):
    return list(data.loader(split))


def truth(batch):
    """The tokens before any was hidden."""
    labels = batch["labels"]
    return torch.where(labels == IGNORE, batch["input_ids"], labels)


# --- What is hidden ---


def test_fifteen_in_a_hundred_and_of_these_80_10_10():
    tokenizer = trained()
    vocabulary = vocabulary_of(tokenizer)
    random = np.random.default_rng(0)
    ids = random.choice(vocabulary.plain, 4001)
    ids[::9] = tokenizer.eos_id
    words = words_of(ids, np.zeros_like(ids), vocabulary, False)
    counts = np.zeros(4)
    for _ in range(20):
        seen, labels = masked(ids, words, vocabulary, random)
        hidden = labels != IGNORE
        assert hidden.sum() == round(0.15 * (words >= 0).sum())
        assert np.array_equal(labels[hidden], ids[hidden])
        assert np.array_equal(seen[~hidden], ids[~hidden])
        assert not np.isin(labels, list(tokenizer.special_ids)).any()
        gap, same = seen[hidden] == tokenizer.mask_id, seen[hidden] == ids[hidden]
        other = seen[hidden][~gap & ~same]
        assert not np.isin(other, list(tokenizer.special_ids)).any()
        counts += [hidden.sum(), gap.sum(), same.sum(), len(other)]
    shares = counts[1:] / counts[0]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_one_token_at_least_and_nothing_of_special_tokens_alone():
    random = np.random.default_rng(0)
    assert chosen(np.array([-1, 0, 1, -1]), random).sum() == 1
    assert chosen(np.array([-1, 0, 0, 0, 0, -1]), random).sum() == 4  # one word is all there is
    assert not chosen(np.array([-1, -1]), random).any()


def words_as_text(tokenizer, text):
    ids = np.array(tokenizer.encode(text, special_tokens=True))
    words = words_of(ids, np.zeros_like(ids), vocabulary_of(tokenizer), True)
    found = [tokenizer.decode(ids[words == i].tolist()) for i in np.unique(words[words >= 0])]
    return [word.strip() for word in found if word.strip()]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_words_of_each_kind_of_tokenizer(kind):
    size = 270 if kind == "bpe" else 40  # small, so that words have several tokens
    tokenizer = trained(kind, size)
    assert len(tokenizer.encode("squares")) > 1
    expected = ["two", "blue", "squares", ",", "far", "away", ":", "small"]
    assert words_as_text(tokenizer, "two blue squares, far away: small") == expected


def test_words_of_word_pieces_and_of_bytes():
    assert words_as_text(word_piece(), "unhappy it's unhappy") == [
        "unhappy", "it", "'", "s", "unhappy"
    ]  # fmt: skip
    # Letters of several bytes, none of which the vocabulary has as a whole.
    assert words_as_text(trained(size=270), "Größe, naïve") == ["Größe", ",", "naïve"]


def test_whole_words_are_hidden_together(folder):
    data = data_of(folder, vocab_size=270, context=48, whole_words=True)
    vocabulary = vocabulary_of(data.tokenizer)
    hidden = tokens = several = 0
    for batch in batches(data):
        for ids, labels, texts in zip(
            truth(batch).numpy(), batch["labels"].numpy(), batch["documents"].numpy(), strict=True
        ):
            words = words_of(ids, texts, vocabulary, True)
            gone = labels != IGNORE
            for word in np.unique(words[words >= 0]):
                assert gone[words == word].all() or not gone[words == word].any()
                several += gone[words == word].all() and (words == word).sum() > 1
            hidden, tokens = hidden + gone.sum(), tokens + (words >= 0).sum()
    assert several > 5
    assert hidden / tokens == pytest.approx(0.15, abs=0.03)


def test_a_word_ends_with_its_text():
    tokenizer = trained("char")
    ids = np.array(tokenizer.encode("abcd".replace("b", "i").replace("d", "s").replace("c", "r")))
    vocabulary = vocabulary_of(tokenizer)
    assert words_of(ids, np.zeros(4), vocabulary, True).max() == 0
    assert words_of(ids, np.array([0, 0, 1, 1]), vocabulary, True).tolist() == [0, 0, 1, 1]


# --- How texts are packed ---


def test_no_window_crosses_a_border_and_nothing_is_lost():
    tokens = np.array([5, 5, 9, 6, 6, 6, 6, 6, 9, 9, 7, 9, 8, 8])
    parts = list(parts_of(tokens, 9, room=4))
    assert parts == [(0, 2), (3, 7), (7, 8), (10, 11), (12, 14)]
    assert packed(iter(parts), context=6, around=2) == [
        [(0, 2)], [(3, 7)], [(7, 8), (10, 11)], [(12, 14)]
    ]  # fmt: skip
    assert list(parts_of(tokens, None, room=10)) == [(0, 10), (10, 14)]


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_text_is_there_once_between_its_ends(folder, split):
    data = data_of(folder)
    tokenizer, found = data.tokenizer, []
    for batch in batches(data, split):
        assert torch.equal(batch["mask"], batch["documents"] >= 0)
        assert (batch["input_ids"][~batch["mask"]] == tokenizer.pad_id).all()
        assert (batch["labels"][~batch["mask"]] == IGNORE).all()
        for ids, texts in zip(truth(batch), batch["documents"], strict=True):
            for number in range(int(texts.max()) + 1):
                row = ids[texts == number].tolist()
                assert (row[0], row[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
                found.append(tokenizer.decode(row))
    assert sorted(found) == sorted(TEXTS)


def test_one_long_text_fills_its_windows(folder):
    data = data_of(folder, separator=None, tokenizer="char")
    rows = [row for batch in batches(data, "val") for row in truth(batch)]
    assert "documents" not in data.loader("val").dataset.__getitems__([Pick(0, 0)])
    assert data.tokenizer.decode(torch.cat(rows).tolist()) == "".join(f"{t}\n" for t in TEXTS)
    assert all(data.tokenizer.pad_id not in row for row in rows[:-1])


def test_the_tokens_of_the_tokenizer_stand_around_texts(folder):
    word_piece().inner.save(str(folder / "tokenizer.json"))
    data = data_of(folder, ["unhappy it's"] * 20, tokenizer=str(folder / "tokenizer.json"))
    assert data.tokenizer.specials == word_piece().specials
    first = truth(next(iter(data.loader("val"))))[0].tolist()
    assert first[:8] == [2, 5, 6, 7, 8, 9, 10, 3]
    assert data.model_arguments == {"vocab_size": 11}


# --- When it is drawn ---


def test_drawn_anew_each_epoch_and_always_the_same_in_validation(folder):
    windows = data_of(folder).loader("train").dataset
    first, again, later = (
        windows.__getitems__([Pick(i, epoch) for i in range(8)]) for epoch in (0, 0, 1)
    )
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert not torch.equal(first["labels"], later["labels"])
    assert torch.equal(truth(first), truth(later))
    # By itself or in a batch, a window is hidden alike: batches of another size resume a run.
    alone = windows.__getitems__([Pick(3, 1)])
    assert torch.equal(alone["input_ids"][0], later["input_ids"][3])


def test_runs_of_other_seeds_validate_on_the_same_gaps(folder, monkeypatch):
    found = []
    for seed in ("0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        data = data_of(folder)
        found.append((next(iter(data.loader("train"))), next(iter(data.loader("val")))))
    assert torch.equal(found[0][1]["input_ids"], found[1][1]["input_ids"])
    assert not torch.equal(found[0][0]["input_ids"], found[1][0]["input_ids"])


class Recorder(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, task, batch, index):
        self.seen.append(batch["input_ids"].clone())


def test_a_resumed_run_is_equal_to_the_bit(folder):
    def run(checkpoint=None):
        pl.seed_everything(0)
        task = tasks.MaskedLanguageModeling(Guess, lr=1e-2, warmup_steps=2, schedule="constant")
        recorder = Recorder()
        every = ModelCheckpoint(folder / "kept", "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = pl.Trainer(
            max_steps=30, accelerator="cpu", logger=False, use_distributed_sampler=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            callbacks=[recorder] if checkpoint else [recorder, every],
            enable_checkpointing=not checkpoint,
        )  # fmt: skip
        trainer.fit(task, data_of(folder), ckpt_path=checkpoint)
        return task, recorder.seen

    whole, seen = run()
    assert whole.trainer.current_epoch > 0
    for step in (7, 17):
        rest, more = run(folder / "kept" / f"step={step}.ckpt")
        assert len(more) == 30 - step and all(map(torch.equal, more, seen[step:]))
        weights = zip(whole.state_dict().values(), rest.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)


class Guess(torch.nn.Module):
    """Somebody else's model, which knows no more than the contract."""

    def __init__(self, vocab_size):
        super().__init__()
        self.table = torch.nn.Embedding(vocab_size, 8)
        self.head = torch.nn.Linear(8, vocab_size)

    def forward(self, input_ids, mask, documents=None):
        assert input_ids.dtype == torch.long and mask.dtype == torch.bool
        x = self.table(input_ids)
        return self.head(x + x.mean(1, keepdim=True))


# --- What is refused ---


def test_a_tokenizer_without_a_mask_token(folder):
    train_tokenizer("bpe", TEXTS, 300).inner.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"tokenizer data.tokenizer='tokenizer.json' has no mask"):
        data_of(folder, tokenizer="tokenizer.json")
    data = MaskedLanguageModelingData()
    assets = {"tokenizers": {"text": train_tokenizer("bpe", TEXTS, 300).to_json()}}
    with pytest.raises(UserError, match="tokenizer of the checkpoint has no mask token"):
        data.use_assets(assets)


def test_windows_without_room(folder):
    with pytest.raises(UserError, match="data.context=2 leaves no room"):
        data_of(folder, context=2)


def test_language_models_keep_their_own_files_of_tokens(folder):
    """Both tasks on the same texts, with one tokenizer and one cache."""
    trained().inner.save(str(folder / "tokenizer.json"))
    given = {"tokenizer": "tokenizer.json", "context": 8, "separator": "\n"}
    masked_ones = data_of(folder, **given)
    causal = tasks.LanguageModelingData(str(folder), **given)
    causal.setup("fit")
    assert (causal.tokens("val") == causal.tokenizer.eos_id).sum() == len(TEXTS)
    assert (masked_ones.tokens("val") == masked_ones.tokenizer.mask_id).sum() == len(TEXTS)
