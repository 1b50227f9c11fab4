"""Published models, as tasks and commands take them: :func:`family.from_pretrained` and what goes with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from family import pretrained
from family.adapt.lora import adapted, merge_lora
from family.inference import loaded
from family.models.member import tasks_of
from family.pretrained import runs
from family.pretrained.saved_adapter import unadapted
from tasks.errors import UserError, user_errors

NAME = re.compile(r"(\w+:)?[\w.-]+(/[\w.-]+)?(@[\w.-]+)?")
"""How a model of the hub or of a library may be called."""


@user_errors()
def published_assets(model: Any, source: str) -> dict[str, Any]:
    """What inference needs beside a published model, as a checkpoint of ours carries it.

    Raises:
        UserError: a model that reads text without a tokenizer, or with one that has more tokens.
    """
    loaded.check_tokenizer(model, source)
    return loaded.assets_of(model)


def is_published(path: str) -> bool:
    """Whether a checkpoint is given by a published source, not a ``.ckpt`` or a run's folder of ours."""
    return not runs.is_run(path)


def used_alike(path: str, task: Any) -> bool:
    """Whether a run of another task has a model that is used as those of ``task`` are, so that it can be
    judged as a published one: each stage from a language model to an assistant by the same questions."""
    if not getattr(task, "gives", "") or is_published(path):
        return False
    with user_errors():
        run = runs.open_run(path)
    trained = run.record["task"].rpartition(".")[2]
    return trained != type(task).__name__ and run.task == task.gives


def located(source: str) -> str:
    """A source by a path that holds wherever it is read, if it is a file or folder here."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def open_published(source: str, **arguments: Any) -> Any:
    """The model of a published source, or of a run, in float32 and eval mode, LoRA adapters merged for
    good.

    Args:
        arguments: ``num_classes``, the ``task`` that they are for, and ``image_size``, where they are
            to differ.

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
    found = [task for task in tasks_of(model) if task]
    wanted = [task for task in found if not tasks or task in tasks]
    if tasks and not wanted:
        made = f", made for {' or '.join(found)}" if found else ""
        name = type(model).__name__
        raise UserError(f"{source} is a {name}{made}, but this needs {' or '.join(tasks)}.")
    return wanted[0] if wanted else ""
