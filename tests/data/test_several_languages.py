"""Sentences in several languages: where they lie, how they are divided, how often each direction is trained."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Inner
from tokenizers import models

from family.inputs.tokenizer import Tokenizer
from family.losses.language_model import IGNORE
from family.pretrained.text import save_tokenizer
from tasks.data.batching import LoaderProgress, Part, TokenBatches
from tasks.data.mixing import MixedBatches, shares
from tasks.data.tokenizers import train_tokenizer
from tasks.data.translation import TranslationData
from tasks.errors import UserError

WORDS = {
    "en": ["a cat", "the dog", "a house", "the sun"],
    "de": ["eine Katze", "der Hund", "ein Haus", "die Sonne"],
    "fr": ["un chat", "le chien", "une maison", "le soleil"],
}


def write(folder, split, **columns):
    for ending, lines in columns.items():
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"{split}.{ending}").write_text(text, encoding="utf-8")


def made(root, **options):
    usual = {"languages": ["en", "de", "fr"], "tokenizer": "char"}
    return TranslationData(None if root is None else str(root), **{**usual, **options})


@pytest.fixture
def three(tmp_path):
    for split in ("train", "val", "test"):
        write(tmp_path, split, **WORDS)
    return tmp_path


# --- Files -----------------------------------------------------------------------------------


def test_every_pair_of_files_is_a_direction(three):
    data = made(three)
    data.setup("fit")
    rows = data.rows("train")
    assert Counter(str(row.direction) for row in rows) == dict.fromkeys(
        ("en-de", "en-fr", "de-en", "de-fr", "fr-en", "fr-de"), 4
    )
    for row in rows:
        assert row.source == WORDS[row.direction.source][row.line]
        assert row.target == WORDS[row.direction.target][row.line]
    some = made(three, directions=["de-fr"])
    assert some.pairs("val") == list(zip(WORDS["de"], WORDS["fr"], strict=True))


def test_what_a_split_lacks_is_left_out_and_said(three, caplog):
    (three / "val.fr").unlink()
    data = made(three)
    data.setup("fit")
    assert {str(row.direction) for row in data.rows("val")} == {"en-de", "de-en"}
    (said,) = [record.getMessage() for record in caplog.records]
    assert "has no val of en-fr, de-fr, fr-en, fr-de" in said


def test_files_of_two_languages_alone(tmp_path, caplog):
    """As OPUS has them; those come before others."""
    for one in ("en", "de"):
        (tmp_path / f"train.en-de.{one}").write_text("\n".join(WORDS[one][:2]))
    for one in ("fr", "en"):
        (tmp_path / f"train.fr-en.{one}").write_text("\n".join(WORDS[one]))
        (tmp_path / f"val.{one}").write_text("\n".join(WORDS[one]))
    data = made(tmp_path)
    counts = Counter(str(row.direction) for row in data.rows("train"))
    assert counts == {"en-de": 2, "de-en": 2, "en-fr": 4, "fr-en": 4}
    assert "has no train of de-fr, fr-de" in caplog.text
    assert {str(row.direction) for row in data.rows("val")} == {"en-fr", "fr-en"}


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_a_table_has_a_column_for_each_language(tmp_path, ending):
    rows = [f"{i}\t" + "\t".join(f"{one} {i}" for one in ("de", "en", "fr")) for i in range(40)]
    text = "\n".join(["id\tde\ten\tfr", *rows])
    if ending == "csv":
        text = text.replace("\t", ",")
    if ending == "jsonl":
        fields = (line.split("\t") for line in rows)
        text = "\n".join(
            f'{{"de": "{de}", "fr": "{fr}", "id": {i}, "en": "{en}"}}' for i, de, en, fr in fields
        )
    (tmp_path / f"names.{ending}").write_text(text)
    for root in (tmp_path, tmp_path / f"names.{ending}"):
        data = made(root)
        parts = {split: data.rows(split) for split in ("train", "val", "test")}
        lines = {split: {row.line for row in part} for split, part in parts.items()}
        assert [len(part) for part in lines.values()] == [32, 4, 4]
        assert len(set.union(*lines.values())) == 40  # all languages of a line are in one split
        assert all(row.source == f"{row.direction.source} {row.line}" for row in parts["test"])


def test_lines_that_share_a_sentence_are_held_out_together(tmp_path):
    """In any language; and those that are equal in a column, as emoji but for the tone of their skin."""
    tones = ["", ": dark skin tone", ": light skin tone"]
    lines = [f"hand {i}{tone}\tHand {i}{tone}" for i in range(20) for tone in tones]
    lines += [f"thing {i}\tDing {i // 3}" for i in range(60)]
    (tmp_path / "all.tsv").write_text("\n".join(["en\tde", *lines]))
    table = {"languages": ["en", "de"], "split_column": "en"}
    data = made(tmp_path / "all.tsv", **table, split_ignore=": [a-z]+ skin tone")
    homes = {}
    for split in ("train", "val", "test"):
        rows = [row for row in data.rows(split) if row.direction.source == "en"]
        assert len(rows) >= 10
        for row in rows:
            homes.setdefault(row.source.partition(":")[0], set()).add(split)
            homes.setdefault(row.target.partition(":")[0], set()).add(split)
    assert all(len(found) == 1 for found in homes.values())


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (None, {"languages": ["en"]}, r"data.languages must be two or more, each once, not \['en'\]"),
        (None, {"directions": ["en-dee"]}, r"'en-dee', .* \(en, de, fr\). Did you mean 'en-de'"),
        (None, {"directions": []}, "data.directions must be one or more"),
        (None, {"source": "de"}, "data.languages=.* takes the place of data.source='de'"),
        (None, {"shared_vocabulary": False}, "needs data.shared_vocabulary=true"),
        (None, {"languages": ["en", "zh"]}, "no zh of data.languages for train; there is: .*train.fr"),
        (None, {"languages": None, "temperature": 2}, "are for several languages"),
        (None, {"split_column": "en"}, "data.split_column='en' is of a table"),
        (("train.fr", "un\n"), {}, "train.en has 4 lines but .*train.fr has 1: line-aligned"),
        (("train.de", "a\n\nb\nc\n"), {}, "train.de line 2 is empty"),
        (("train.tsv", "en\tde\tfr\na\t\tc\n"), {}, "train.tsv line 2 has an empty de"),
        (("train.tsv", "en\tde\na\tb\n"), {}, "no fr of data.languages for train"),
        (("val.jsonl", '{"en": "a"}\n'), {}, "no de of data.languages for val"),
        (("train.tsv", "en\tde\tfr\n"), {}, "train.tsv has no line below"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_training(three, change, options, said):
    if change is not None:
        (three / change[0]).write_text(change[1])
    with pytest.raises(UserError, match=said) as caught:
        made(three, **options).setup("fit")
    assert "\n" not in str(caught.value)


def test_the_built_in_world_speaks_three():
    data = made(None, examples=30)
    assert len(data.pairs("train")) == 6 * 30
    with pytest.raises(UserError, match="'zh', but the built-in data speak en, fr, de"):
        made(None, languages=["en", "zh"])
    # One sentence belongs to one split.
    train = {row.source for row in data.rows("train") if row.direction.source == "en"}
    assert not train & {row.source for row in data.rows("val") if row.direction.source == "en"}


# --- What a model reads ------------------------------------------------------------------------


def test_a_target_begins_with_its_language(three):
    data = made(three, tokens_per_batch=100)
    data.setup("fit")
    tokenizer, described = data.target_tokenizer, TranslationData.__doc__.partition("Args:")[0]
    ids = {one: tokenizer.token_to_id(f"<2{one}>") for one in WORDS}
    assert sorted(ids.values()) == list(range(tokenizer.vocab_size - 3, tokenizer.vocab_size))
    for batch in data.train_dataloader():
        assert all(re.search(rf"``{name}\b", described) for name in batch)
        for row, language in enumerate(batch["target_language"]):
            labels = batch["labels"][row]
            count = int((labels != IGNORE).sum())
            assert batch["direction"][row].endswith(f"-{language}")
            assert batch["target"][row, :2].tolist() == [tokenizer.bos_id, ids[language]]
            assert labels[0] == IGNORE and labels[count] == tokenizer.eos_id
            assert torch.equal(labels[1:count], batch["target"][row, 2 : count + 1])
            assert tokenizer.decode(batch["target"][row].tolist()) == batch["target_text"][row]
    assert data.model_arguments == {"vocab_size": tokenizer.vocab_size, "bos_id": 1}


def test_a_checkpoint_says_which_languages_it_knows(three):
    data = made(three)
    data.setup("fit")
    assets = data.assets()
    assert assets["languages"]["ids"].keys() == WORDS.keys()
    assert ["de", "fr"] in assets["languages"]["directions"]
    assert "forced_bos_token_id" not in assets["generation"]
    (three / "train.en").unlink()  # what is evaluated needs no training files
    again = made(three, directions=["de-fr"])
    again.use_assets(assets)
    again.setup("test")
    assert again.assets() == assets
    assert {*next(iter(again.test_dataloader()))["direction"]} == {"de-fr"}
    with pytest.raises(UserError, match=r"language 'zh' is none of the model's \(en, de, fr\)"):
        made(three, languages=["en", "zh"]).use_assets(assets)
    one_way = TranslationData(examples=20, vocab_size=300).assets()
    with pytest.raises(UserError, match="has no tokens of languages"):
        again.use_assets(one_way)
    # The only language that is translated into is what a text begins with where nobody says.
    to_english = made(None, examples=20, directions=["de-en", "fr-en"])
    assets = to_english.assets()
    assert assets["generation"]["forced_bos_token_id"] == assets["languages"]["ids"]["en"]


# --- How often a direction comes ---------------------------------------------------------------


def test_shares_of_directions():
    assert shares([90, 10], 1) == [90, 10]
    assert shares([90, 10], float("inf")) == [50, 50]
    wanted = np.array([1000, 100, 10]) ** 0.2
    wanted *= 1110 / wanted.sum()
    found = shares([1000, 100, 10], 5)
    assert sum(found) == 1110 and np.abs(found - wanted).max() < 1
    assert shares([5, 0, 5], 3) == [5, 0, 5]


class At(LoaderProgress):
    """Progress that no trainer decides."""

    process = (0, 1)

    def __init__(self, epoch=0, parts=()):
        super().__init__()
        self.number, self.resumed = epoch, (epoch, list(parts))

    @property
    def epoch(self):
        return self.number


def test_small_directions_come_more_often_and_an_epoch_stays_as_long():
    lengths = np.random.default_rng(0).integers(3, 40, 1010).tolist()
    directions = [0] * 1000 + [1] * 10

    def batches(temperature, epoch=0, **options):
        sampler = MixedBatches(lengths, 256, directions, temperature, progress=At(epoch), **options)
        return list(sampler)

    flat = [i for batch in batches(5) for i in batch]
    counts = Counter(flat)
    small = [counts[i] for i in range(1000, 1010)]
    assert len(flat) == 1010 and sum(small) == shares([1000, 10], 5)[1] == 288
    assert set(small) == {28, 29} and max(counts[i] for i in range(1000)) == 1
    assert batches(5) == batches(5) != batches(5, epoch=1)
    # What is left out in one epoch comes in others.
    seen = {i for epoch in range(8) for batch in batches(5, epoch) for i in batch}
    assert len(seen) > 1000
    # Evaluation, and a temperature of 1, have each once, as without directions.
    assert batches(5, shuffle=False) == list(TokenBatches(lengths, 256, False))
    assert batches(1) == list(TokenBatches(lengths, 256, progress=At()))


def test_the_rest_of_an_epoch_is_what_was_left_of_it():
    lengths = np.random.default_rng(0).integers(3, 40, 300).tolist()
    directions = [0] * 280 + [1] * 20

    def sampler(progress, tokens=256):
        return MixedBatches(lengths, tokens, directions, 3, progress=progress)

    whole = list(sampler(At(2)))
    parts = [[4, 1, [256, None]]]
    rest = list(sampler(At(2, [Part(*part) for part in parts])))
    assert rest == whole[4:]
    # In batches of another size the same examples are left, each as often.
    other = list(sampler(At(2, [Part(*part) for part in parts]), tokens=500))
    assert Counter(i for b in other for i in b) == Counter(i for b in whole[4:] for i in b)
    assert len(sampler(At(2))) == len(whole)


# --- A tokenizer that exists ---------------------------------------------------------------------


@pytest.fixture
def given(tmp_path):
    """Folders with tokenizers: one of ours, and one without a begin."""
    texts = [text for column in WORDS.values() for text in column]
    bare = Inner(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3}, unk_token="<unk>"))
    bare.add_special_tokens(["<pad>", "</s>", "<unk>"])
    moved = Inner.from_str(train_tokenizer("bpe", texts, 300).inner.to_str())
    for name, tokenizer in {
        "whole": Tokenizer(moved, pad="<unk>", bos="<eos>", eos="<bos>", unk="<pad>"),
        "bare": Tokenizer(bare, pad="<pad>", eos="</s>", unk="<unk>"),
    }.items():
        model = torch.nn.Module()
        model.tokenizer = tokenizer
        (tmp_path / name).mkdir()
        save_tokenizer(model, tmp_path / name)
    return tmp_path


def test_a_tokenizer_that_exists_serves_both_sides(given):
    data = TranslationData(examples=20, tokenizer=str(given / "whole"))
    data.setup("fit")
    assert data.source_tokenizer is data.target_tokenizer
    # Its own begin, not the usual one: the model starts from there too.
    assert data.model_arguments == {"vocab_size": data.source_tokenizer.vocab_size, "bos_id": 2}
    batch = next(iter(data.train_dataloader()))
    assert (batch["target"][:, 0] == 2).all() and (batch["labels"] == 1).sum() == len(
        batch["target"]
    )
    several = made(None, examples=20, tokenizer=str(given / "whole"))
    size = data.model_arguments["vocab_size"]
    assert several.model_arguments == {"vocab_size": size + 3, "bos_id": 2}


@pytest.mark.parametrize("options", [{}, {"languages": ["en", "de"]}])
def test_a_tokenizer_without_begin_is_refused(given, options):
    source = str(given / "bare")
    with pytest.raises(UserError, match=r"data.tokenizer='.*bare' has no token of begin \(bos\)"):
        TranslationData(examples=20, tokenizer=source, **options).setup("fit")
