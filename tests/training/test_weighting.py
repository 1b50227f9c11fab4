"""Weights of classes: counted over the training split, in the loss of training, kept by checkpoints."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tasks
from tasks.cli import main
from tasks.data import masks as reading
from tasks.data.image_classification import ImageClassificationData
from tasks.data.segmentation import SegmentationData
from tasks.data.text_classification import TextClassificationData
from tasks.errors import UserError
from tasks.segmentation import pixel_loss
from tasks.training.weighting import balanced

COUNTS = {"cat": 6, "dog": 3, "emu": 1}
EXPECTED = [10 / (3 * 6), 10 / (3 * 3), 10 / (3 * 1)]


class Net(nn.Module):
    """One for pictures, by class or by pixel, and for tokens."""

    def __init__(self, num_classes: int = 3, pixels: bool = False, vocab_size: int = 300) -> None:
        super().__init__()
        self.num_classes, self.pixels = num_classes, pixels
        self.conv, self.words = nn.Conv2d(3, num_classes, 1), nn.Embedding(vocab_size, num_classes)

    def forward(self, inputs, mask=None):
        if not inputs.is_floating_point():
            return self.words(inputs).mean(1)
        logits = self.conv(inputs)
        return logits if self.pixels else logits.mean((2, 3))


def pixel_net(num_classes: int) -> Net:
    return Net(num_classes, pixels=True)


def pictures(root, counts=COUNTS):
    for split, (name, count) in itertools.product(("train", "val"), counts.items()):
        for i in range(count if split == "train" else 2):
            path = root / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (20 * i, 90, 7 * len(path.name))).save(path)
    return ImageClassificationData(str(root), image_size=8, batch_size=4, augment="none")


def texts(root):
    for split in ("train", "val"):
        lines = (f"{name} {i}\t{name}" for name, n in COUNTS.items() for i in range(n))
        (root / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return TextClassificationData(str(root), tokenizer="char", batch_size=4)


def masks(root, count=4, **options):
    """Of 40 pixels 24 are of class 0, 12 of class 1, 4 of class 2, and 8 more count for nothing."""
    row = np.repeat([0, 1, 2, 255], [6, 3, 1, 2]).astype(np.uint8)
    for split, i in itertools.product(("train", "val"), range(count)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 4), (40 * i, 99, 7)).save(root / split / "images" / f"{i}.png")
        Image.fromarray(np.tile(row, (4, 1))).save(root / split / "masks" / f"{i}.png")
    options = {"image_size": (4, 12), "batch_size": 2, "augment": False, "ignore": 255} | options
    return SegmentationData(str(root), **options)


KINDS = {
    "pictures": (tasks.ImageClassification, Net, pictures),
    "texts": (tasks.TextClassification, Net, texts),
    "masks": (tasks.Segmentation, pixel_net, masks),
}


def trainer(folder, steps=2, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, **quiet, **options
    )


@pytest.mark.parametrize("kind", KINDS)
def test_balanced_weights_are_of_the_training_split(tmp_path, kind):
    task_class, net, write = KINDS[kind]
    task, data = task_class(net, class_weights="balanced", warmup_steps=0), write(tmp_path)
    run = trainer(tmp_path)
    run.fit(task, data)
    found = task.loss_weights(torch.zeros(1, 3)).tolist()
    assert found == pytest.approx(EXPECTED)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = task_class.load_from_checkpoint(tmp_path / "a.ckpt", model=task.model)
    assert again.loss_weights(torch.zeros(1, 3)).tolist() == found


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_loss_is_weighted_and_no_other(tmp_path, kind):
    task_class, net, write = KINDS[kind]
    data = write(tmp_path)
    data.setup("fit")
    model = net(3)
    plain, weighted = task_class(model), task_class(model, class_weights=[1.0, 2.0, 7.0])
    for task in (plain, weighted):
        task.adapt_model()
    batch = next(iter(data.train_dataloader()))
    inputs = batch["input_ids"] if kind == "texts" else batch["pixel_values"]
    how = {"weight": torch.tensor([1.0, 2.0, 7.0]), "ignore_index": 255}
    expected = F.cross_entropy(model(inputs), batch["labels"], **how)
    assert torch.allclose(weighted.loss(batch)["loss"], expected)
    assert not torch.allclose(plain.loss(batch)["loss"], expected)
    logged = []
    for task in (plain, weighted):
        (found,) = trainer(tmp_path).validate(task, data, verbose=False)
        logged.append(found)
    assert logged[0] == logged[1] and "val/loss" in logged[0]


def test_smoothing_and_mixed_labels_are_weighted_as_torch_does():
    task = tasks.ImageClassification(Net(), class_weights=[1.0, 2.0, 7.0], label_smoothing=0.2)
    task.adapt_model()
    pixels, weights = torch.randn(4, 3, 8, 8), torch.tensor([1.0, 2.0, 7.0])
    for labels in (torch.tensor([0, 1, 2, 2]), torch.rand(4, 3).softmax(1)):
        expected = F.cross_entropy(
            task.logits({"pixel_values": pixels}), labels, weights, label_smoothing=0.2
        )
        found = task.loss({"pixel_values": pixels, "labels": labels})["loss"]
        assert torch.equal(found, expected)


def test_pixels_that_do_not_count_weigh_nothing():
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    labels[0] = 255
    weights = torch.tensor([0.1, 0.2, 0.3])
    loss, total = pixel_loss(logits, labels, weights)
    how = {"ignore_index": 255}
    assert torch.allclose(loss / total, F.cross_entropy(logits, labels, weights, **how))
    smooth, total = pixel_loss(logits, labels, weights, 0.2)
    expected = F.cross_entropy(logits, labels, weights, **how, label_smoothing=0.2)
    assert torch.allclose(smooth / total, expected) and not torch.allclose(smooth, loss)
    task = tasks.Segmentation(Net(pixels=True), class_weights=[0.1, 0.2, 0.3], label_smoothing=0.2)
    task.adapt_model()
    batch = {"pixel_values": torch.randn(2, 3, 4, 4), "labels": torch.full((2, 4, 4), 255)}
    assert task.loss(batch)["loss"] == 0


def test_classes_that_never_occur_are_not_among_those_balanced():
    assert balanced([3, 0, 1]) == [4 / (2 * 3), 1.0, 4 / (2 * 1)]


def test_pixels_are_counted_as_they_are_checked(tmp_path, monkeypatch):
    reads = []
    read = reading.read_pair_mask
    monkeypatch.setattr(reading, "read_pair_mask", lambda pair: reads.append(pair) or read(pair))
    monkeypatch.setattr(reading, "CHECKED", 2)
    for classes, checked in ((None, 5), (["a", "b", "c"], 2)):
        data = masks(tmp_path, 5, classes=classes)
        data.pairs("train")
        assert len(reads) == checked
        assert data.class_counts() == data.class_counts() == [120, 60, 20]
        assert len(reads) == len({pair.mask for pair in reads}) == 5
        reads.clear()
    assert sum(SegmentationData(None, image_size=16, examples=3).class_counts()) == 3 * 16 * 16


def test_a_resumed_run_goes_on_with_the_same_weights(tmp_path):
    half = tasks.ImageClassification(Net(), class_weights="balanced", warmup_steps=0)
    run = trainer(tmp_path, 2)
    run.fit(half, pictures(tmp_path / "data"))
    run.save_checkpoint(tmp_path / "half.ckpt")
    more = pictures(tmp_path / "data", {**COUNTS, "emu": 4})
    rest = tasks.ImageClassification(Net(), class_weights="balanced", warmup_steps=0)
    trainer(tmp_path, 3).fit(rest, more, ckpt_path=tmp_path / "half.ckpt")
    assert rest.loss_weights(torch.zeros(1, 3)).tolist() == pytest.approx(EXPECTED)
    # Numbers that are given are those of the call.
    other = tasks.ImageClassification(Net(), class_weights=[1.0, 1.0, 3.0], warmup_steps=0)
    trainer(tmp_path, 3).fit(other, more, ckpt_path=tmp_path / "half.ckpt")
    assert other.loss_weights(torch.zeros(1, 3)).tolist() == [1.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, 2.0], "has 2 numbers, but there are 3 classes: cat, dog, emu"),
        ({"cta": 2.0}, "names 'cta', which is none of the 3 classes .* Did you mean 'cat'"),
    ],
)
@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_weights_that_do_not_fit_are_refused_before_training(tmp_path, kind, weights, words):
    task_class, net, write = KINDS[kind]
    task = task_class(net, class_weights=weights)
    with pytest.raises(UserError, match=words) as caught:
        trainer(tmp_path).fit(task, write(tmp_path))
    assert task.global_step == 0 and "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, float("nan")], {"a": -1.0}, [], {}, "heavy"])
def test_what_is_no_weight_is_refused_at_once(weights):
    with pytest.raises(UserError, match="model.class_weights"):
        tasks.Segmentation(class_weights=weights)


def test_data_of_the_users_own(tmp_path):
    labels = torch.arange(8) % 3
    loader = DataLoader(TensorDataset(torch.randn(8, 3, 8, 8), labels), 4)
    with pytest.raises(UserError, match="balanced needs data that count their classes"):
        trainer(tmp_path).fit(tasks.ImageClassification(Net(), class_weights="balanced"), loader)
    task = tasks.ImageClassification(Net(), class_weights={"2": 5.0})
    trainer(tmp_path).fit(task, loader)
    assert task.loss_weights(torch.zeros(1, 3)).tolist() == [1, 1, 5]
    silent = Net()
    silent.num_classes = None
    with pytest.raises(UserError, match="neither the data nor the model has any"):
        trainer(tmp_path).fit(tasks.ImageClassification(silent, class_weights={"2": 5.0}), loader)
    with pytest.raises(UserError, match="are 2 numbers, but the model gives 3 logits"):
        trainer(tmp_path).fit(tasks.ImageClassification(silent, class_weights=[1.0, 2.0]), loader)


SMALL = [
    "fit",
    "--config=image_classification/shapes",
    *(f"--model.model.init_args.config.{n}=8" for n in ("dim", "ffn_dim")),
    *(f"--model.model.init_args.config.{n}=1" for n in ("depth", "heads")),
    *(f"--trainer.{n}=false" for n in ("enable_progress_bar", "enable_model_summary")),
    *("--trainer.accelerator=cpu", "--trainer.max_steps=2", "--trainer.val_check_interval=2"),
    *("--data.examples=64", "--data.batch_size=8", "--data.image_size=16", "--run_folder=run"),
]


@pytest.mark.parametrize("given", ["balanced", "[1,2,3,4,5,6,7,8]", "{star: 2}", "null"])
@pytest.mark.slow
def test_by_the_command_line(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    main([*SMALL, f"--model.class_weights={given}"])
    record = torch.load("run/checkpoints/last.ckpt", weights_only=True)["family"]
    assert ("balanced_weights" in record) == (given == "balanced")


@pytest.mark.parametrize("name", ["strar", "0"])
def test_a_wrong_class_by_the_command_line(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([*SMALL, f"--model.class_weights={{{name}: 2}}"])
    said = capsys.readouterr().err
    assert f"names '{name}', which is none of the 8 classes" in said and "Traceback" not in said
    with pytest.raises(SystemExit):
        main([*SMALL, "--model.class_weights=heavy"])
    assert "class_weights" in capsys.readouterr().err
