"""Tasks as a Lightning user would use them: plain loaders, plain models, and no command line."""

from __future__ import annotations

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import family
import tasks
from family.inputs.preprocess import Preprocess
from tasks.cli import main
from tasks.errors import UserError
from tasks.runs.checkpoints import load_checkpoint

CLASSES = ["circle", "square", "star"]


class Net(nn.Module):
    """A plain PyTorch model by the contract of classification; it knows nothing of the toolkit."""

    def __init__(self, num_classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, num_classes)

    def forward(self, pixel_values):
        return self.head(self.conv(pixel_values).mean((2, 3)))


class Prepared(Net):
    """One that says what inference needs beside it."""

    labels = CLASSES
    preprocess = Preprocess(size=(8, 8))


def trainer(folder, **options):
    return pl.Trainer(
        max_steps=3,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def pictures(count=8):
    drawn = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % len(CLASSES)
    return TensorDataset(torch.randn(count, 3, 8, 8, generator=drawn), labels)


class Rows(Dataset):
    """Batches by name, drawn once."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def loader(*batches):
    return DataLoader(Rows(batches), batch_size=None)


def test_a_plain_model_and_a_plain_loader(tmp_path):
    task = tasks.ImageClassification(Net(), lr=1e-2, warmup_steps=0)
    train, val = (
        DataLoader(pictures(), batch_size=4, shuffle=True),
        DataLoader(pictures(), batch_size=4),
    )
    before = task.build_model().head.weight.clone()
    run = trainer(tmp_path)
    run.fit(task, train, val)
    assert not torch.equal(task.model.head.weight, before)
    assert {"train/loss", "val/loss", "val/accuracy"} <= run.callback_metrics.keys()
    assert run.test(task, val, verbose=False)[0].keys() >= {"test/accuracy"}
    assert run.predict(task, val)[0][0]["label"] in ("0", "1", "2")
    assert "predictions" in task.pictures  # a sheet, though nobody said how pixels were normalised


def test_what_was_handed_in_is_asked_for_again(tmp_path, capsys):
    task = tasks.ImageClassification(Net(width=6), label_smoothing=0.1)
    run = trainer(tmp_path)
    run.fit(task, DataLoader(pictures(), 4))
    run.save_checkpoint(tmp_path / "net.ckpt")
    again = tasks.ImageClassification.load_from_checkpoint(
        tmp_path / "net.ckpt", model=Net(width=6)
    )
    assert again.label_smoothing == 0.1 and again.options["label_smoothing"] == 0.1
    batch = dict(zip(again.fields, next(iter(DataLoader(pictures(), 4))), strict=True))
    assert torch.equal(again.logits(batch), task.eval().logits(batch))
    with pytest.raises(UserError, match="Net"):
        tasks.ImageClassification.load_from_checkpoint(tmp_path / "net.ckpt")
    with pytest.raises(UserError, match="does not fit the model"):
        tasks.ImageClassification.load_from_checkpoint(tmp_path / "net.ckpt", model=Net(width=7))
    with pytest.raises(SystemExit):
        main(["classify", str(tmp_path / "net.ckpt"), "x.png"])
    assert "Net" in capsys.readouterr().err


@pytest.mark.parametrize("build", [Prepared, partial(Prepared, width=6)])
def test_a_class_is_enough_for_the_commands(tmp_path, capsys, build):
    task = tasks.ImageClassification(build)
    run = trainer(tmp_path)
    run.fit(task, DataLoader(pictures(), 4))
    run.save_checkpoint(tmp_path / "net.ckpt")
    Image.new("RGB", (20, 10), "red").save(tmp_path / "red.png")
    capsys.readouterr()
    main(["classify", str(tmp_path / "net.ckpt"), str(tmp_path / "red.png")])
    said = capsys.readouterr().out
    assert all(name in said for name in CLASSES)
    model = load_checkpoint(str(tmp_path / "net.ckpt")).model
    assert torch.equal(model.conv.weight, task.model.conv.weight)


def test_a_task_trained_in_python_on_our_data(tmp_path, capsys):
    data = tasks.ImageClassificationData(examples=40, image_size=16, batch_size=8)
    build = partial(family.vit_tiny, patch_size=8, dim=16, depth=1, heads=2)
    task = tasks.ImageClassification(build)
    run = trainer(tmp_path, limit_val_batches=1)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "vit.ckpt")
    Image.new("RGB", (20, 10), "red").save(tmp_path / "red.png")
    capsys.readouterr()
    main(["classify", str(tmp_path / "vit.ckpt"), str(tmp_path / "red.png")])
    assert "square" in capsys.readouterr().out
    again = tasks.ImageClassification.load_from_checkpoint(tmp_path / "vit.ckpt")
    assert again.assets() == data.assets()
    fresh = trainer(tmp_path, limit_test_batches=1)
    expected = run.test(task, data, verbose=False)
    assert fresh.test(again, data, verbose=False)[0].keys() == expected[0].keys()


def batch_of(model):
    """What the model's own example reads."""
    torch.manual_seed(0)
    return model.facts.inputs.draw(model, 0)


def example(cls):
    torch.manual_seed(0)
    return cls(**cls.facts.example)


def text_task():
    model = example(family.GPT)
    ids = batch_of(model)["input_ids"]
    return tasks.LanguageModeling(model), {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}


def gap_task():
    torch.manual_seed(0)
    model = family.BERT(**{**family.BERT.facts.example, "num_classes": 0, "masked_head": True})
    batch = batch_of(model)
    return tasks.MaskedLanguageModeling(model), {**batch, "labels": batch["input_ids"]}


def pair_task():
    model = example(family.Seq2Seq)
    batch = batch_of(model)
    return tasks.Translation(model), {**batch, "labels": batch["target"]}


def class_task():
    model = example(family.BERT)
    return tasks.TextClassification(model), {**batch_of(model), "labels": torch.tensor([0, 2])}


def pixel_task():
    model = example(family.Segmenter)
    batch = batch_of(model)
    labels = torch.randint(5, (2, *model.image_size))
    return tasks.Segmentation(model), {**batch, "labels": labels}


def box_task():
    model = example(family.DETR)
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    targets = [
        {"labels": torch.tensor([i]), "boxes": boxes, "size": (64, 64), "image_id": i}
        for i in range(2)
    ]
    return tasks.Detection(model), {"pixel_values": torch.randn(2, 3, 64, 64), "targets": targets}


def contrast_task():
    model = example(family.CLIP)
    batch = batch_of(model)
    return tasks.ImageText(model), {n: v[:2] for n, v in batch.items()}


def near_task():
    model = example(family.SentenceEncoder)
    batch = batch_of(model)
    others = {"pair_ids": batch["input_ids"].flip(1), "pair_mask": batch["mask"].flip(1)}
    return tasks.SentenceEmbedding(model), {**batch, **others}


def draw_task():
    model = example(family.DALLE)
    ids = batch_of(model)["input_ids"]
    return tasks.TextToImage(model), {"pixel_values": torch.randn(2, 3, 16, 16), "input_ids": ids}


TASKS = [
    draw_task,
    near_task,
    text_task,
    gap_task,
    pair_task,
    class_task,
    pixel_task,
    box_task,
    contrast_task,
]


@pytest.mark.parametrize("make", TASKS)
def test_loss_is_pure(make):
    task, batch = make()
    task.adapt_model()
    task.train()
    terms = task.loss(batch)
    terms["loss"].backward()
    assert any(p.grad is not None for p in task.parameters())
    assert task._trainer is None


@pytest.mark.parametrize("make", TASKS)
def test_every_task_takes_plain_batches(tmp_path, make):
    task, batch = make()
    run = trainer(tmp_path)
    run.fit(task, loader(batch, batch), loader(batch))
    assert torch.isfinite(run.callback_metrics["train/loss"])
    assert any(name.startswith("val/") for name in run.callback_metrics)
    run.test(task, loader(batch), verbose=False)
    run.save_checkpoint(tmp_path / "run.ckpt")
    again = type(task).load_from_checkpoint(tmp_path / "run.ckpt")
    same = zip(task.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    trainer(tmp_path).validate(again, loader(batch), verbose=False)


def test_tuples_have_the_names_of_the_fields():
    task = tasks.ImageClassification(Net())
    named = task.by_name((1, 2))
    assert named == {"pixel_values": 1, "labels": 2}
    with pytest.raises(
        UserError, match="3 parts, but ImageClassification knows pixel_values, labels"
    ):
        task.by_name((1, 2, 3))


def test_a_tokenizer_on_the_model_shows_samples_and_travels(tmp_path, capsys):
    from tasks.data.tokenizers import train_tokenizer

    tokenizer = train_tokenizer("char", ["a red circle\n"], specials=False)
    model = family.gpt_nano(tokenizer.vocab_size, dim=16, depth=1, heads=2, max_tokens=32)
    model.tokenizer = tokenizer
    ids = torch.tensor([tokenizer.encode("a red circle\na red circle\n")])
    batch = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    task = tasks.LanguageModeling(model)
    run = trainer(tmp_path)
    run.fit(task, loader(batch, batch, batch), loader(batch))
    assert task.samples
    run.save_checkpoint(tmp_path / "text.ckpt")
    capsys.readouterr()
    main(["generate", str(tmp_path / "text.ckpt"), "--prompt", "a red", "--max_new_tokens", "3"])
    assert capsys.readouterr().out.startswith("a red")


def test_what_was_loaded_trains_on_and_is_saved_whole(tmp_path):
    data = tasks.ImageClassificationData(examples=40, image_size=16, batch_size=8)
    task = tasks.ImageClassification(Net)
    run = trainer(tmp_path, limit_val_batches=1)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "first.ckpt")
    again = tasks.ImageClassification.load_from_checkpoint(tmp_path / "first.ckpt", strict=True)
    plain = [dict(zip(task.fields, one, strict=True)) for one in DataLoader(pictures(), 4)]
    fresh = trainer(tmp_path)
    fresh.fit(again, loader(*plain))
    fresh.save_checkpoint(tmp_path / "second.ckpt")
    last = tasks.ImageClassification.load_from_checkpoint(tmp_path / "second.ckpt")
    assert torch.equal(last.model.head.weight, again.model.head.weight)
    assert last.model.head.out_features == 8 == len(family.load(tmp_path / "second.ckpt").labels)


class Tuples(pl.LightningDataModule):
    """Data of one's own, whose batches are tuples."""

    def train_dataloader(self):
        return DataLoader(pictures(), 4)

    val_dataloader = predict_dataloader = train_dataloader


class Changing(tasks.ImageClassification):
    """One with a hook of its own."""

    calls = 0

    def on_after_batch_transfer(self, batch, index):
        self.calls += 1
        return batch


def test_nobody_elses_object_is_touched(tmp_path):
    data = Tuples()
    task = Changing(Net())
    trainer(tmp_path).fit(task, data)
    assert task.calls > 0
    assert "on_after_batch_transfer" not in vars(data)
    first = next(iter(data.train_dataloader()))
    assert data.on_after_batch_transfer(first, 0) is first


def test_a_loaded_task_has_its_tokenizers():
    from pathlib import Path

    folder = Path(__file__).parents[1] / "fixtures/runs/translation"
    task = tasks.Translation.load_from_checkpoint(folder)
    assert task.tokenizer("target").decode(task.tokenizer("source").encode("a"))
