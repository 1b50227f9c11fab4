"""A model that draws, from its training on an image tokenizer to the command that uses it."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

import family
import tasks
from family.core.config import TransformerConfig
from family.inputs.preprocess import Preprocess
from tasks.cli import main
from tasks.errors import UserError
from tasks.text_to_image import TextToImage

SENTENCE = "a small red circle"
TOKENIZER = {"image_size": 16, "downsampling": 4, "width": 8, "depth": 1}
STACK = {"dim": 16, "depth": 1, "heads": 2, "causal": True, "position": "learned"}
DATA = {
    "image_size": (16, 16),
    "examples": 40,
    "batch_size": 8,
    "vocab_size": 300,
    "max_tokens": 80,
}
SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
    "--trainer.limit_predict_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--data.examples=40",
    "--data.batch_size=8",
    "--data.image_size=[16,16]",
    "--data.vocab_size=300",
    "--data.max_tokens=80",
    "--model.model.init_args.text_tokens=80",
    *(f"--model.model.init_args.config.{n}={STACK[n]}" for n in ("dim", "depth", "heads")),
]


def save_tokenizer(folder, size=16):
    torch.manual_seed(1)
    made = family.ImageTokenizer(
        **{**TOKENIZER, "image_size": size}, codebook=family.CodebookConfig(size=20, dim=4)
    )
    made.preprocess = Preprocess((size, size), mean=(0.5,) * 3, std=(0.5,) * 3)
    family.save_pretrained(made, folder)
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An image tokenizer, and a run of what draws in its tokens; the tokenizer is gone since."""
    folder = tmp_path_factory.mktemp("runs")
    save_tokenizer(folder / "tokens")
    given = [f"--model.image_tokenizer={folder}/tokens", f"--run_folder={folder}/run"]
    main(["fit", "--config", "text_to_image/shapes_dalle", *SMALL, *given])
    shutil.move(folder / "tokens", folder / "elsewhere")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *arguments):
    """The sentence that a call ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(list(map(str, arguments)))
    return capsys.readouterr().err.strip().splitlines()[-1]


# --- Training ---


def test_a_run_has_its_figures_its_sheet_and_the_tokenizer(place):
    metrics = json.loads((place / "run/metrics-fit.json").read_text())["metrics"]
    assert {"val/loss", "val/bits_per_token", "val/text_loss"} <= metrics.keys()
    assert 0 < metrics["val/bits_per_token"] < 8
    assert Image.open(place / "run/samples/step-000002-drawn.png").width > 300
    model = family.from_pretrained(place / "run")
    theirs = family.from_pretrained(place / "elsewhere").state_dict()
    ours = model.image_tokenizer.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_run_goes_on_without_what_it_began_from(place, capsys):
    main(["test", str(place / "run"), "--run_folder=tested"])
    assert "test/loss" in json.loads(Path("tested/metrics-test.json").read_text())["metrics"]
    main(["predict", str(place / "run"), "--run_folder=predicted"])
    rows = [*map(json.loads, Path("predicted/predictions.jsonl").read_text().splitlines())]
    assert len(rows) == 8 and Image.open(f"predicted/{rows[0]['picture']}").size == (16, 16)
    more = ["--trainer.max_steps=3", "--run_folder=on"]
    said = refused(
        capsys, "resume", place / "run", *more, f"--model.image_tokenizer={place}/elsewhere"
    )
    assert "was trained with model.image_tokenizer=" in said
    main(["resume", str(place / "run"), *more])
    assert torch.load("on/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


def task_of(source, **options):
    build = partial(family.DALLE, config=TransformerConfig(**STACK), text_tokens=80)
    return TextToImage(build, image_tokenizer=str(source), warmup_steps=0, **options)


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return pl.Trainer(**{"max_steps": 4, "limit_val_batches": 1, **quiet, **options})


def test_how_often_it_draws_changes_nothing(tmp_path):
    """Training draws which captions are left out, and the sheet by a generator of its own."""
    save_tokenizer(tmp_path / "tokens")
    found, sheets = [], []
    for often in (1, 4):
        pl.seed_everything(3)
        task = task_of(tmp_path / "tokens", guidance=2.0)
        run = trainer(val_check_interval=often)
        run.fit(task, tasks.TextToImageData(**DATA))
        found.append(task.model.state_dict())
        sheets.append(np.asarray(task.pictures["drawn"]))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert np.array_equal(*sheets)
    captions = tasks.TextToImageData(**DATA).pairs("val").texts
    batch = next(iter(tasks.TextToImageData(**DATA).val_dataloader()))
    assert batch["caption"][:4] == captions[:4]  # the first of val, in order


def test_a_checkpoint_and_averaged_weights(tmp_path):
    save_tokenizer(tmp_path / "tokens")
    task = task_of(tmp_path / "tokens")
    averaged = pl.callbacks.EMAWeightAveraging(decay=0.5)
    run = trainer(callbacks=[averaged], precision="bf16-mixed", max_steps=2)
    run.fit(task, tasks.TextToImageData(**DATA))
    run.save_checkpoint(tmp_path / "run.ckpt")
    shutil.rmtree(tmp_path / "tokens")
    again = TextToImage.load_from_checkpoint(tmp_path / "run.ckpt")
    state = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    trainer().validate(again, tasks.TextToImageData(**DATA), verbose=False)
    trainer(max_steps=1).fit(again, tasks.TextToImageData(**DATA))  # it may be trained on


def test_means_are_over_pictures_whatever_the_batches(monkeypatch):
    torch.manual_seed(0)
    example = {**family.DALLE.facts.example, "vocab_size": 40}
    task = TextToImage(family.DALLE(**example))
    task.adapt_model()
    task.eval().requires_grad_(False)
    batch = {"pixel_values": torch.rand(5, 3, 16, 16), "input_ids": torch.randint(40, (5, 9))}
    batch["mask"] = torch.arange(9) < torch.tensor([9, 2, 4, 7, 3])[:, None]

    def means(*parts):
        found, counted = {}, 0
        monkeypatch.setattr(task, "log_mean", lambda values, count: seen.append((values, count)))
        for part in parts:
            seen = []
            task.evaluate({name: rows[part] for name, rows in batch.items()}, "val")
            (values, count) = seen[0]
            counted += count
            for name, value in values.items():
                found[name] = found.get(name, 0.0) + float(value) * count
        return {name: value / counted for name, value in found.items()}

    assert means(slice(0, 2), slice(2, 5)) == pytest.approx(means(slice(0, 5)), rel=1e-5)


class Picture(nn.Module):
    """It draws nothing."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def test_one_sentence_before_training(tmp_path, capsys):
    source = tmp_path / "tokens"
    save_tokenizer(source)
    save_tokenizer(tmp_path / "large", 32)
    family.save_pretrained(family.vit_tiny(0, 8, 16, dim=16, depth=1, heads=2), tmp_path / "vit")
    data = tasks.TextToImageData(**DATA)

    def said(task):
        with pytest.raises(UserError) as error:
            trainer().fit(task, data)
        return str(error.value)

    found = said(task_of(tmp_path / "large"))
    assert "pictures of 32 x 32 pixels, but data.image_size=[16, 16]" in found
    assert "needs ImageTokenizing" in said(task_of(tmp_path / "vit"))
    assert "no file or folder" in said(task_of("no such"))
    with pytest.raises(UserError, match="which brings its own"):
        TextToImage(pretrained="x", image_tokenizer="y")
    assert "as model.image_tokenizer" in said(TextToImage(task_of(source).build))
    beside = task_of(source)
    beside.model_spec = {"class_path": "family.DALLE", "init_args": {"image_tokenizer": TOKENIZER}}
    assert "leave the latter out" in said(beside)

    def build(text_tokens=80, **options):
        return partial(
            family.DALLE, config=TransformerConfig(**STACK), text_tokens=text_tokens, **options
        )

    found = said(TextToImage(build(40), image_tokenizer=str(source)))
    assert "data.max_tokens=80 is more than the model's text_tokens=40" in found
    assert "has no method losses" in said(TextToImage(Picture))
    assert "takes none" in said(TextToImage(Picture, image_tokenizer=str(source)))
    bare = build(caption_dropout=0.0)
    found = said(TextToImage(bare, image_tokenizer=str(source), guidance=2.0))
    assert "model.guidance=2.0 needs a model that learns with some captions left out" in found

    other = {**TOKENIZER, "codebook": {"size": 24, "dim": 4}}
    handed = family.DALLE(300, TransformerConfig(**STACK), 80, image_tokenizer=other)
    found = said(TextToImage(handed, image_tokenizer=str(source)))
    assert "does not fit the image_tokenizer that the model is given: codebook." in found
    call = ["fit", "--config", "text_to_image/shapes_dalle", *SMALL, "--run_folder=run"]
    assert "runs/tokens" in refused(capsys, *call)  # of the config, which is not there


