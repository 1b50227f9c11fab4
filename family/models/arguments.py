"""What a model is built from, against its annotations, and what is built, against the memory that there is."""

from __future__ import annotations

import inspect
import math
import numbers
import os
import re
import reprlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import Any, Union

from torch import nn
from torch._subclasses import FakeTensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from family.checks import DEEPEST, KINDS, LARGEST, first_line, fits


def check_arguments(
    hints: Mapping[str, Any], given: Mapping[str, Any], usual: Mapping[str, Any]
) -> None:
    """Refuse values that are of another type than their annotation, or no numbers that a size can be.

    Args:
        hints: of each argument; what has none, or one that says nothing of its values, is not checked.
        given: the values.
        usual: the defaults; no number is below 0, unless its default is.

    Raises:
        ValueError: one sentence that names argument and value.
    """
    for name, value in given.items():
        hint, default = hints.get(name, Any), usual.get(name)
        if not takes(value, hint):
            raise ValueError(
                f"{name} must be {' or '.join(words(hint))}, not {reprlib.repr(value)}."
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if hint is not Any and value < 0 and not (isinstance(default, int) and default < 0):
            raise ValueError(f"{name} must be at least 0, not {value}.")
        most = DEEPEST if name.endswith("depth") else LARGEST
        if isinstance(value, int) and value > most:
            raise ValueError(f"{name} must be at most {most}, not {value}.")


def takes(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotation's type; yes, where that says too little."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, UnionType):
        return any(takes(value, part) for part in parts)
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        if origin is tuple and parts and parts[-1] is not ...:
            fitting = zip(value, parts, strict=False) if listed else ()
            return listed and len(value) == len(parts) and all(takes(*one) for one in fitting)
        return listed and (not parts or all(takes(one, parts[0]) for one in value))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if (
        hint in (int, float)
        and isinstance(value, numbers.Real)
        and not isinstance(value, int | float)
    ):
        return hint is float or isinstance(value, numbers.Integral)  # a number of NumPy
    if hint in (int, float, bool, str, NoneType):
        return fits(value, hint)
    return hint is Any or not inspect.isclass(hint) or isinstance(value, hint)


def words(hint: Any) -> list[str]:
    """What an annotation asks for, to be joined by "or"."""
    if typing.get_origin(hint) in (Union, UnionType):
        return [word for part in typing.get_args(hint) for word in words(part)]
    origin = typing.get_origin(hint) or hint
    if inspect.isclass(origin) and issubclass(origin, Sequence) and origin is not str:
        return ["a list"]
    return [KINDS.get(origin, f"a {getattr(origin, '__name__', origin)}")]


@contextmanager
def in_memory(name: str) -> Iterator[None]:
    """Around what builds a model: its parameters are counted as they are made, before they are filled.

    Args:
        name: what to call the model.

    Raises:
        ValueError: they are more than the memory holds, or sizes that no tensor can have.
    """
    room, seen, total = memory(), set[int](), 0

    def count(module: nn.Module, part: str, parameter: Any) -> None:
        nonlocal total
        if parameter is None or parameter.device.type != "cpu" or id(parameter) in seen:
            return
        if isinstance(parameter, FakeTensor):
            return  # a shape without numbers
        seen.add(id(parameter))
        total += parameter.nbytes
        if total > room:
            raise ValueError(too_large(name, total))

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, ArithmeticError, MemoryError, TypeError) as error:
        if isinstance(error, TypeError) and "Overflow" not in str(error):
            raise  # a mistake of another kind
        found = re.search(r"allocate (\d+) bytes", str(error))
        if found is not None:
            raise ValueError(too_large(name, total + int(found[1]))) from error
        raise ValueError(f"no {name} can be of these sizes: {first_line(error)}.") from error
    finally:
        handle.remove()


def too_large(name: str, size: int) -> str:
    return (
        f"a {name} of these sizes has more than {size / 2**30:,.1f} GiB of weights, for which there is no "
        "memory: make it smaller."
    )


def memory() -> float:
    """Bytes of memory of this machine; no limit, where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf
