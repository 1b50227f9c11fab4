"""Write ``examples/parity.md``: every member beside the implementation that it was published with.

    python tests/parity/table.py

takes a few minutes on two cores. The same cases run as tests (``test_published.py``).
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import harness
from test_published import CASES

TARGET = Path(__file__).parents[2] / "examples" / "parity.md"
HEADER = """# Parity

Every member with the weights of a reference implementation, small and drawn at random, biases and
norms away from 0 and 1. Inputs are rows of unequal length with padding; outputs are compared where
there is something to compare. Each cell is the largest relative difference, that is the largest
absolute difference over the largest value of the reference; in brackets the absolute one.
"Gradient" is the worst of all parameters. "Cached" compares each of {tokens} cached decoding steps
with a pass over the whole sequence; "tokens" counts greedy tokens, of {tokens} a row, that differ
from the reference's `generate`. "Saved back" is what the reference computes from the files that we
wrote in its format. How exactly: [tests/parity](../tests/parity/harness.py).

Two things to know of the references. Some modules of transformers (norms, rotary angles, T5's softmax) round
to float32 in any precision; in the float64 table these few are computed in float64, see
[widened.py](../tests/parity/cases/widened.py). And the authors' packages of DETR and Segmenter cannot be
installed: "originals" are put together from torch's own layers, under the names of the authors' files.

Written by `python tests/parity/table.py` with {versions}.
"""
COLUMNS = ["output", "loss", "gradient", "cached decoding", "64 greedy tokens", "saved back"]
TITLES = ["output", "loss", "gradient", "cached", "tokens", "saved back"]


def versions() -> str:
    names = ("torch", "transformers", "timm", "open_clip_torch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def cell(found: harness.Difference | None) -> str:
    if found is None:
        return ""
    if found.what == "64 greedy tokens":
        return f"{found.absolute:.0f} differ"
    return "0" if found.absolute == 0 else f"{found.relative:.0e} ({found.absolute:.0e})"


def table(cases: Iterable[harness.Case], dtype: torch.dtype) -> list[str]:
    """The rows of one precision."""
    lines = [
        "| member | reference | " + " | ".join(TITLES) + " |",
        "| --- | --- |" + " --- |" * len(TITLES),
    ]
    for case in cases:
        found = {one.what: one for one in harness.compare(case, dtype)}
        reference = type(case.build())
        library = reference.__module__.partition(".")[0]
        cells = " | ".join(cell(found.get(column)) for column in COLUMNS)
        lines.append(f"| {case.member} | {library} {reference.__name__} | {cells} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    warnings.simplefilter("ignore")
    parts = [HEADER.format(tokens=harness.NEW_TOKENS, versions=versions())]
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        parts.append("\n".join([f"## {name}", "", *table(CASES, dtype)]) + "\n")
    notes = [f"- {case.member}: {case.note}" for case in CASES if case.note]
    if notes:
        parts.append("\n".join(["## Notes", "", *notes]) + "\n")
    TARGET.write_text("\n".join(parts), encoding="utf-8")
    print(f"Written: {TARGET}")


if __name__ == "__main__":
    main()
