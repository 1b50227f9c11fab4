"""Captioning: what it learns and reports, and the command that uses what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

import family
from family import TransformerConfig
from tasks.captioning import Captioning
from tasks.cli import main
from tasks.data.captioning import CaptioningData
from tasks.data.tokenizers import Tokenizer, train_tokenizer
from tasks.errors import UserError

CONFIG = TransformerConfig(dim=16, depth=1, heads=2, position="learned", max_tokens=64)


class Says(nn.Module):
    """Writes what it is told to, one text after another."""

    longest_target = 20

    def __init__(self, texts):
        super().__init__()
        self.texts, self.asked = list(texts), 0
        self.head = nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values, target):
        return self.head.expand(*target.shape, 99)

    def generate(self, pixel_values, **options):
        first, self.asked = self.asked, self.asked + len(pixel_values)
        return torch.tensor([[i] for i in range(first, self.asked)])


class Words:
    """Ids are places in a list of texts."""

    eos_id = pad_id = 0

    def __init__(self, texts):
        self.texts = texts

    def decode(self, ids):
        return self.texts[ids[0]]


def scored(monkeypatch, texts, captions, pictures, judge=None):
    """What is logged of sentences ``captions`` about ``pictures``."""
    model, logged = Says(texts), {}
    task = Captioning(model=model)
    task.adapt_model()
    monkeypatch.setattr(task, "tokenizer", lambda: Words(texts))
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(task, "log_mean", lambda values, count: logged.update(values))
    for first in range(0, len(captions), 2):
        some = slice(first, first + 2)
        batch = {
            "pixel_values": torch.rand(len(captions[some]), 3, 4, 4),
            "target": torch.ones(len(captions[some]), 3, dtype=torch.long),
            "labels": torch.ones(len(captions[some]), 3, dtype=torch.long),
            "caption": captions[some],
            "picture_ids": torch.tensor(pictures[some]),
        }
        task.validation_step(batch, 0)
    task.on_validation_epoch_end()
    return logged, model, task


def test_all_sentences_of_a_picture_are_its_references(monkeypatch):
    captions = ["a b c d e", "f g h i j", "k l m n o p", "a b c d e", "x y z x y"]
    made = ["f g h i j", "k l m n o p", "x y z x y"]
    found, model, task = scored(monkeypatch, made, captions, [0, 0, 1, 0, 2])
    assert model.asked == 3  # each picture once
    assert found["val/bleu"] == pytest.approx(100) and "val/true" not in found
    assert found["val/cider"] == pytest.approx((5 + 10 + 10) / 3)  # of the first one in two
    assert "nrefs:2" in task.signatures["val/cider"]


def test_what_is_said_of_the_built_in_world_is_judged():
    data = CaptioningData(examples=40)
    pairs = data.pairs("val")
    for file, text in zip(pairs.files[:20], pairs.texts, strict=False):
        assert data.is_true(file, text) is True
        assert data.is_true(file, "a picture of seven stars") is False
    assert data.is_true(pairs.files[0], pairs.texts[1]) is False
    assert data.is_true("elsewhere.png", pairs.texts[0]) is None


def test_the_decoder_is_fed_the_sentence_and_answers_it_to_its_end():
    data = CaptioningData(tokenizer="char", max_tokens=99, examples=20, batch_size=4)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    tokenizer = data.tokenizer
    for target, labels, caption in zip(
        batch["target"].tolist(), batch["labels"].tolist(), batch["caption"], strict=True
    ):
        answered = [one for one in labels if one != -100]
        assert target[0] == tokenizer.bos_id and answered[-1] == tokenizer.eos_id
        assert target[1 : len(answered)] == answered[:-1]
        assert tokenizer.decode(answered[:-1]) == caption


def test_it_learns_a_few_pictures_by_heart():
    pl.seed_everything(0)
    data = CaptioningData(
        image_size=(16, 16), tokenizer="word", max_tokens=20, examples=4, batch_size=4
    )
    task = Captioning(
        lambda vocab_size, image_size: family.Captioner(
            vocab_size, CONFIG, image_size=image_size, patch_size=8
        ),
        lr=1e-2,
        warmup_steps=5,
        schedule="constant",
    )
    trainer = pl.Trainer(
        max_epochs=80,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(task, data)
    batch = next(iter(data.train_dataloader()))
    made = task.eval().write(batch["pixel_values"], beams=2)
    assert made == [caption.replace(",", " ,") for caption in batch["caption"]]
    assert all(data.is_true(*one) for one in zip(batch["file"], made, strict=True))


def several_languages(folder):
    """A table with a name of each picture in two languages."""
    names = {"red": ("red field", "rotes Feld"), "blue": ("blue field", "blaues Feld")}
    lines = ["file\ten\tde"]
    for colour, said in names.items():
        for i in range(4):
            Image.new("RGB", (8, 8), colour).save(folder / f"{colour}{i}.png")
            lines.append("\t".join((f"{colour}{i}.png", *said)))
    for split in ("train", "val", "test"):
        (folder / f"{split}.tsv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_several_columns_are_told_apart_by_what_they_begin_with(tmp_path):
    data = CaptioningData(
        str(several_languages(tmp_path)), ["en", "de"], image_size=(8, 8), vocab_size=300
    )
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["caption"][:2] == ["en: red field", "de: rotes Feld"]
    assert batch["begin"][:2] == ["en:", "de:"] and len(batch["caption"]) == 16
    assert batch["picture_ids"][:4].tolist() == [0, 0, 1, 1]
    one = CaptioningData(str(tmp_path), ["de"], image_size=(8, 8), vocab_size=300)
    one.setup("fit")
    single = next(iter(one.val_dataloader()))
    assert single["caption"][0] == "rotes Feld" and "begin" not in single


def test_a_run_names_pictures_in_the_language_that_is_asked_for(tmp_path, monkeypatch, capsys):
    folder = several_languages(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ["--data.root", str(folder), "--data.caption_column=[en, de]", "--data.crop=1.0"]
    small = ["config.dim=32", "config.depth=1", "config.ffn_dim=64", "patch_size=8"]
    main(
        [
            *("fit", "--config=captioning/shapes", *options, "--run_folder=run"),
            *(f"--model.model.{one}" for one in (*small, "decoder_depth=1")),
            *(
                "--trainer.max_steps=120",
                "--trainer.check_val_every_n_epoch=120",
                "--trainer.val_check_interval=1.0",
            ),
            *("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"),
            *("--data.image_size=[8, 8]", "--data.batch_size=16", "--model.lr=1e-2"),
        ]
    )
    found = json.loads(Path("run/metrics-fit.json").read_text())["metrics"]
    assert {"val/bleu", "val/en/cider", "val/de/cider"} < found.keys()
    capsys.readouterr()
    main(["caption", "run", "blue1.png", "--begin", "de:", "--format=jsonl"])
    assert json.loads(capsys.readouterr().out)["caption"] == "blaues feld"
    loaded = family.load("run")
    assert loaded.predict(["red0.png", "blue0.png"], begin="en:") == ["red field", "blue field"]
    with pytest.raises(ValueError, match="begin='en: .* tokens: a sentence of 32 has no room"):
        loaded.predict(["red0.png"], begin="en: " + "red field " * 20)


def test_a_run_captions_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(
        [
            "fit",
            "--config=captioning/shapes",
            "--trainer.max_steps=2",
            "--trainer.val_check_interval=2",
            "--trainer.limit_val_batches=1",
            "--trainer.enable_progress_bar=false",
            "--trainer.accelerator=cpu",
            "--data.examples=100",
            "--data.batch_size=8",
            "--run_folder=run",
        ]
    )
    state = torch.load("run/checkpoints/best.ckpt", weights_only=True)["callbacks"]
    assert any("val/true" in name for name in state)  # there is no such metric of other data
    assert not CaptioningData("elsewhere").judges
    data = CaptioningData(examples=100)
    picture = data.pairs("val").image(0)
    picture.convert("RGBA").save("one.png")
    capsys.readouterr()
    main(["caption", "run", "one.png", "--beams=2", "--format=jsonl"])
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {"file", "caption"} and said["file"] == "one.png"
    assert family.load("run").predict([picture], beams=2) == [said["caption"]]
    main(["test", "run", "--trainer.limit_test_batches=1"])
    assert "test/cider" in capsys.readouterr().out


def test_decoding_begins_and_ends_as_the_tokenizer_says(tmp_path):
    inner = train_tokenizer(
        "char", ["a red circle"], specials=("<pad>", "<unk>", "<s>", "</s>")
    ).inner
    given = {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"}
    data = CaptioningData(examples=20, image_size=(16, 16), max_tokens=90)
    data.tokenizer = Tokenizer(inner, **given)
    assert data.model_arguments["bos_id"] == inner.token_to_id("<s>") == 2
    for names in (("pad", "bos", "unk"), ("pad", "eos", "unk")):
        data.tokenizer = Tokenizer(inner, **{name: given[name] for name in names})
        with pytest.raises(UserError, match="a token before each text and its end"):
            data.setup("fit")
