"""What the splits of a data set may be called, whoever reads it, and how data without them are divided."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tasks.errors import UserError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Usual names of the files and folders of each split; the first that is there counts."""


def names_of(name: str) -> tuple[str, ...]:
    """What a split of this name may be called: any of the usual names for ours, for others theirs alone."""
    return SPLITS.get(name, (name,))


def usual(name: str) -> str:
    """Our name of the split that others call so; of an unknown one its own."""
    return next((ours for ours, names in SPLITS.items() if name in names), name)


def called(name: str, there: Callable[[str], Any]) -> str:
    """The first of its names under which a split is there; where it is under none, ``name`` itself."""
    return next((other for other in names_of(name) if there(other)), name)


# --- Data without splits ---


def shares_of(val_fraction: float, test_fraction: float) -> dict[str, float]:
    """What is held out of "train" for splits that are not there.

    Raises:
        UserError: one is no share.
    """
    for name, share in (("val", val_fraction), ("test", test_fraction)):
        if not 0 <= share < 1:
            raise UserError(f"data.{name}_fraction={share} must be at least 0 and below 1.")
    return {"val": val_fraction, "test": test_fraction}


def divide_pictures(
    names: Sequence[str],
    shares: Mapping[str, float],
    seed: int | None,
    group: re.Pattern[str] | None,
    labels: Sequence[Hashable] = (),
) -> dict[str, list[int]]:
    """The indices of each split's pictures, in order.

    Args:
        names: of the pictures, below the folder of all.
        shares: see :func:`divide`.
        seed: of :func:`divide`; None is :func:`divide_by_name`.
        group: pictures in whose names it finds the same stay together; None is each by itself.
        labels: their classes, where they have one.

    Raises:
        UserError: a split would be empty.
    """
    found = [None if group is None else group.search(name) for name in names]
    groups = [m[0] if m else name for m, name in zip(found, names, strict=True)]
    if seed is None:
        return divide_by_name(groups, shares)
    return divide(labels or [0] * len(names), groups, shares, seed)


def divide(
    labels: Sequence[Hashable], groups: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """The indices of each split, in order; "train" has what ``shares`` leave.

    The order in which groups are taken is a hash of the seed and their names, so that neither the order
    of the rows nor the machine changes a split. As scikit-learn's StratifiedGroupKFold, a group goes where
    it brings the classes nearer to their shares. Where all classes are too small for a share, they count as one.

    Args:
        labels: the class of each row; rows without classes have all the same.
        groups: the name of each row's group: rows of one group are never in two splits.
        shares: of each split that is held out, its part of the rows.

    Raises:
        UserError: a split would be empty.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    left = sorted(members, key=lambda group: hashlib.sha256(encoded(f"{seed}/{group}")).digest())
    found: dict[str, list[int]] = {}
    for split, share in shares.items():
        taken = nearest(left, members, labels, share)
        if not taken and share:
            taken = nearest(left, members, [0] * len(labels), share)
        found[split] = sorted(i for group in taken for i in members[group])
        left = [group for group in left if group not in taken]
    found["train"] = sorted(i for group in left for i in members[group])
    return checked(found, shares, len(labels))


def nearest(
    groups: Sequence[str],
    members: Mapping[str, Sequence[int]],
    labels: Sequence[Hashable],
    share: float,
) -> dict[str, None]:
    """Of groups, in this order, those that each bring the classes nearer to a share of them."""
    wanted = {label: share * n for label, n in Counter(labels).items()}
    taken: dict[str, None] = {}
    for group in groups:
        has = Counter(labels[i] for i in members[group])
        before = sum(abs(wanted[label]) for label in has)
        after = sum(abs(wanted[label] - n) for label, n in has.items())
        if after < before:
            taken[group] = None
            wanted.update({label: wanted[label] - n for label, n in has.items()})
    return taken


def divide_by_name(groups: Sequence[str], shares: Mapping[str, float]) -> dict[str, list[int]]:
    """As :func:`divide`, by a hash of each name alone: a row stays in its split when others are added, but
    shares are what chance makes them.

    Raises:
        UserError: a split would be empty.
    """
    numbers, low = hashes(groups), 0.0
    found: dict[str, list[int]] = {}
    for split, share in shares.items():
        high = low + share * 2**32
        found[split] = np.flatnonzero((low <= numbers) & (numbers < high)).tolist()
        low = high
    found["train"] = np.flatnonzero(numbers >= low).tolist()
    return checked(found, shares, len(groups))


def encoded(name: str) -> bytes:
    """Of a file, too, that is called by no characters of UTF-8."""
    return name.encode(errors="surrogateescape")


def hashes(names: Sequence[str]) -> np.ndarray:
    """A number below 2^32 for each name, the same everywhere."""
    return np.array([zlib.crc32(encoded(name)) for name in names])


def checked(
    found: dict[str, list[int]], shares: Mapping[str, float], count: int
) -> dict[str, list[int]]:
    """The splits, if each that was asked for has examples.

    Raises:
        UserError: one has none.
    """
    for split, rows in found.items():
        if not rows and shares.get(split) != 0:
            asked = ", ".join(f"data.{name}_fraction={share}" for name, share in shares.items())
            raise UserError(f"{asked} of {count} examples leaves none for {split}.")
    return found


def nothing_held_out(split: str) -> UserError:
    """What to say where a split is asked for that has no share."""
    return UserError(f"data.{split}_fraction=0 holds nothing out for {split}: give it a share.")


def pattern(option: str, text: str | None) -> re.Pattern[str] | None:
    """The regular expression that an option gives.

    Raises:
        UserError: it is none.
    """
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UserError(f"data.{option}={text!r} is no regular expression: {error}.") from None


def joined(rows: Iterable[Sequence[str]]) -> list[str]:
    """Of each row of names, one at least, that of its group: rows that share a name, directly or through
    others, are one. A group is called by the first of its names, in whatever order the rows come."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    firsts = []
    for names in rows:
        roots = sorted(map(root, names))
        parents.update(dict.fromkeys(roots[1:], roots[0]))
        firsts.append(names[0])
    return [root(name) for name in firsts]
