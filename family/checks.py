"""Values against the annotations of their fields."""

from __future__ import annotations

import reprlib
import sys
from types import NoneType
from typing import Any

KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a name",
    NoneType: "None",
}

LARGEST = 2**40
"""No size is over it: what is cannot even be told to PyTorch."""
DEEPEST = 1000
"""Layers of the deepest Transformer (DeepNet, Wang et al. 2022): each takes memory, however small it is."""


def check_value(name: str, value: Any, kinds: tuple[Any, ...]) -> None:
    """A value against the annotation of its field; counts are at least 1, other numbers at least 0.

    Raises:
        ValueError: it does not fit.
    """
    if not any(fits(value, kind) for kind in kinds):
        words = " or ".join(KINDS.get(kind, f"a {kind.__name__}") for kind in kinds)
        raise ValueError(f"{name} must be {words}, not {reprlib.repr(value)}.")
    least = 1 if int in kinds else 0
    if isinstance(value, int | float) and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}.")
    most = DEEPEST if name == "depth" else LARGEST
    if isinstance(value, int) and value > most:
        raise ValueError(f"{name} must be at most {most}, not {value}.")


QUOTED = 300
"""Characters of a library's message that ours quotes: some hold the whole of what was wrong."""


def first_line(error: BaseException) -> str:
    """What an error of a library says first; its name, where it says nothing."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return said if len(said) <= QUOTED else f"{said[:QUOTED]}..."


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type: booleans are no numbers, whole numbers will do as floats."""
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # finite
    return isinstance(value, kind)


def is_quantised(weight: Any) -> bool:
    """Whether it is what :func:`family.quantise.quantise` made of a weight."""
    return hasattr(weight, "qdata")
