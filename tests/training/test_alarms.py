"""What a run says, once, of numbers that show that something is wrong; and that it is silent else."""

from __future__ import annotations

import math
import warnings

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

import family
from tasks.detection import Detection
from tasks.errors import NotFiniteError
from tasks.image_classification import ImageClassification
from tasks.image_regression import ImageRegression
from tasks.language_modeling import LanguageModeling
from tasks.segmentation import Segmentation
from tasks.tagging import Tagging
from tasks.training import alarms

CLASSES = 4


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Runs here are short."""
    monkeypatch.setattr(alarms, "SETTLED", 10)
    monkeypatch.setattr(alarms, "JUDGED", 10)


class Linear(nn.Module):
    """A classifier, by the contract of the task; it begins at chance."""

    num_classes, labels = CLASSES, ["a", "b", "c", "d"]

    def __init__(self, out: int = CLASSES):
        super().__init__()
        self.layer = nn.Linear(12, out)
        nn.init.zeros_(self.layer.weight)

    def forward(self, pixel_values):
        return self.layer(pixel_values.flatten(1))


def pictures(labels):
    """``(3, 2, 2)`` each, which say the class and nothing more."""
    true = torch.arange(len(labels)) % CLASSES
    pixels = torch.zeros(len(labels), 3, 2, 2)
    pixels[:, 0] = torch.nn.functional.one_hot(true, CLASSES).float().view(-1, 2, 2) * 3
    return DataLoader(list(zip(pixels, labels, strict=True)), batch_size=16)


RIGHT = torch.arange(64) % CLASSES
SHUFFLED = torch.arange(64) // CLASSES % CLASSES  # of each class as many of each label


def trained(task, loader, steps=30, **options):
    """Train, validating every ten steps; what was warned of."""
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=10,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(task, loader, loader)
    said = [str(one.message) for one in caught]
    return [text for text in said if text.startswith("at step")]


def classifier(model=None, **options):
    torch.manual_seed(0)
    options = {"lr": 3e-2, "warmup_steps": 0, "schedule": "constant", **options}
    return ImageClassification(model or Linear(), **options)


# --- Not finite -------------------------------------------------------------------------------


class Breaks(Linear):
    """From its third forward pass on the loss, or the gradient alone, is not finite."""

    def __init__(self, how):
        super().__init__()
        self.how, self.passes = how, 0

    def forward(self, pixel_values):
        logits = super().forward(pixel_values)
        self.passes += self.training
        if self.passes < 3 or not self.training:
            self.before = self.layer.weight.detach().clone()
            return logits
        if self.how == "loss":
            return logits * math.nan
        # Its value is 0, and its slope infinite.
        return logits + self.layer.weight.sum().sub(self.layer.weight.sum().detach()).sqrt()


@pytest.mark.parametrize(
    ("how", "said"), [("loss", "loss is nan"), ("gradient", "norm of the gradient is (nan|inf)")]
)
def test_what_is_not_finite_stops_any_run_before_the_weights_learn_of_it(how, said):
    task = classifier(Breaks(how))
    with pytest.raises(NotFiniteError, match=f"^{said} at step 3: the run ends"):
        trained(task, pictures(RIGHT), num_sanity_val_steps=0)
    assert task.model.layer.weight.isfinite().all() and task.model.passes == 3
    assert task.global_step == 2


def test_parts_of_a_step_count_as_one():
    task = classifier(Breaks("loss"))
    with pytest.raises(NotFiniteError, match="^loss is nan at step 2: the run ends"):
        trained(task, pictures(RIGHT), num_sanity_val_steps=0, accumulate_grad_batches=2)


# --- At chance --------------------------------------------------------------------------------


def test_a_loss_at_chance_is_said_once():
    said = [s for s in trained(classifier(), pictures(SHUFFLED), 30) if "guessing" in s]
    assert len(said) == 1 and said[0].startswith("at step 19 the loss is still 1.")
    assert "guessing gives 1.386" in said[0] and "model.lr=0.03" in said[0]


def test_what_learns_says_nothing():
    assert trained(classifier(), pictures(RIGHT)) == []


def test_a_task_without_chance_says_nothing():
    numbers = DataLoader(
        [(pixels, torch.rand(())) for pixels, _ in pictures(RIGHT).dataset], batch_size=16
    )
    torch.manual_seed(0)
    task = ImageRegression(Linear(1), lr=1e-9, warmup_steps=0, schedule="constant")
    assert trained(task, numbers) == []


def test_before_the_end_of_the_warm_up_nothing_is_judged():
    assert trained(classifier(warmup_steps=40), pictures(SHUFFLED)) == []


def test_a_language_model_knows_its_chance():
    model = family.gpt_nano(20, dim=16, depth=1, heads=2, max_tokens=8)
    task = LanguageModeling(model, lr=1e-9, warmup_steps=0, schedule="constant")
    ids = torch.randint(0, 20, (32, 9), generator=torch.Generator().manual_seed(1))
    loader = DataLoader([(row[:-1], row[1:]) for row in ids], batch_size=4)
    (said,) = trained(task, loader, 24)
    assert f"guessing gives {math.log(20):.3f}" in said


# --- One class, one box -----------------------------------------------------------------------


class Always(nn.Module):
    """The same class, of whatever: a classifier, a tagger and a segmenter."""

    num_classes, labels = CLASSES, ["a", "b", "c", "d"]

    def __init__(self, shape):
        super().__init__()
        self.bias, self.shape = nn.Parameter(torch.tensor([0.0, 5.0, 0.0, 0.0])), shape

    def forward(self, inputs, mask=None):
        if self.shape == "picture":
            return self.bias.expand(len(inputs), CLASSES)
        if self.shape == "tokens":
            return self.bias.expand(*inputs.shape, CLASSES)
        return self.bias[:, None, None].expand(len(inputs), CLASSES, *inputs.shape[-2:])


def of_shape(shape):
    pixels, ids = torch.zeros(16, 3, 2, 2), torch.zeros(16, 4, dtype=torch.long)
    if shape == "picture":
        return ImageClassification, [pixels, RIGHT[:16]]
    if shape == "tokens":
        return Tagging, [ids, RIGHT.view(16, 4)]
    return Segmentation, [pixels, RIGHT.view(16, 2, 2)]


@pytest.mark.parametrize("shape", ["picture", "tokens", "pixels"])
def test_one_class_for_everything_is_said_once(shape):
    kind, columns = of_shape(shape)
    task = kind(Always(shape), lr=1e-9, warmup_steps=0, schedule="constant")
    loader = DataLoader(list(zip(*columns, strict=True)), batch_size=8)
    said = [s for s in trained(task, loader, 30) if "class" in s]
    assert len(said) == 1 and "at step 20 the class 'b' is made of all" in said[0]
    assert "which have 4 classes" in said[0] and "class_weights=balanced" in said[0]


class Boxes(nn.Module):
    """A detector whose boxes stay where they are, or follow what the picture says."""

    def __init__(self, follows):
        super().__init__()
        self.bias, self.follows = nn.Parameter(torch.zeros(2)), follows

    def forward(self, pixel_values, pixel_mask=None):
        rows = len(pixel_values)
        boxes = torch.full((rows, 1, 4), 0.4) + 0 * self.bias.sum()
        if self.follows:
            boxes = boxes + pixel_values[:, :1, 0, :1] * 0.1
        return {"logits": self.bias.expand(rows, 1, 2), "boxes": boxes}


@pytest.mark.parametrize("follows", [False, True])
def test_the_same_box_in_all_pictures_is_said_once(follows):
    found = []
    for i in range(16):
        box = torch.full((1, 4), 0.2 + 0.02 * i)
        target = {"labels": torch.zeros(1, dtype=torch.long), "boxes": box, "image_id": i}
        found.append((torch.full((3, 4, 4), i / 16), {**target, "size": (4, 4)}))

    def rows(batch):
        return {
            "pixel_values": torch.stack([pixels for pixels, _ in batch]),
            "targets": [target for _, target in batch],
        }

    task = Detection(Boxes(follows), lr=1e-9, warmup_steps=0, schedule="constant")
    said = trained(task, DataLoader(found, batch_size=8, collate_fn=rows), 30)
    assert [s[:29] for s in said] == ([] if follows else ["at step 20 the surest box is "])
