"""Texts of a folder are documents: a token ends each, and none sees another where that is asked."""

from __future__ import annotations

import logging

import pytest
import pytorch_lightning as pl
import torch

import family
import tasks
from family.inference.texts import continue_texts
from family.losses.language_model import IGNORE
from tasks.data import documents
from tasks.data.documents import END, held_out, split_at
from tasks.data.language_modeling import LanguageModelingData
from tasks.errors import UserError


def folder_of(place, texts):
    place.mkdir()
    for i, text in enumerate(texts):
        (place / f"{i:03d}.txt").write_text(text, encoding="utf-8")
    return place


def data_of(root, tmp_path, **options):
    options = {"context": 8, "batch_size": 3, "cache": str(tmp_path / "cache"), **options}
    return LanguageModelingData(str(root), **options)


def cut(data, split):
    """The documents of a split's tokens, decoded."""
    found: list[list[int]] = [[]]
    for token in data.tokens(split).tolist():
        if token == data.tokenizer.eos_id:
            found.append([])
        else:
            found[-1].append(token)
    assert not found.pop()  # each has an end
    return [data.tokenizer.decode(ids) for ids in found]


TEXTS = [f"{'abc'[i % 3]}{'12345'[i % 7 % 5]} <eos> end" for i in range(20)]


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_a_token_ends_each_file_of_a_folder(tmp_path, kind):
    data = data_of(folder_of(tmp_path / "texts", TEXTS), tmp_path, tokenizer=kind, vocab_size=300)
    data.setup("fit")
    # Whole documents are held out, evenly: no part of a text is on both sides.
    assert cut(data, "val") == [TEXTS[9], TEXTS[19]]
    assert cut(data, "train") == [*TEXTS[:9], *TEXTS[10:19]]
    size = sum(len(text.encode()) for text in cut(data, "val"))
    assert data.bytes_per_token("val") * len(data.tokens("val")) == pytest.approx(size)
    assert data.model_arguments["vocab_size"] == data.tokenizer.vocab_size
    assert set(next(iter(data.train_dataloader()))) == {"input_ids", "labels"}


def test_of_few_files_each_gives_its_last_part(tmp_path):
    data = data_of(folder_of(tmp_path / "texts", ["a" * 40, "b" * 60]), tmp_path)
    data.setup("fit")
    assert cut(data, "train") == ["a" * 36, "b" * 54] and cut(data, "val") == ["aaaa", "bbbbbb"]


def test_one_file_is_one_document_unless_a_separator_divides_it(tmp_path):
    file = folder_of(tmp_path / "texts", ["<|end|>\n".join(TEXTS)]) / "000.txt"
    for root in (file, file.parent):
        data = data_of(root, tmp_path)
        data.setup("fit")
        assert data.tokenizer.eos_id is None
        text = file.read_text()
        whole = [data.tokenizer.decode(data.tokens(s).tolist()) for s in ("train", "val")]
        assert "".join(whole) == text and len(whole[0]) == int(len(text) * 0.9)
        divided = data_of(root, tmp_path, separator="<|end|>\n")
        divided.setup("fit")
        assert cut(divided, "train") == [*TEXTS[:9], *TEXTS[10:19]]
        assert cut(divided, "val") == [TEXTS[9], TEXTS[19]]


