"""Checkpoints in parts: what is large lies beside the ``.ckpt`` file, in a folder that it names, where each
process wrote its own part of every tensor.

The file holds all else, and an empty tensor (of size and type alone, on the device "meta") in the place of each
that lies there. The folder is a distributed checkpoint of torch's, of safetensors files: nothing in it is
executed.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from family.checks import first_line

SHARDS = "shards"
"""Of a checkpoint in parts: the folder, as a path from where the file lies."""


def mapped(value: Any, change: Callable[[str, Tensor], Any], path: str = "") -> Any:
    """A value of dicts, lists and tuples with its tensors changed; what has none stays the same object.

    Args:
        change: gets where a tensor stands, such as ``state_dict/model.norm.weight``, and the tensor.
    """
    if isinstance(value, Tensor):
        return change(path, value)
    if not isinstance(value, dict | list | tuple):
        return value
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    before = f"{path}/" if path else ""
    made = [(key, mapped(one, change, f"{before}{key}")) for key, one in pairs]
    if all(new is old for (_, new), (_, old) in zip(made, pairs, strict=True)):
        return value
    if isinstance(value, dict):
        return dict(made)
    return [new for _, new in made] if isinstance(value, list) else tuple(new for _, new in made)


def tensors(value: Any) -> list[tuple[str, Tensor]]:
    """All of a value by where they stand, see :func:`mapped`."""
    found: list[tuple[str, Tensor]] = []

    def keep(path: str, tensor: Tensor) -> Tensor:
        found.append((path, tensor))
        return tensor

    mapped(value, keep)
    return found


def in_parts(content: Any) -> bool:
    """Whether what a file holds is a checkpoint in parts."""
    return isinstance(content, dict) and isinstance(content.get(SHARDS), str)


def folder_of(file: Path, content: dict[str, Any]) -> Path:
    """Where the parts of a checkpoint lie.

    Raises:
        ValueError: not beside it.
    """
    named = Path(content[SHARDS])
    if named.is_absolute() or ".." in named.parts:
        raise ValueError(f"{file} names its weights in {named}, which is not beside it.")
    return Path(os.path.realpath(file)).parent / named  # beside what a link leads to


def check_parts(file: Path, content: dict[str, Any]) -> Any:
    """Torch's reader of the parts, once it is sure that all are there.

    Raises:
        ValueError: the folder is not there, or not all of it.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    folder = folder_of(file, content)
    if not folder.is_dir():
        raise ValueError(
            f"{file} names its weights in {folder}, which is not there: move or copy the two together."
        )
    reader = HuggingFaceStorageReader(str(folder))
    try:
        known: Any = reader.read_metadata().state_dict_metadata
    except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{folder}, which {file} names, is damaged: {first_line(error)}."
        ) from error
    for path, wanted in tensors(content):
        # Torch would leave what no part covers as it was.
        if wanted.is_meta and not (path in known and covers(known[path], wanted)):
            raise ValueError(
                f"{folder}, which {file} names, lacks all or a part of {path}: copy the whole folder."
            )
    return reader


def covers(known: Any, wanted: Tensor) -> bool:
    """Whether parts make the whole of a tensor."""
    there = sum(math.prod(chunk.sizes) for chunk in known.chunks)
    return known.size == wanted.shape and there == wanted.numel()


def empty(path: str, wanted: Tensor) -> Tensor:
    """The whole of a tensor, in this processor's memory."""
    return torch.empty(wanted.shape, dtype=wanted.dtype)


def fill(
    file: Path,
    content: dict[str, Any],
    names: Collection[str] | None = None,
    place: Callable[[str, Tensor], Tensor] = empty,
) -> None:
    """Put in what lies beside a file, each process for itself.

    Args:
        content: what the file holds; changed in place.
        names: the entries of ``content`` to fill; None are all.
        place: gives, for where a tensor stands and its empty one, what it is read into: the whole, or a
            ``DTensor``, of which no more than this process's part is read.

    Raises:
        ValueError: see :func:`check_parts`; or the parts cannot be read.
    """
    import torch.distributed.checkpoint as dcp

    reader = check_parts(file, content)
    wanted = {name: one for name, one in content.items() if names is None or name in names}
    read = {path: place(path, one) for path, one in tensors(wanted) if one.is_meta}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dcp.load(read, storage_reader=reader, no_dist=True)
    except dcp.CheckpointException as error:
        first = next((failed[0] for failed in error.failures.values()), error)
        raise ValueError(
            f"{folder_of(file, content)}, which {file} names, cannot be read: {first_line(first)}."
        ) from error
    content.update(mapped(wanted, lambda path, one: read.get(path, one)))
