"""A checkpoint is enough for inference, and goes on with the same task and model alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from family.accelerate import accelerate
from family.inference.loaded import Loaded, load, ready
from family.models.member import complete
from family.pretrained import runs
from family.pretrained.configs import flat
from tasks.errors import UserError, user_errors
from tasks.runs.sources import check_suits, is_published, located, open_published

find_checkpoint = user_errors()(runs.find_checkpoint)
read_checkpoint = user_errors()(runs.read_checkpoint)
find_class = user_errors()(runs.find_class)
build_model = user_errors()(runs.build_model)
accepted = user_errors()(runs.accepted)


def load_checkpoint(path: str, *tasks: str) -> Loaded:
    """The model of a checkpoint or of a published source, ready for use and made faster, in float32.

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
        with user_errors():
            loaded = ready(model, path, task if tasks else None)
    else:
        with user_errors():
            run = runs.open_run(path)
            if tasks and run.task not in tasks:
                raise UserError(
                    f"{run.file} was trained for {run.task}, but this command needs "
                    f"{' or '.join(tasks)}."
                )
            loaded = load(run.file, dtype=torch.float32)
    accelerate(loaded.model)
    return loaded


def check_same_model(file: Path, record: dict[str, Any], task: Any) -> None:
    """Refuse a checkpoint of another task or model than the config describes.

    Args:
        task: the :class:`~tasks.training.task.Task` of the config.
    """
    trained, wanted = record["task"].rsplit(".", 1)[-1], type(task).__name__
    if trained != wanted:
        raise UserError(f"{file} was trained for {trained}, but the config says {wanted}.")
    sources = (source and located(source) for source in (record.get("pretrained"), task.pretrained))
    theirs, ours = ({"pretrained": source} for source in sources)
    theirs["lora"], ours["lora"] = record.get("lora"), task.lora and asdict(task.lora)
    if theirs["pretrained"] is None and task.model_spec:
        theirs |= completed(record["model"])
        ours |= completed(task.model_spec)
    for name in task.beside:
        there, here = record.get(name), getattr(task, f"{name}_spec")
        theirs |= {name: there and completed(there["model"])}
        ours |= {name: completed(here) if here else None}
    theirs, ours = flat(theirs), flat(ours)
    for name in sorted({*theirs, *ours}):
        was, now = theirs.get(name), ours.get(name)
        if was != now:
            raise UserError(
                f"{file} holds a model with {name}={was!r}, but the config says {now!r}."
            )


def completed(spec: dict[str, Any]) -> dict[str, Any]:
    """A model's class path with all its arguments: what an older checkpoint does not name is default."""
    arguments = complete(find_class(spec["class_path"]), spec.get("init_args") or {})
    return {"class_path": spec["class_path"], "init_args": arguments}
