"""From published weights to a model in training: its source, and what of it learns."""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from family.adapt.lora import TARGETS, add_lora, matching
from family.adapt.resize import class_weights
from family.models.member import build, describe
from tasks.errors import UserError
from tasks.runs.checkpoints import build_model
from tasks.runs.sources import check_suits, located, open_published, published_assets
from tasks.training.building import Given, full_name

log = logging.getLogger(__name__)


@dataclass
class LoRA:
    """Train low-rank adapters of linear layers, and a head of classes, alone (Hu et al. 2021).

    Args:
        rank: of the adapters.
        alpha: their strength: they count ``alpha / rank`` times.
        dropout: of their inputs.
        targets: patterns of the names of the linear layers, or of projections within fused ones:
            ``*.qkv.q``, see :func:`family.adapt.lora.add_lora`.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: list(TARGETS))


# --- Where the weights come from -------------------------------------------------------------


def load_source(task: Any, data: Any, source: str | tuple[str, ...], training: bool) -> None:
    """Give a task the model of a published source, and the data its tokenizer and preprocessing.

    To be called before the data are set up, which the command line does. In training the data says
    how many classes there are and how large pictures are; otherwise the source does.

    Args:
        task: a :class:`~tasks.training.task.Task`.
        data: a :class:`~tasks.data.base.FamilyData`.
        source: of one model, or of the parts that the task puts together.

    Raises:
        UserError: a source that cannot be read, is for another task, or does not fit the data.
    """
    ours = known(data) if training else {}
    count = len(ours["labels"]) if "labels" in ours else getattr(data, "num_classes", None)
    wanted: dict[str, Any] = {"num_classes": count} if training and count else {}
    preprocess = getattr(data, "preprocess", None)
    # Members that take pictures of unequal sizes have none of their own.
    if training and preprocess is not None and preprocess.mode != "longest":
        wanted["image_size"] = preprocess.size
    bases = type(task).__mro__
    names = [base.__name__ for base in bases if re.fullmatch(r"tasks\.\w+", base.__module__)]
    if names and "num_classes" in wanted:
        wanted["task"] = names[0]
    sources = (source,) if isinstance(source, str) else source
    model = task.made_of(*(open_published(one, **wanted) for one in sources))
    called = " and ".join(sources)
    if names:  # a task of the user's own knows what it takes
        check_suits(model, called, [*names, *task.trains])
    assets = published_assets(model, called)
    if training:
        adopt(model, data, assets, ours)
    elif preprocess is not None:
        assets.setdefault("preprocess", dataclasses.asdict(preprocess))
    data.use_assets(assets)
    described = describe(model)["arguments"]
    path = full_name(type(model))
    task.pretrained = located(source) if isinstance(source, str) else None
    task.model_spec = {"class_path": path, "init_args": described}
    task.build = Given(model.train(training))


def known(data: Any) -> dict[str, Any]:
    """What the data itself says of its classes; no tokenizer is trained for that."""
    reads = hasattr(data, "tokenizer") or hasattr(data, "source_tokenizer")
    ours = {} if reads else data.assets()
    ours.pop("preprocess", None)
    return ours | ({"labels": list(data.classes)} if hasattr(data, "classes") else {})


def adopt(model: Any, data: Any, assets: dict[str, Any], ours: dict[str, Any]) -> None:
    """Between the assets of a source and the data that it is to be trained on.

    Classes and sizes are the data's; tokens, and what a pixel's value means, the source's.
    """
    if hasattr(data, "max_tokens") and "max_tokens" in assets:
        assets["max_tokens"] = min(data.max_tokens, assets["max_tokens"])
    # What the head says is what it is taught now.
    assets["problem_type"] = model.problem_type = getattr(data, "problem_type", None)
    if getattr(data, "preprocess", None) is not None:
        theirs: Any = model.preprocess
        names = () if theirs is None else ("mean", "std", "interpolation")
        mixed = dataclasses.replace(data.preprocess, **{n: getattr(theirs, n) for n in names})
        model.preprocess, assets["preprocess"] = mixed, dataclasses.asdict(mixed)
    if "labels" not in ours:
        return
    if model.labels is not None and not accepts(data, {**assets, **ours}, model.labels):
        log.warning("the classes of the source are not the data's: its head starts afresh.")
        renew(model, class_weights(model))
        model.labels = None
    model.labels = model.labels or ours["labels"]
    assets |= {**ours, "labels": model.labels}


def accepts(data: Any, assets: dict[str, Any], labels: list[str]) -> bool:
    """Whether data have the classes of a source, in its order if that matters to them."""
    same = sorted(assets["labels"]) == sorted(labels)
    try:
        data.use_assets({**assets, "labels": labels})
    except UserError:
        return False
    return same


@torch.no_grad()
def renew(model: nn.Module, names: list[str]) -> None:
    """Draw parameters anew, as those of a model that is built from the same arguments."""
    fresh = dict(build(type(model), describe(model)["arguments"]).named_parameters())
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.copy_(fresh[name])


def restore(task: Any, record: dict[str, Any], file: str | Path = "the checkpoint") -> None:
    """Let a task that builds no model of its own build that of a checkpoint's record, in ``file``."""
    task.decided = {} if record.get("pretrained") else dict(record["arguments"])
    if task.build is None:
        task.pretrained, task.model_spec = record.get("pretrained"), record["model"]
        task.build = Given(build_model(record["model"], record["arguments"], file))


# --- What of it learns -----------------------------------------------------------------------


def adapt(model: nn.Module, lora: LoRA | None, freeze: list[str]) -> None:
    """Put adapters into a model, or freeze parts of it.

    Raises:
        UserError: a pattern that matches nothing, with the nearest names; nothing left to train.
    """
    try:
        if lora is not None:
            add_lora(model, **dataclasses.asdict(lora))
            heads = class_weights(model)
            for name, parameter in model.named_parameters():
                if name in heads:
                    parameter.requires_grad = True
    except ValueError as error:
        raise UserError(f"model.lora: {error}") from None
    if freeze:
        freeze_matching(model, freeze)


def freeze_matching(model: nn.Module, patterns: list[str]) -> None:
    """No gradients for the parameters that a pattern matches; frozen batch norms keep their statistics.

    Raises:
        UserError: see :func:`adapt`.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    try:
        chosen = matching(patterns, parameters, "a parameter")
    except ValueError as error:
        raise UserError(f"model.freeze: {error}") from None
    for name in chosen:
        parameters[name].requires_grad = False
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(f"model.freeze={patterns} leaves nothing to train.")
    for module in model.modules():
        own = list(module.parameters())
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if norm and own and not any(parameter.requires_grad for parameter in own):
            module.eval()
