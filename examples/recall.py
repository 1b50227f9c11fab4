"""Texts whose class is a digit that stands among letters, so far from both ends: can a model recall it?

    python examples/recall.py --distance 64 --out recall/64
    family compare --config compare/recall --data.root recall/64

Distances of 8, 16, 32 and 128 are the points of the figure in examples/compare.
"""

from __future__ import annotations

import argparse
import random
import string
from pathlib import Path

DIGITS = "01234567"
SPLITS = {"train": 8000, "val": 500, "test": 1000}


def text(distance: int, rng: random.Random) -> tuple[str, str]:
    """``distance`` letters, a digit, ``distance`` letters; and the digit."""
    digit = rng.choice(DIGITS)
    before, after = ("".join(rng.choices(string.ascii_lowercase, k=distance)) for _ in range(2))
    return before + digit + after, digit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--distance", type=int, required=True, help="letters before and after")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    rng = random.Random(0)
    for split, count in SPLITS.items():
        rows = ["\t".join(text(options.distance, rng)) for _ in range(count)]
        (options.out / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