# --- The command ---


def pixels(folder):
    return {file.name: np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))}


def test_draw(place, tmp_path, capsys):
    run = str(place / "run")
    main(["draw", run, SENTENCE, "two blue squares", "-n", "3", "--out", "a", "--guidance", "2"])
    printed = capsys.readouterr().out.splitlines()
    first = pixels(tmp_path / "a")
    names = [f"1-a-small-red-circle-{i}.png" for i in (1, 2, 3)]
    names += [f"2-two-blue-squares-{i}.png" for i in (1, 2, 3)]
    assert sorted(first) == sorted([*names, "sheet.png"])
    assert printed[:6] == [f"a/{name}" for name in names]
    assert all(first[name].shape == (16, 16, 3) for name in names)
    assert len({first[name].tobytes() for name in names}) == 6
    main(["draw", run, SENTENCE, "two blue squares", "-n", "3", "--out", "b", "--guidance", "2"])
    assert all(np.array_equal(first[n], found) for n, found in pixels(tmp_path / "b").items())
    more = ["--seed", "1", "--top_k", "5", "--format", "jsonl"]
    capsys.readouterr()
    main(["draw", run, SENTENCE, "-n", "3", "--out", "c", *more])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["picture"] for row in rows] == [f"c/a-small-red-circle-{i}.png" for i in (1, 2, 3)]
    assert rows[0]["text"] == SENTENCE and [row["rank"] for row in rows] == [1, 2, 3]
    other = pixels(tmp_path / "c")
    assert not {first[n].tobytes() for n in names} & {other[n[2:]].tobytes() for n in names[:3]}


