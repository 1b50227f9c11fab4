"""Published models, as tasks and commands take them: :func:`family.from_pretrained` and what goes with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from family import pretrained
from family.adapt.lora import adapted, merge_lora
from family.models.member import facts_of
from family.pretrained.saved_adapter import unadapted
from tasks.errors import UserError

NAME = re.compile(r"(\w+:)?[\w.-]+(/[\w.-]+)?(@[\w.-]+)?")
"""How a model of the hub or of a library may be called."""


def is_published(path: str) -> bool:
    """Whether a checkpoint is given by a published source, not a ``.ckpt`` or a run's folder of ours."""
    place = Path(path)
    return not any(place.rglob("*.ckpt")) if place.is_dir() else place.suffix != ".ckpt"


def open_published(source: str, **arguments: Any) -> Any:
    """The model of a published source in float32 and eval mode, LoRA adapters merged for good.

    Args:
        arguments: ``num_classes`` and ``image_size``, where they are to differ.

    Raises:
        UserError: no such source, or one that cannot be read.
    """
    if not Path(source).exists() and not NAME.fullmatch(source):
        raise UserError(
            f"{source} is no file or folder here, nor the name of a model (OWNER/NAME on the hub, "
            "timm:NAME)."
        )
    try:
        model = pretrained.from_pretrained(source, dtype=torch.float32, **arguments)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if any(adapted(model)):
        merge_lora(model, remove=True)
        for name, parameter in unadapted(model).named_parameters():
            model.get_parameter(name).requires_grad = parameter.requires_grad
    return model


def check_suits(model: nn.Module, source: str, tasks: Sequence[str] = ()) -> str:
    """The task that the model of a source is for.

    Args:
        tasks: those that will do; none are all.

    Raises:
        UserError: it is for none of them.
    """
    facts, name = facts_of(model), type(model).__name__
    task = "" if facts is None else facts.task
    if tasks and task not in tasks:
        made = f", made for {task}" if task else ""
        raise UserError(f"{source} is a {name}{made}, but this needs {' or '.join(tasks)}.")
    return task


def check_complete(model: Any, source: str) -> None:
    """Refuse a model that needs training, or files that are not there, before it is of use.

    Raises:
        UserError: no classes, or no preprocessing of pictures.
    """
    facts = facts_of(model)
    assert facts is not None
    if not facts.complete(model):
        raise UserError(
            f"{source} has no classes of its own yet: train it first (family fit with "
            f"--model.pretrained={source})."
        )
    if "pictures" in facts.reads and model.preprocess is None:
        raise UserError(f"{source} does not say how its pictures are prepared.")


def published_assets(model: Any, source: str) -> dict[str, Any]:
    """What inference needs beside a published model, as a checkpoint of ours carries it.

    Raises:
        UserError: a model that reads text without a tokenizer, or with one that has more tokens.
    """
    facts, assets = facts_of(model), dict[str, Any]()
    assert facts is not None
    if "text" in facts.reads:
        tokenizer = model.tokenizer
        if tokenizer is None:
            raise UserError(f"{source} has no tokenizer, and its model reads text.")
        if tokenizer.vocab_size > model.vocab_size:
            raise UserError(
                f"{source} has a tokenizer of {tokenizer.vocab_size} tokens, but a model of "
                f"{model.vocab_size}."
            )
        assets["tokenizers"] = dict.fromkeys(("text", "source", "target"), tokenizer.to_json())
        if facts.task == "Translation" and None in (tokenizer.eos_id, tokenizer.pad_id):
            raise UserError(f"{source} has a tokenizer that does not name eos_token and pad_token.")
    if facts.task in ("TextClassification", "ImageText"):
        longest = getattr(model, "text", model).config.max_tokens
        assets["max_tokens"] = min(longest, model.tokenizer.max_tokens or longest)
    if facts.task == "Translation":
        assets["start_id"] = model.bos_id
    if model.preprocess is not None:
        assets["preprocess"] = asdict(model.preprocess)
    classes = getattr(model, "num_classes", 0)
    if classes:
        assets["labels"] = list(model.labels or map(str, range(classes)))
        assets["category_ids"] = list(range(classes))
    return assets
