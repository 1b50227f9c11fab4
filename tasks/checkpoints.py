"""A checkpoint is enough for inference: it carries the model's config and its tokenizers."""

from __future__ import annotations

import importlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from family import TransformerConfig
from tasks.data.tokenizers import Tokenizer
from tasks.errors import UserError


@dataclass
class Loaded:
    """A model in eval mode, and the tokenizers it was trained with, by name."""

    model: nn.Module
    tokenizers: dict[str, Tokenizer]
    task: str


def load_checkpoint(path: str, task: str) -> Loaded:
    """Rebuild the model of a checkpoint; nothing in the file is executed.

    Args:
        path: a ``.ckpt`` file, or the folder of a run, whose last checkpoint is taken.
        task: the class name of the task that the caller needs.

    Raises:
        UserError: no checkpoint of ours, or one of another task.
    """
    file = Path(path)
    if file.is_dir():
        found = sorted(file.rglob("*.ckpt"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise UserError(f"{path} holds no checkpoint (*.ckpt).")
        file = found[-1]
    if not file.is_file():
        raise UserError(f"{path} does not exist.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        record = content["family"]
    except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError, TypeError):
        raise UserError(f"{file} is not a checkpoint of this project.") from None
    trained = record["task"].rsplit(".", 1)[-1]
    if trained != task:
        raise UserError(f"{file} was trained for {trained}, but this command needs {task}.")
    model = build(record["model"], record["arguments"])
    state = {
        name.removeprefix("model."): value
        for name, value in content["state_dict"].items()
        if name.startswith("model.")
    }
    model.load_state_dict(state)
    tokenizers = {name: Tokenizer.from_json(t) for name, t in record["tokenizers"].items()}
    return Loaded(model.eval(), tokenizers, trained)


def build(spec: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    """The model of a class path and its arguments, with those that the data gave."""
    module, name = spec["class_path"].rsplit(".", 1)
    options = dict(spec.get("init_args") or {})
    if isinstance(options.get("config"), dict):
        options["config"] = TransformerConfig(**options["config"])
    built = getattr(importlib.import_module(module), name)(**{**options, **arguments})
    assert isinstance(built, nn.Module)
    return built