def test_the_best_come_first(place, tmp_path, capsys):
    model = family.from_pretrained(place / "run")
    torch.manual_seed(0)
    clip = family.clip_small(
        model.tokenizer.vocab_size, dim=16, depth=1, heads=2, image_size=16, patch_size=8
    )
    clip.tokenizer, clip.preprocess = model.tokenizer, Preprocess((16, 16))
    family.save_pretrained(clip, tmp_path / "clip")
    call = ["draw", str(place / "run"), SENTENCE, "-n", "4", "--format", "jsonl"]
    main([*call, "--out", "plain"])
    capsys.readouterr()
    main([*call, "--out", "ranked", "--rank", str(tmp_path / "clip")])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    values = [row["similarity"] for row in rows]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4
    found = family.load(tmp_path / "clip").predict([row["picture"] for row in rows], [SENTENCE])
    assert found[:, 0].tolist() == pytest.approx(values, abs=1e-5)
    drawn = [
        {v.tobytes() for n, v in pixels(tmp_path / f).items() if n != "sheet.png"}
        for f in ("plain", "ranked")
    ]
    assert drawn[0] == drawn[1]  # the same pictures in another order


def test_predict(place):
    loaded = family.load(place / "run")
    made = loaded.predict([SENTENCE, SENTENCE], guidance=1.5)
    assert [one.size for one in made] == [(16, 16)] * 2
    assert made[0].tobytes() != made[1].tobytes()
    again = loaded.predict([SENTENCE, f" {SENTENCE} "], guidance=1.5)
    assert [one.tobytes() for one in again] == [one.tobytes() for one in made]
    greedy = loaded.predict([SENTENCE], num=2, sampling=family.Sampling())
    assert greedy[0][0].tobytes() == greedy[0][1].tobytes()
    assert loaded.predict([]) == []
    assert loaded.assets["max_tokens"] == 80


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((SENTENCE, "-n", "0"), "-n must be at least 1, not 0."),
        ((SENTENCE, "--steps", "5"), "--steps: a DALLE draws otherwise; it takes --temperature"),
        ((SENTENCE, "--guidance", "-1"), "guidance must be a number of at least 0, not -1.0."),
        ((SENTENCE, "--top_p", "3"), "top_p must be in (0, 1], not 3.0."),
        (("a red circle and " * 30,), "tokens, but the model reads 80 at most"),
        (("  ",), "a sentence is empty: say what to draw."),
        ((SENTENCE, "--rank", "run"), "TextToImage, but this command needs ImageText"),
    ],
)
def test_the_command_refuses(place, capsys, monkeypatch, more, sentence):
    monkeypatch.chdir(place)
    assert sentence in refused(capsys, "draw", "run", *more, "--out", "nothing")
    assert not (place / "nothing").exists()


@pytest.mark.parametrize("kind", ["unigram", "char"])
def test_words_that_no_tokenizer_knows(place, kind):
    from tasks.data.tokenizers import train_tokenizer

    loaded = family.load(place / "run")
    loaded.model.tokenizer = train_tokenizer(kind, ["a red circle", "blue squares"] * 20, 30)
    with pytest.raises(ValueError, match="does not know (the character 'ж'|'жук' in 'a жук')"):
        loaded.predict(["a жук"])
