"""A checkpoint is enough for inference: it carries the model's config and its tokenizers."""

from __future__ import annotations

import importlib
import inspect
import pickle
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from family.accelerate import accelerate
from family.inputs.preprocess import Preprocess
from family.models.member import complete, is_member, ready
from family.adapt.lora import add_lora, merge_lora
from tasks.data.tokenizers import Tokenizer
from tasks.errors import UserError
from tasks.runs.sources import (
    check_complete,
    check_suits,
    is_published,
    open_published,
    published_assets,
)

NEEDED = ("num_classes", "vocab_size", "target_vocab_size")
"""What a model must take from data that decide it."""


@dataclass
class Loaded:
    """A model in eval mode, and what inference needs beside it.

    ``assets`` are the plain values of :meth:`tasks.data.base.FamilyData.assets`.
    """

    model: nn.Module
    assets: dict[str, Any]
    task: str

    def tokenizer(self, name: str) -> Any:
        """One of the tokenizers that the model was trained with; a published model has one for all."""
        own: Any = getattr(self.model, "tokenizer", None)
        found = Tokenizer.from_json(self.assets["tokenizers"][name]) if own is None else own
        return found.target if name == "target" else found

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of their ids."""
        return self.assets["labels"]

    @property
    def preprocess(self) -> Preprocess:
        """What makes ``pixel_values`` of a picture."""
        return Preprocess.from_dict(self.assets["preprocess"])


def load_checkpoint(path: str, *tasks: str) -> Loaded:
    """Rebuild the model of a checkpoint; of what the file names, only a model's class is called.

    Args:
        path: a ``.ckpt`` file, or the folder of a run, whose best checkpoint is taken; or a
            published model, by anything that :func:`family.from_pretrained` takes.
        tasks: the class names of the tasks that the caller can use; none are all.

    Raises:
        UserError: no checkpoint, or one of another task.
    """
    if is_published(path):
        model = open_published(path)
        task = check_suits(model, path, tasks)
        check_complete(model, path)
        return Loaded(accelerate(model), published_assets(model, path), task)
    file = find_checkpoint(path)
    content = read_checkpoint(file)
    record = content["family"]
    trained = record["task"].rsplit(".", 1)[-1]
    if tasks and trained not in tasks:
        raise UserError(
            f"{file} was trained for {trained}, but this command needs {' or '.join(tasks)}."
        )
    model = build_model(record["model"], record["arguments"])
    if record.get("lora") is not None:
        add_lora(model, **record["lora"])
    state = {
        name.removeprefix("model."): value
        for name, value in content["state_dict"].items()
        if name.startswith("model.")
    }
    model.load_state_dict(state)
    merge_lora(model, remove=True)
    return Loaded(accelerate(model.eval()), record["assets"], trained)


def find_checkpoint(path: str, prefer: str = "best") -> Path:
    """A ``.ckpt`` file, or that of a run's folder: ``prefer``, or the newest where none is called so.

    Raises:
        UserError: there is none.
    """
    file = Path(path)
    if file.is_dir():
        found = sorted(file.rglob("*.ckpt"), key=lambda p: (p.stem == prefer, p.stat().st_mtime))
        if not found:
            raise UserError(f"{path} holds no checkpoint (*.ckpt).")
        file = found[-1]
    if not file.is_file():
        raise UserError(f"{path} does not exist.")
    return file


def read_checkpoint(file: Path, theirs: bool = False) -> dict[str, Any]:
    """All that a file holds, as plain values and tensors; nothing in it is executed.

    Args:
        theirs: any checkpoint of Lightning's will do, be it of no task of ours.

    Raises:
        UserError: no checkpoint of ours.
    """
    try:
        # Mapped: weights that nobody asks for are never read.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if "family" in content or (theirs and "state_dict" in content):
            return content
    except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError, TypeError, ValueError):
        pass
    raise UserError(f"{file} is not a checkpoint of this project.")


def check_same_model(file: Path, record: dict[str, Any], task: Any) -> None:
    """Refuse a checkpoint of another task or model than the config describes.

    Args:
        task: the :class:`~tasks.training.task.Task` of the config.
    """
    trained, wanted = record["task"].rsplit(".", 1)[-1], type(task).__name__
    if trained != wanted:
        raise UserError(f"{file} was trained for {trained}, but the config says {wanted}.")
    theirs = {"pretrained": record.get("pretrained"), "lora": record.get("lora")}
    ours = {"pretrained": task.pretrained, "lora": task.lora and asdict(task.lora)}
    if theirs["pretrained"] is None and task.model_spec:
        theirs |= completed(record["model"])
        ours |= completed(task.model_spec)
    theirs, ours = flatten(theirs), flatten(ours)
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


def completed(spec: dict[str, Any]) -> dict[str, Any]:
    """A model's class path with all its arguments: what an older checkpoint does not name is default."""
    arguments = complete(find_class(spec["class_path"]), spec.get("init_args") or {})
    return {"class_path": spec["class_path"], "init_args": arguments}


def find_class(path: str) -> type[nn.Module]:
    """The model's class that a path names.

    Raises:
        UserError: there is none, or it is no model: what a checkpoint names must call nothing else.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the model {path} cannot be found: {error}.") from None
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise UserError(f"the model {path} is no class of torch.nn.Module.")
    return found


def build_model(spec: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    """The model of a class path and its arguments, with those that the data gave."""
    model = find_class(spec["class_path"])
    given = ready(model, spec.get("init_args") or {})
    if is_member(model) and given.get("pretrained"):
        given["pretrained"] = False  # nothing is fetched: the checkpoint's weights follow
    return model(**{**given, **accepted(model, arguments, given)})


def accepted(
    build: Callable[..., nn.Module], arguments: dict[str, Any], known: Collection[str] | None = None
) -> dict[str, Any]:
    """Of what the data decides, what a model takes: a CNN, say, asks for no size of pictures.

    Args:
        build: a class, or a function that makes a model.
        known: the arguments that are known of it, with those that its ``**`` stands for. Where there
            are none of the latter, it stands for any name, unless this is a network of timm or
            torchvision, whose parts would refuse ours.

    Raises:
        UserError: it takes no number of classes or of tokens.
    """
    parameters = inspect.signature(build).parameters
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    behind = {*(known or ())} - {*parameters}
    if rest and not behind and build.__module__.split(".")[0] not in ("timm", "torchvision"):
        return arguments
    names = {*parameters, *behind, *(NEEDED if rest else ())}
    for name in NEEDED:
        if name in arguments and name not in names:
            maker = getattr(build, "__qualname__", type(build).__qualname__)
            raise UserError(f"model: {maker} takes no {name}, which the data decides.")
    return {name: value for name, value in arguments.items() if name in names}
