"""A split as it is stored, before anything of it is cut, changed or left out by chance: what can be said of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SAMPLE = 2000
"""At most so many examples of a split are looked at, spread evenly over it."""
QUANTILES = {"min": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


class Stored(NamedTuple):
    """The examples of a split, each read when it is asked for."""

    examples: int
    content: Callable[[int], Any]
    """What an example shows a model: a text, a picture, a list of these; equal for equal examples."""
    texts: Callable[[int], Sequence[str]] | None = None
    """Of an example the texts that are a row of tokens each."""
    encode: Callable[[list[str]], list[list[int]]] | None = None
    limit: int | None = None
    """The most tokens of such a row."""
    option: str = "data.max_tokens"
    """What gives the limit."""
    lost: bool = True
    """What is over the limit is cut or left out; else it is read in windows."""
    label: Callable[[int], Hashable] | None = None
    """What is to be said of an example."""


class Looked(NamedTuple):
    """What was found in a split; plain values, but for the digests."""

    examples: int
    sampled: int
    digests: dict[bytes, set[Hashable]]
    """Of each content its labels."""
    repeated: int
    """Examples whose content another one had before."""
    contradicted: int
    """Examples whose content has another label elsewhere in the split."""
    lengths: dict[str, int]
    over: int | None
    """Examples that are longer than the limit; None without lengths or a limit."""


def look(stored: Stored, sample: int = SAMPLE) -> Looked:
    """Look at a part of a split, evenly spread, or all of it."""
    chosen = np.unique(
        np.linspace(0, stored.examples - 1, min(sample, stored.examples)).astype(int)
    )
    digests: dict[bytes, set[Hashable]] = {}
    seen: list[bytes] = []
    for i in chosen.tolist():
        seen.append(digest(stored.content(i)))
        labels = digests.setdefault(seen[-1], set())
        if stored.label is not None:
            labels.add(stored.label(i))
    counts = Counter(seen)
    contradicted = sum(counts[one] for one, labels in digests.items() if len(labels) > 1)
    lengths, over = {}, None
    if stored.texts is not None and stored.encode is not None and len(chosen):
        rows = [list(stored.texts(i)) for i in chosen.tolist()]
        ids = iter(stored.encode([text for row in rows for text in row]))
        found = np.array([max((len(next(ids)) for _ in row), default=0) for row in rows])
        marks = np.quantile(found, list(QUANTILES.values()), method="nearest")
        lengths = dict(zip(QUANTILES, map(int, marks), strict=True))
        over = None if stored.limit is None else int((found > stored.limit).sum())
    return Looked(
        stored.examples, len(chosen), digests, len(seen) - len(counts), contradicted, lengths, over
    )


def digest(content: Any) -> bytes:
    """The same for the same text, the same pixels, the same file, or the same list of these, alone."""
    if isinstance(content, Image.Image):
        content = f"{content.mode} {content.size} ".encode() + content.tobytes()
    elif isinstance(content, Path):
        content = content.read_bytes()
    elif isinstance(content, list | tuple):
        content = b"".join(digest(part) for part in content)
    elif not isinstance(content, bytes):
        content = str(content).encode(errors="surrogateescape")
    return hashlib.sha256(content).digest()[:16]
