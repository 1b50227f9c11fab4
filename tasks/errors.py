"""Errors that a user can mend, each one clear sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any


class UserError(Exception):
    """Bad input: names the field or file, the value, and what would be right."""


class NotFiniteError(UserError):
    """A number of training is infinite or none: what was learnt last is not to be kept."""


@contextmanager
def user_errors() -> Iterator[None]:
    """What the library refuses by a ``ValueError`` is the user's to mend; decorates functions too."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error


def at_least(least: float, *, of: str = "data.", **values: float) -> None:
    """Refuse values of options that are smaller, or not a number.

    Args:
        of: what stands before an option's name: "data.", or "--" for a command's.
    """
    for name, value in values.items():
        if not value >= least:
            raise UserError(f"{of}{name} must be at least {least}, not {value}.")


def between(low: float, high: float, *, of: str = "data.", **values: float) -> None:
    """Refuse values of options beyond these bounds; see :func:`at_least`."""
    for name, value in values.items():
        if not low <= value <= high:
            raise UserError(f"{of}{name} must be between {low} and {high}, not {value}.")


def in_short(value: Any, most: int = 80) -> str:
    """A value for a message, its beginning where it is long."""
    try:
        text = repr(value)
    except (
        RecursionError,
        ValueError,
    ):  # lists in lists without end; a number of thousands of digits
        text = f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= most else f"{text[:most]} ..."


def some_of(names: Iterable[str], most: int = 20) -> str:
    """Names for a message, the first of them where they are many, and their beginnings where they are long."""
    first = list(islice(names, most + 1))
    cut = [name if len(name) <= 80 else f"{name[:80]} ..." for name in first[:most]]
    return ", ".join(cut + ["..."] * (len(first) > most))


def closest(name: str, options: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or nothing where no option is near."""
    near = difflib.get_close_matches(name, list(options), n=1)
    return f" Did you mean {in_short(near[0])}?" if near else ""
