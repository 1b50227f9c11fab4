"""Four batches of 8 teach what one of 32 teaches, though they count more or fewer tokens, pixels or weights.

Where rows are learnt from each other (contrastive tasks), or a loss has several denominators (boxes beside "no
object", a generator beside its discriminator), that is not so: see ``OTHERWISE``.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
from common import SIDE, members

import tasks
from family.inputs.codebook import CodebookConfig
from family.inputs.preprocess import Preprocess
from family.models.member import build
from tasks.training.task import Task

IGNORE, VOID, ROWS = -100, 255, 32
OTHERWISE = {
    "ImageText": "each row is told from the others of its batch",
    "SentenceEmbedding": "each row is told from the others of its batch",
    "Detection": "classes and boxes have denominators of their own, as published",
    "PolicyTuning": "its batches are prompts; tests/test_policy_tuning.py",
    "PreferenceTuning": "a mean over pairs, as RewardModeling's",
    "ChatTuning": "LanguageModeling's loss",
    "VisionChat": "LanguageModeling's loss",
    "SpanCorruption": "Translation's loss",
    "TextToText": "Translation's loss",
    "Unified": "LanguageModeling's loss, over codes that pictures become",
}


def next_ones(ids, mask):
    """After each token the next, where there is one."""
    labels = ids.roll(-1, 1)
    return labels.masked_fill(~mask | ~mask.roll(-1, 1), IGNORE)


def by_class(batch, **more):
    rows = len(next(iter(batch.values())))
    return {**batch, "labels": torch.arange(rows) % 3, **more}


def by_number(batch):
    return {**batch, "labels": torch.linspace(-1, 1, len(next(iter(batch.values()))))}


def texts(batch):
    return {**batch, "labels": next_ones(batch["input_ids"], batch["mask"])}


def targets(batch):
    """Unequal lengths, longest first."""
    ids = batch["target"]
    lengths = torch.linspace(ids.shape[1], 1, len(ids)).long()
    renamed = {"pixel_values" if n == "source" and v.dim() == 4 else n: v for n, v in batch.items()}
    return {**renamed, "labels": next_ones(ids, torch.arange(ids.shape[1]) < lengths[:, None])}


def gaps(batch):
    hidden = batch["mask"] & (torch.rand(batch["mask"].shape) < 0.3)
    return {**batch, "labels": batch["input_ids"].masked_fill(~hidden, IGNORE)}


def tags(batch):
    labels = (batch["input_ids"] % 3).masked_fill(~batch["mask"], IGNORE)
    labels[:8] = IGNORE  # one batch of four has no word at all
    return {**batch, "labels": labels}


def pixels(batch):
    labels = torch.randint(5, (len(batch["pixel_values"]), *batch["pixel_values"].shape[-2:]))
    for i, one in enumerate(labels):
        one[: i % 16] = VOID
    labels[:8] = VOID
    return {**batch, "labels": labels}


def spans(batch):
    last = batch["mask"].sum(1) - 1
    return {**batch, "starts": last // 2, "ends": last}


def pairs(batch):
    return {name: value.unflatten(0, (-1, 2)) for name, value in batch.items()}


def drawn(batch):
    ids = {name: batch[name] for name in ("input_ids", "mask")}
    ids["mask"][:, :2] = True  # a begin and an end at least, as data have them
    return {**ids, "pixel_values": torch.rand(len(ids["mask"]), 3, 16, 16) * 2 - 1}


WEIGHTS = {"class_weights": [1.0, 2.0, 7.0]}
TAUGHT = {
    "LanguageModeling": (texts, {}, {}),
    "MaskedLanguageModeling": (gaps, {}, {}),
    "Translation": (targets, {}, {}),
    "Captioning": (targets, {}, {}),
    "TextClassification": (by_class, WEIGHTS, {}),
    "TextRegression": (by_number, {}, {}),
    "Tagging": (tags, WEIGHTS, {"pooler": None}),
    "QuestionAnswering": (spans, {}, {"num_classes": 2, "pooler": None}),
    "ImageClassification": (by_class, WEIGHTS, {"num_classes": 3}),
    "ImageRegression": (by_number, {}, {}),
    "VideoClassification": (by_class, WEIGHTS, {"num_classes": 3}),
    "Segmentation": (pixels, {}, {}),
    "Series": (by_class, WEIGHTS, {"num_classes": 3}),
    "VisualQuestions": (by_class, WEIGHTS, {"num_classes": 3}),
    "RewardModeling": (pairs, {}, {}),
    # Moving means of codes take a step at each batch.
    "ImageTokenizing": (dict, {}, {"codebook": CodebookConfig("fsq", levels=(5, 4))}),
    "TextToImage": (drawn, {}, {"caption_dropout": 0.0}),
}
"""What a batch teaches, options of the task, and arguments of its model."""


def test_every_task_is_here_or_said_why_not():
    named = {name for name in dir(tasks) if isinstance(getattr(tasks, name), type)}
    trained = {name for name in named if issubclass(getattr(tasks, name), Task)} - {"Task"}
    assert trained == {*TAUGHT, *OTHERWISE}


def model_for(task, more):
    """The first member that the task trains, by its facts."""
    for cls in members():
        facts = cls.facts
        given = {**facts.example, **facts.heads.get(task, {}), **more}
        draws = "image_tokenizer" in given or facts.task != "TextToImage"  # else times and noise
        own = facts.task == "Segmentation" and hasattr(cls, "losses")  # of several denominators
        known = (facts.task == task or task in facts.heads) and not own
        if known and draws and stands_alone(cls):
            return build(cls, given)
    raise AssertionError(f"no member is for {task}")


def stands_alone(cls):
    """Batch norms of the networks that members are compared with make rows depend on each other."""
    return cls.__module__.startswith("family.models.")


def step(task, batches, folder):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "default_root_dir": folder, "accelerator": "cpu"}
    run = pl.Trainer(max_steps=1, accumulate_grad_batches=len(batches), **quiet)
    run.fit(task, DataLoader(batches, batch_size=None))
    return task.model.state_dict()


@pytest.mark.parametrize("task", TAUGHT)
def test_four_batches_of_8_are_one_of_32(task, tmp_path):
    torch.manual_seed(0)
    teach, options, more = TAUGHT[task]
    model = model_for(task, more)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.preprocess = Preprocess((SIDE, SIDE))
    batch = teach(model.facts.inputs.draw(model, ROWS - 2))
    rows = len(next(iter(batch.values())))
    parts = [{n: v[i : i + rows // 4] for n, v in batch.items()} for i in range(0, rows, rows // 4)]
    assert len(parts) == 4
    found = []
    for batches in ([batch], parts):
        fresh = copy.deepcopy(model)
        given = {"optimizer": "sgd", "lr": 0.5, "warmup_steps": 0, "schedule": "constant"}
        found.append(step(getattr(tasks, task)(fresh, **given, **options), batches, tmp_path))
    before, moved = model.state_dict(), 0
    for key, value in found[0].items():
        torch.testing.assert_close(
            found[1][key], value, rtol=1e-4, atol=2e-5, msg=lambda m, k=key: f"{k}: {m}"
        )
        moved += not torch.equal(before[key], value)
    assert moved
