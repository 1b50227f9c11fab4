"""Sources that are read by the format that a caller names, whatever their config calls itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from family.pretrained import libraries
from family.pretrained.found import Published, beside, described
from family.pretrained.table import Format
from family.pretrained.weights import SINGLE, Weights, open_folder, read_fields


def read_state(
    state: Mapping[str, Tensor], layout: Format, config: Mapping[str, Any] | None
) -> Published:
    """Weights in memory.

    Raises:
        ValueError: something else than tensors, or a config that is missing.
    """
    weights = libraries.in_memory(state)
    if config is None and layout.files[0]:
        raise ValueError(
            f"{weights.origin} needs config=, the fields that format={layout.name!r} has in "
            f"{layout.files[0]}."
        )
    return described(layout, config or {}, weights, None if config is None else "config=")


def read_file(file: Path, layout: Format, config: Mapping[str, Any] | None) -> Published:
    """A file of weights, with its config beside it."""
    return read(libraries.read_file(file), file.parent, layout, config)


def read_folder(folder: Path, layout: Format, config: Mapping[str, Any] | None) -> Published:
    """A folder that holds the files of a format, or what the hub has in place of a single one.

    Raises:
        ValueError: it does not hold them.
    """
    name = layout.files[1]
    if (folder / name).is_file():
        weights = libraries.read_file(folder / name)
    elif name == SINGLE:
        weights = open_folder(folder)
    else:
        raise ValueError(f"{folder} has no {name}, where format={layout.name!r} has its weights.")
    return read(weights, folder, layout, config)


def read(
    weights: Weights, folder: Path, layout: Format, config: Mapping[str, Any] | None
) -> Published:
    """Weights with the config beside them, unless it is given or the format has none."""
    name, origin = layout.files[0], None
    if config is not None:
        origin = "config="
    elif name:
        file = folder / name
        if not file.is_file():
            raise ValueError(
                f"{folder} has no {name}, where format={layout.name!r} has its config; config= takes "
                "it from elsewhere."
            )
        config, origin = read_fields(file), str(file)
    config = config or {}
    return beside(described(layout, config, weights, origin), config, folder)
