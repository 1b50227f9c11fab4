"""Numbers for people."""

from __future__ import annotations


def short(count: float) -> str:
    """1234567 as ``1.23 M``."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:g}"
