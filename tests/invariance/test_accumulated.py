"""Batches whose gradients add up teach what one batch of all their rows teaches, though they count more or fewer
rows, tokens, pixels, weights, boxes or segments; also the few that are left at the end of an epoch.

Where rows are learnt from each other (contrastive tasks), that is not so: see ``OTHERWISE``.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from common import SIDE, members

import family
import tasks
from family.inputs.codebook import CodebookConfig
from family.inputs.preprocess import Preprocess
from family.models.member import build
from tasks.training.task import Task

IGNORE, VOID, ROWS = -100, 255, 32
OTHERWISE = {
    "ImageText": "each row is told from the others of its batch",
    "SentenceEmbedding ranking": "each row is told from the others of its batch",
    "PolicyTuning": "its batches are prompts, answered by the model as it is: tests/test_policy_tuning.py",
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


def answers(batch):
    """Of each pair; as the reference is what the model begins with, all margins are 0 at first."""
    return pairs({**batch, "labels": next_ones(batch["input_ids"], batch["mask"])})


def two_sides(batch):
    rows, turned = by_number(batch), {name: value.flip(0) for name, value in batch.items()}
    return {**rows, "pair_ids": turned["input_ids"], "pair_mask": turned["mask"]}


def illustrated(batch):
    batch = texts(batch)
    return {**batch, "labels": batch["labels"].masked_fill(batch["labels"] >= 20, IGNORE)}


def omni(batch):
    """A picture of four codes in each row, that of every other one to be made."""
    batch = texts(batch)
    ids, labels, picture = batch["input_ids"], batch["labels"], 5
    ids[ids == picture], labels[labels == picture] = 0, 0
    ids[::2, 2:6], labels[::2, 1:5] = picture, IGNORE
    ids[1::2, 2:5], labels[1::2, 1:5] = picture, picture
    return {"input_ids": ids, "labels": labels, "pixel_values": torch.rand(len(ids), 3, 16, 16)}


def boxes(batch):
    """None in the first eight pictures, four at most in the others."""
    pixels = torch.randn(ROWS, 3, SIDE, SIDE)
    counts = [0 if i < 8 else i % 5 for i in range(ROWS)]
    found = [
        {"labels": torch.randint(5, (n,)), "boxes": torch.rand(n, 4) * 0.4 + 0.1} for n in counts
    ]
    return {"pixel_values": pixels, "targets": found}


def drawn(batch):
    ids = {name: batch[name] for name in ("input_ids", "mask")}
    ids["mask"][:, :2] = True  # a begin and an end at least, as data have them
    return {**ids, "pixel_values": torch.rand(len(ids["mask"]), 3, 16, 16) * 2 - 1}


class Lesson(NamedTuple):
    """What a batch teaches, options of the task, arguments of its model, and which member that is where it is
    not the first that the task trains."""

    teach: Callable[[Any], Any]
    options: Mapping[str, Any] = MappingProxyType({})
    more: Mapping[str, Any] = MappingProxyType({})
    member: str | None = None


WEIGHTS = {"class_weights": [1.0, 2.0, 7.0]}
GUESSES = {"masked_head": True, "num_classes": 0, "pooler": None}
FINDS = {"masked_head": False, "replaced_head": True, "num_classes": 0, "pooler": None}
TAUGHT = {
    "LanguageModeling": Lesson(texts),
    "ChatTuning": Lesson(texts, member="GPT"),
    "VisionChat": Lesson(illustrated),
    "Unified": Lesson(omni),
    "MaskedLanguageModeling": Lesson(gaps),
    "MaskedLanguageModeling beside a generator": Lesson(
        gaps,
        {"generator": lambda: build(family.BERT, {**family.BERT.facts.example, **GUESSES})},
        FINDS,
        "BERT",
    ),
    "Translation": Lesson(targets),
    "SpanCorruption": Lesson(targets, member="T5"),
    "TextToText": Lesson(targets, member="T5"),
    "Captioning": Lesson(targets),
    "TextClassification": Lesson(by_class, WEIGHTS),
    "TextRegression": Lesson(by_number),
    "Tagging": Lesson(tags, WEIGHTS, {"pooler": None}),
    "QuestionAnswering": Lesson(spans, {}, {"num_classes": 2, "pooler": None}),
    "ImageClassification": Lesson(by_class, WEIGHTS, {"num_classes": 3}),
    "ImageRegression": Lesson(by_number),
    "VideoClassification": Lesson(by_class, WEIGHTS, {"num_classes": 3}),
    "Detection": Lesson(boxes),
    "Detection focal": Lesson(boxes, {}, {"anchors": True, "classification": "focal"}),
    "Segmentation": Lesson(pixels),
    "Segmentation by queries": Lesson(pixels, member="EoMT"),
    "Series": Lesson(by_class, WEIGHTS, {"num_classes": 3}),
    "VisualQuestions": Lesson(by_class, WEIGHTS, {"num_classes": 3}),
    "RewardModeling": Lesson(pairs),
    "PreferenceTuning": Lesson(answers, member="GPT"),
    "SentenceEmbedding cosine": Lesson(two_sides, {"loss": "cosine"}),
    # Moving means of codes take a step at each batch.
    "ImageTokenizing": Lesson(dict, {}, {"codebook": CodebookConfig("fsq", levels=(5, 4))}),
    # Captions that chance leaves out are not known before their batch is read.
    "TextToImage": Lesson(drawn, {}, {"caption_dropout": 0.0}),
    "TextToImage by codes": Lesson(drawn, {}, {"caption_dropout": 0.0}, "DALLE"),
}


def test_every_task_is_here_or_said_why_not():
    named = {name for name in dir(tasks) if isinstance(getattr(tasks, name), type)}
    trained = {name for name in named if issubclass(getattr(tasks, name), Task)} - {"Task"}
    assert trained == {name.split()[0] for name in (*TAUGHT, *OTHERWISE)}


def model_for(task, lesson):
    """The member of a lesson, or the first one that the task trains, by its facts."""
    for cls in members():
        facts = cls.facts
        given = {**facts.example, **facts.heads.get(task, {}), **lesson.more}
        draws = "image_tokenizer" in given or facts.task != "TextToImage"  # else times and noise
        own = facts.task == "Segmentation" and hasattr(cls, "losses")  # of several denominators
        known = (facts.task == task or task in facts.heads) and not own
        named = cls.__name__ == lesson.member if lesson.member else known and draws
        if named and stands_alone(cls):
            return build(cls, given)
    raise AssertionError(f"no member is for {task}")


def stands_alone(cls):
    """Batch norms of the networks that members are compared with make rows depend on each other."""
    return cls.__module__.startswith("family.models.")


class Keep(pl.Callback):
    """What was learnt, out of the process where it was."""

    def on_train_end(self, trainer, module):
        state = {n: v for n, v in module.state_dict().items() if "reference" not in n}
        if trainer.is_global_zero:
            torch.save(state, Path(trainer.default_root_dir, "learnt.pt"))


class Parts:
    """Batches that processes take in turns, as a loader that has no sampler."""

    def __init__(self, batches, processes):
        self.batches, self.processes = batches, processes

    def __len__(self):
        return len(self.batches) // self.processes

    def __iter__(self):
        rank = dist.get_rank() if self.processes > 1 else 0
        return iter(self.batches[rank :: self.processes])


def step(task, batches, several, folder, processes=1):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "default_root_dir": folder, "accelerator": "cpu"}
    quiet["callbacks"] = [Keep()]
    if processes > 1:
        quiet |= {"strategy": "ddp_fork_find_unused_parameters_true", "devices": processes}
    run = pl.Trainer(max_steps=1, max_epochs=1, accumulate_grad_batches=several, **quiet)
    run.fit(task, Parts(batches, processes))
    return torch.load(Path(folder, "learnt.pt"))


def cut(batch, *shares):
    """Its rows, in parts of so many eighths each."""
    rows = len(next(iter(batch.values()))) // 8
    ends = [sum(shares[:i]) * rows for i in range(len(shares) + 1)]
    return [{n: v[i:j] for n, v in batch.items()} for i, j in itertools.pairwise(ends)]


def taught(name, folder, *ways):
    """The weights that a lesson leaves: as one batch, and in parts of so many eighths, of which so many would make
    a step, on so many processes."""
    torch.manual_seed(0)
    lesson, task = TAUGHT[name], name.split()[0]
    model = model_for(task, lesson)
    options = {n: v() if callable(v) else v for n, v in lesson.options.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    batch = lesson.teach({} if lesson.teach is boxes else model.facts.inputs.draw(model, ROWS - 2))
    if "pictures" in model.facts.reads:
        model.preprocess = Preprocess((SIDE, SIDE))
    found = []
    for shares, several, processes in (((8,), 1, 1), *ways):
        fresh, own = copy.deepcopy((model, options))
        given = {"optimizer": "sgd", "lr": 0.5, "warmup_steps": 0, "schedule": "constant"}
        one = getattr(tasks, task)(fresh, **given, **own)
        found.append(step(one, cut(batch, *shares), several, folder, processes))
    before = {f"model.{name}": value for name, value in model.state_dict().items()}
    assert any(not torch.equal(before.get(key, value), value) for key, value in found[0].items())
    return found


def same(found):
    first, *others = found
    for key, value in first.items():
        for other in others:
            torch.testing.assert_close(
                other[key], value, rtol=1e-4, atol=2e-5, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("name", TAUGHT)
def test_parts_of_a_batch_are_the_whole(name, tmp_path):
    """As four; and as three at the end of an epoch, where five would make a step."""
    same(taught(name, tmp_path, ((2, 2, 2, 2), 4, 1), ((2, 5, 1), 5, 1)))


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in TAUGHT if name != "Detection"]


@pytest.mark.parametrize("name", ["Detection", *SLOW])
def test_parts_of_two_processes_are_the_whole(name, tmp_path):
    """Two of each, unequal, where three would make a step."""
    same(taught(name, tmp_path, ((1, 3, 2, 2), 3, 2)))
