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
from family.inputs.preprocess import Preprocess
from tasks.data.tokenizers import Tokenizer
from tasks.errors import UserError


@dataclass
class Loaded:
    """A model in eval mode, and what inference needs beside it.

    ``assets`` are the plain values of :meth:`tasks.data.base.FamilyData.assets`.
    """

    model: nn.Module
    assets: dict[str, Any]
    task: str

    def tokenizer(self, name: str) -> Tokenizer:
        """One of the tokenizers that the model was trained with."""
        return Tokenizer.from_json(self.assets["tokenizers"][name])

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return self.assets["labels"]

    @property
    def preprocess(self) -> Preprocess:
        """What makes ``pixel_values`` of a picture."""
        return Preprocess.from_dict(self.assets["preprocess"])


def load_checkpoint(path: str, task: str) -> Loaded:
    """Rebuild the model of a checkpoint; nothing in the file is executed.

    Args:
        path: a ``.ckpt`` file, or the folder of a run, whose best checkpoint is taken.
        task: the class name of the task that the caller needs.

    Raises:
        UserError: no checkpoint of ours, or one of another task.
    """
    file = find_checkpoint(path)
    content = read_checkpoint(file)
    record = content["family"]
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
    return Loaded(model.eval(), record["assets"], trained)


def find_checkpoint(path: str) -> Path:
    """A ``.ckpt`` file, or the best of a run's folder (the newest where none is called best).

    Raises:
        UserError: there is none.
    """
    file = Path(path)
    if file.is_dir():
        found = sorted(file.rglob("*.ckpt"), key=lambda p: (p.stem == "best", p.stat().st_mtime))
        if not found:
            raise UserError(f"{path} holds no checkpoint (*.ckpt).")
        file = found[-1]
    if not file.is_file():
        raise UserError(f"{path} does not exist.")
    return file


def read_checkpoint(file: Path) -> dict[str, Any]:
    """All that a file holds, as plain values and tensors; nothing in it is executed.

    Raises:
        UserError: no checkpoint of ours.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if "family" in content:
            return content
    except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError, TypeError, ValueError):
        pass
    raise UserError(f"{file} is not a checkpoint of this project.")


def check_same_model(file: Path, record: dict[str, Any], task: str, spec: dict[str, Any]) -> None:
    """Refuse a checkpoint of another task or model than the config describes."""
    trained = record["task"].rsplit(".", 1)[-1]
    if trained != task:
        raise UserError(f"{file} was trained for {trained}, but the config says {task}.")
    theirs, ours = flatten(record["model"]), flatten(spec)
    for name in sorted({*theirs, *ours}):
        was, now = theirs.get(name), ours.get(name)
        if was != now:
            raise UserError(
                f"{file} holds a model with {name}={was!r}, but the config says {now!r}."
            )


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def build(spec: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    """The model of a class path and its arguments, with those that the data gave."""
    module, name = spec["class_path"].rsplit(".", 1)
    options = dict(spec.get("init_args") or {})
    if isinstance(options.get("config"), dict):
        options["config"] = TransformerConfig(**options["config"])
    built = getattr(importlib.import_module(module), name)(**{**options, **arguments})
    assert isinstance(built, nn.Module)
    return built
