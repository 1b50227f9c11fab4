"""Checkpoints in parts as they are written, see :mod:`family.pretrained.parts`: each process its own, into a
folder that no other save has used, so that the one before stays whole until the file names the new one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.tensor import DTensor

from family.checks import first_line
from family.files import no_room
from family.pretrained.parts import mapped


def divided(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a light file holds, and by where they stand in it the tensors that are shared out."""
    parts: dict[str, Tensor] = {}
    places: set[int] = set()

    def take(path: str, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        place = tensor.to_local().data_ptr()
        # Weights by two names are written twice: safetensors takes no memory twice.
        parts[path] = tensor.clone() if place and place in places else tensor
        places.add(place)
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    return mapped(content, take), parts


def write_parts(folder: Path, parts: dict[str, Tensor]) -> None:
    """Let all processes write what they hold; none returns before all is on the disk.

    Raises:
        OSError: a disk is full.
        RuntimeError: a process cannot write.
    """
    kinds = sorted({path.partition("/")[0] for path in parts})
    # A file for each kind: who asks for the weights alone opens no other, and what is written next in
    # memory is never all at once.
    files = {path: 1 + kinds.index(path.partition("/")[0]) for path in parts}
    writer = dcp.HuggingFaceStorageWriter(str(folder), files, save_distributed=True)
    try:
        dcp.save(parts, storage_writer=writer)
    except dcp.CheckpointException as error:  # the same in all processes
        shutil.rmtree(folder, ignore_errors=True)
        first = next((failed[0] for failed in error.failures.values()), error)
        if not isinstance(first, Exception):
            raise first from error  # Ctrl-C
        if (said := no_room(first)) is not None:
            raise OSError(said, os.strerror(said), str(folder)) from error
        raise RuntimeError(f"{folder} cannot be written: {first_line(first)}.") from error


def shards_of(file: Path) -> Path:
    """Where the folders of a checkpoint's parts lie: ``last.shards`` of ``last.ckpt``."""
    return file.parent / f"{file.name.removesuffix('.ckpt')}.shards"


def unused(file: Path, step: int) -> Path:
    """A folder for the parts of a new save: ``last.shards/4``, or ``last.shards/4-2`` where that is there."""
    folder, number = shards_of(file) / str(step), 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{step}-{number}")
    return folder


def clear(file: Path, but: str | None = None) -> None:
    """Remove the parts of a checkpoint.

    Args:
        but: the folder that stays, as a path from where the file lies.
    """
    folder = shards_of(file)
    for old in folder.iterdir() if folder.is_dir() else ():
        if (but is None or old != file.parent / but) and is_ours(old):
            shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def is_ours(folder: Path) -> bool:
    """Whether it is one of :func:`unused`, with parts and no other files in it."""
    return re.fullmatch(r"\d+(-\d+)?", folder.name) is not None and all(
        file.name.split(".")[-1] in ("safetensors", "json", "tmp")
        for file in folder.rglob("*")
        if file.is_file()
    )
