"""What a checkpoint says of the task that wrote it: enough to make model and task again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from torch import nn

from family.models.member import describe, plain
from tasks.runs.checkpoints import accepted, find_class

PLAIN = (str, int, float, bool, type(None))


def full_name(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def kind_of(task: type) -> str:
    """The task of ours that a class is, or is derived from: its name is what commands ask for."""
    ours = (base for base in task.__mro__ if base.__module__.count(".") == 1)
    return next((base.__name__ for base in ours if base.__module__.startswith("tasks.")), "")


def record_of(task: Any) -> dict[str, Any]:
    """Plain values alone, so that the file loads with ``weights_only``.

    Args:
        task: a :class:`~tasks.training.task.Task` whose model is built.
    """
    spec, arguments = model_record(task)
    return {
        "task": full_name(type(task)),
        "kind": kind_of(type(task)),
        "model": spec,
        "arguments": arguments,
        "options": {n: v for n, v in plain(task.options).items() if n != "model" and is_plain(v)},
        "assets": task.assets(),
        "pretrained": task.pretrained,
        "lora": None if task.lora is None else asdict(task.lora),
    }


def model_record(task: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Class path and arguments of the model, and what the data decided of it.

    A model that was handed in, and that says nothing of how it was built, has no arguments: None.
    """
    if task.model_spec:  # a published model's arguments are all its own
        return task.model_spec, {} if task.pretrained else dict(task.model_arguments)
    model = task.model
    path = full_name(type(model))
    try:
        return {"class_path": path, "init_args": describe(model)["arguments"]}, {}
    except ValueError:
        pass  # no member
    build: Any = task.build
    given: dict[str, Any] = {}
    if isinstance(build, partial) and not build.args:
        build, given = build.func, build.keywords
    if build is type(model) and is_plain(plain(given)):
        decided = accepted(build, task.model_arguments, given)
        return {"class_path": path, "init_args": plain(given)}, decided
    return {"class_path": path, "init_args": None}, {}


def is_plain(value: Any) -> bool:
    """Whether a checkpoint can hold a value."""
    if isinstance(value, dict):
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    return all(map(is_plain, value)) if isinstance(value, list) else isinstance(value, PLAIN)


def build_for(
    build: Callable[..., nn.Module], arguments: dict[str, Any], spec: dict[str, Any] | None = None
) -> nn.Module:
    """The model that a task's ``build`` makes, with what the data decides of it.

    Args:
        spec: the class path and arguments that ``build`` was made from, where a config names them.

    Raises:
        UserError: it takes no number of classes or of tokens.
    """
    maker, known = build, None
    if spec:
        maker, known = find_class(spec["class_path"]), spec.get("init_args")
    elif isinstance(build, partial):
        maker, known = build.func, build.keywords
    elif isinstance(build, Given):
        return build.model
    return build(**accepted(maker, arguments, known))


class Given:
    """Builds nothing: a model that is there already, whatever the data asks for."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, **arguments: Any) -> nn.Module:
        return self.model


def options_of(signature: inspect.Signature, *args: Any, **options: Any) -> dict[str, Any]:
    """The arguments of a call by name, without ``self``; those of ``**`` among the others."""
    given = dict(signature.bind_partial(*args, **options).arguments)
    given.pop(next(iter(signature.parameters)))
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(parameter.name, {})
    return given