def test_splits_that_are_files_are_divided_too(tmp_path):
    for split, text in (("train", "ab|cd|ef ab ef"), ("val", "fe|dc"), ("test", "ab|")):
        (tmp_path / f"{split}.txt").write_text(text)
    data = data_of(tmp_path, tmp_path, separator="|")
    data.setup("fit")
    assert cut(data, "train") == ["ab", "cd", "ef ab ef"] and cut(data, "val") == ["fe", "dc"]
    assert cut(data, "test") == ["ab"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_separator_is_found_wherever_pieces_are_cut(size, tmp_path, monkeypatch):
    text = "##one##two####th#ree##fo#"
    some = [text[i : i + size] for i in range(0, len(text), size)]
    found = "".join(piece or "|" for piece in split_at(some, "##"))
    assert found == "one|two|th#ree|fo#|"
    assert "".join(piece or "|" for piece in split_at([], "##")) == ""
    monkeypatch.setattr(documents, "CHUNK", size)
    data = data_of(folder_of(tmp_path / "texts", TEXTS), tmp_path)
    assert cut(data, "val") == [TEXTS[9], TEXTS[19]]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("separator", ["|", "<end>"])
def test_white_space_alone_is_no_document(size, separator):
    text = "\n".join(("one", separator, "two", separator, " ", separator, ""))
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    found = "".join(piece or "*" for piece in split_at(pieces, separator))
    assert found == "one\n*\ntwo\n*"


def test_held_out_documents_and_the_others_are_all():
    texts = [part for i in range(7) for part in (f"{i}", f"{i}", END)]
    for fraction in (0.15, 0.3, 0.5, 0.9):
        held, rest = (list(held_out(texts, fraction, rest)) for rest in (False, True))
        assert held.count(END) == int(7 * fraction) and len(held) + len(rest) == len(texts)
        assert not (set(held) & set(rest)) - {END}


def gpt(data, **options):
    torch.manual_seed(0)
    options = {"dim": 16, "depth": 2, "heads": 2, "position": "rotary", **options}
    return family.gpt_nano(data.model_arguments["vocab_size"], **options).eval()


@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_the_loss_of_a_document_behind_another_is_that_of_it_alone(tmp_path, position):
    root = folder_of(tmp_path / "texts", TEXTS)
    data = data_of(root, tmp_path, isolate=True, context=64)
    data.setup("fit")
    model, end = gpt(data, position=position), data.tokenizer.eos_id
    task = tasks.LanguageModeling(model)
    task.adapt_model()
    task.eval()
    (batch,) = data.val_dataloader()
    assert batch["documents"].max() >= 1
    packed = float(task.loss(batch)["loss"])
    sums, count = 0.0, 0
    for text in (TEXTS[9], TEXTS[19]):
        ids = torch.tensor([[*data.tokenizer.encode(text), end]])
        alone = task.loss({"input_ids": ids[:, :-1], "labels": ids[:, 1:]})["loss"]
        sums, count = sums + float(alone) * (ids.shape[1] - 1), count + ids.shape[1] - 1
    assert packed == pytest.approx(sums / count, rel=1e-5)
    assert int((batch["labels"] != IGNORE).sum()) == count
    crossing = {name: batch[name] for name in ("input_ids", "labels")}
    assert float(task.loss(crossing)["loss"]) != pytest.approx(packed, rel=1e-4)
    # Windows at random places know their documents as well.
    for window in data.train_dataloader():
        ends = window["input_ids"] == end
        assert (window["labels"][ends] == IGNORE).all() and (window["labels"][~ends] >= 0).all()
        assert torch.equal(window["documents"][:, 1:].diff(dim=1).bool(), ends[:, 1:-1])
    same = data_of(root, tmp_path, context=64)
    same.setup("fit")
    assert same._files["val"] == data._files["val"]


def test_a_model_of_short_documents_stops_by_itself(tmp_path):
    """And ``isolate`` runs through training and validation."""
    root = folder_of(tmp_path / "texts", ["one two six.", "red and blue."] * 10)
    data = data_of(root, tmp_path, isolate=True, context=24, batch_size=8, seed=1)
    model = gpt(data, dim=32)
    task = tasks.LanguageModeling(model, lr=1e-2, warmup_steps=5)
    trainer = pl.Trainer(
        max_steps=80, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, data)
    assert trainer.callback_metrics["val/bits_per_byte"] < 1
    model.tokenizer = data.tokenizer
    found = continue_texts(model.eval(), ["one", "red"], max_new_tokens=40)
    assert found == [" two six.", " and blue."]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"separator": ""}, "data.separator is empty"),
        ({"separator": "###"}, "data.separator='###' is nowhere in"),
        ({"isolate": True}, "data.isolate=true needs several documents"),
    ],
)
def test_refused_in_one_sentence(tmp_path, options, said):
    root = folder_of(tmp_path / "texts", ["a text of one document " * 9])
    with pytest.raises(UserError, match=said):
        data_of(root, tmp_path, **options).setup("fit")


def test_a_model_that_takes_no_documents(tmp_path):
    data = data_of(folder_of(tmp_path / "texts", TEXTS), tmp_path, isolate=True)
    data.setup("fit")
    model = family.LSTMLanguageModel(data.model_arguments["vocab_size"], dim=8, depth=1)
    trainer = pl.Trainer(fast_dev_run=1, accelerator="cpu", logger=False)
    with pytest.raises(UserError, match="isolate=true needs a model that takes documents: LSTM"):
        trainer.fit(tasks.LanguageModeling(model), data)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_checkpoint_from_before_sees_the_texts_as_before(kind, tmp_path, caplog):
    root = folder_of(tmp_path / "texts", TEXTS)
    (tmp_path / "one.txt").write_text("".join(TEXTS))
    new = data_of(tmp_path / "one.txt", tmp_path, tokenizer=kind, vocab_size=300)
    tokenizers = new.assets()["tokenizers"]
    # As they were, and as the length of the texts is added to them.
    for more in ({}, {"generation": {"trained_tokens": 8}}):
        data = data_of(root, tmp_path)
        data.use_assets({"tokenizers": tokenizers, **more})
        with caplog.at_level(logging.WARNING):
            data.setup("fit")
        assert "as one text" in caplog.text
        # The last part of each file, which it was not trained on, and no end between them.
        parts = [(text[: int(len(text) * 0.9)], text[int(len(text) * 0.9) :]) for text in TEXTS]
        for split, place in (("train", 0), ("val", 1)):
            ids = data.tokens(split).tolist()
            assert data.tokenizer.decode(ids) == "".join(part[place] for part in parts)
            assert data.tokenizer.eos_id is None or data.tokenizer.eos_id not in ids
        # What it saves is read so too, by its other processes and after a second resume.
        again = data_of(root, tmp_path)
        again.use_assets(data.assets())
        assert not again.several()


def test_a_checkpoint_of_documents_goes_on_with_them(tmp_path):
    root = folder_of(tmp_path / "texts", TEXTS)
    data = data_of(root, tmp_path)
    published = {name: data.assets()["tokenizers"]["text"] for name in ("text", "source", "target")}
    for assets in (data.assets(), {"tokenizers": published, "generation": {}}):
        again = data_of(root, tmp_path)
        again.use_assets(assets)
        assert cut(again, "val") == [TEXTS[9], TEXTS[19]]
        saved = data_of(root, tmp_path)
        saved.use_assets(again.assets())
        assert saved.several()
