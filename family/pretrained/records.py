"""What a checkpoint says of itself: whether it is whole, before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from family.checks import first_line

NEEDED = {"task": str, "model": Mapping, "assets": Mapping}
BESIDE = {"arguments": Mapping, "kind": str, "lora": Mapping, "pretrained": str}
"""What there may be too; None is as without."""


def is_whole(record: Any) -> bool:
    """Whether a record has all that makes a model, each of its type."""
    if not isinstance(record, dict):
        return False
    needed = all(isinstance(record.get(name), kind) for name, kind in NEEDED.items())
    return needed and all(
        isinstance(record.get(name), kind | None) for name, kind in BESIDE.items()
    )


def are_weights(state: Any) -> bool:
    """Whether it holds tensors alone, by their names; a module may put a value of its own among them."""
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        return False
    return all(
        isinstance(value, Tensor) or name.endswith("_extra_state") for name, value in state.items()
    )


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    """Around what makes a model of a record: of what is of a wrong type deeper inside, one sentence.

    Raises:
        ValueError: see above.
    """
    try:
        yield
    except (AttributeError, TypeError, LookupError, RuntimeError) as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"{file} has a record that is damaged: {said}.") from error
