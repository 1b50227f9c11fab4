"""What a checkpoint says of the task that wrote it: enough to make model and task again."""

from __future__ import annotations

import copy
import functools
import inspect
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from family.models.member import describe, plain
from family.pretrained.runs import equip, misfit
from tasks.errors import UserError
from tasks.runs.checkpoints import accepted, find_checkpoint, read_checkpoint
from tasks.training.building import Given, full_name
from tasks.training.finetuning import LoRA, restore
from tasks.training.transplant import Transplant

PLAIN = (str, int, float, bool, type(None))


def kind_of(task: type) -> str:
    """The task of ours that a class is, or is derived from, or whose members it gives: its name is what
    commands ask for."""
    if getattr(task, "gives", ""):
        return task.gives  # type: ignore[attr-defined]
    ours = (base for base in task.__mro__ if base.__module__.count(".") == 1)
    return next((base.__name__ for base in ours if base.__module__.startswith("tasks.")), "")


def record_of(task: Any) -> dict[str, Any]:
    """Plain values alone, so that the file loads with ``weights_only``.

    Args:
        task: a :class:`~tasks.training.task.Task` whose model is built.
    """
    decided = {} if task.pretrained or task.parts else dict(task.model_arguments)
    spec, arguments = model_record(task.model, task.build, task.model_spec, decided)
    return {
        "task": full_name(type(task)),
        "kind": kind_of(type(task)),
        "model": spec,
        "arguments": arguments,
        "options": {n: v for n, v in plain(task.options).items() if n != "model" and is_plain(v)},
        "assets": task.assets(),
        "pretrained": task.pretrained,
        "lora": None if task.lora is None else asdict(task.lora),
        **({} if task.given is None else {"given": task.given}),
    }


def model_record(
    model: Any, build: Any, spec: dict[str, Any], decided: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Class path and arguments of a model, and what the data decided of it.

    A model that was handed in, and that says nothing of how it was built, has no arguments: None.

    Args:
        build: what made it.
        spec: class path and arguments as a config names them, where one does.
        decided: by the data; of a published model, whose arguments are all its own, nothing.
    """
    if spec:
        return spec, decided
    path = full_name(type(model))
    try:
        return {"class_path": path, "init_args": describe(model)["arguments"]}, {}
    except ValueError:
        pass  # no member
    given: dict[str, Any] = {}
    if isinstance(build, partial) and not build.args:
        build, given = build.func, build.keywords
    if build is type(model) and is_plain(plain(given)):
        return {"class_path": path, "init_args": plain(given)}, accepted(build, decided, given)
    return {"class_path": path, "init_args": None}, {}


def is_plain(value: Any) -> bool:
    """Whether a checkpoint can hold a value."""
    if isinstance(value, dict):
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    return all(map(is_plain, value)) if isinstance(value, list) else isinstance(value, PLAIN)


def loaded_task(cls: type, path: Path, options: dict[str, Any], strict: bool = True) -> Any:
    """A task of ``cls`` as a checkpoint holds it, see ``Task.load_from_checkpoint``."""
    file = find_checkpoint(str(path))
    content = read_checkpoint(file)
    record = content["family"]
    theirs = record["task"].rsplit(".", 1)[-1]
    if theirs not in [base.__name__ for base in cls.__mro__]:
        raise UserError(f"{file} was trained for {theirs}, not for {cls.__name__}.")
    origin = {name: record[name] for name in ("pretrained", "lora") if record.get(name)}
    given = {**origin, **record.get("options", {}), **options}
    for name, kind in (("lora", LoRA), ("transplant", Transplant)):
        if isinstance(given.get(name), dict):
            given[name] = kind(**given[name])
    task: Any = cls(**given)
    restore(task, record, file)
    task.transplant, task.kept = None, record["assets"]
    task.on_load_checkpoint(content)
    task.adapt_model()
    equip(task.model, record["assets"])
    try:
        task.load_state_dict(content["state_dict"], strict)
    except RuntimeError as error:
        raise UserError(f"{file} does not fit the model: {misfit(error)}") from None
    return task


def copied(task: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a task, such as an average of weights begins with. It shares the builders: those of
    the command line lead to the trainer and to all data."""
    for one in (task.build, *task.options.values()):
        if callable(one) and not isinstance(one, nn.Module | Given):
            memo[id(one)] = one
    kind: Any = type(task)
    other = memo[id(task)] = kind.__new__(kind)
    other.__setstate__(copy.deepcopy(task.__getstate__(), memo))
    return other


def options_of(signature: inspect.Signature, *args: Any, **options: Any) -> dict[str, Any]:
    """The arguments of a call by name, without ``self``; those of ``**`` among the others."""
    given = dict(signature.bind_partial(*args, **options).arguments)
    given.pop(next(iter(signature.parameters)))
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(parameter.name, {})
    return given


def remember_options(cls: Any) -> None:
    """Let a class of task keep what each of its tasks is made with."""
    init = cls.__init__
    signature = inspect.signature(init)

    @functools.wraps(init)
    def remembering(self: Any, *args: Any, **options: Any) -> None:
        if "options" not in vars(self):  # the outermost class has them all
            object.__setattr__(self, "options", options_of(signature, self, *args, **options))
        init(self, *args, **options)

    cls.__init__ = remembering
