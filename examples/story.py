"""Draw the story of the Transformer from the comparisons in examples/compare: ``story.png``.

    python examples/story.py examples/compare

Each folder there holds what ``family compare`` or ``family profile`` wrote, with the command in its report.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLOURS = ("#2c6fbb", "#d1495b", "#3d8b40")


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text("utf-8"))


def growing(
    axes: Axes, root: Path, points: Sequence[tuple[float, str]], scale: float = 1.0
) -> None:
    """The metric of each variant against what grows, a comparison a point: mean, and every seed."""
    found = [(x, results(root / name)["variants"]) for x, name in points]
    for colour, variant in zip(COLOURS, found[0][1], strict=False):
        lists = [(x, [scale * v for v in one[variant]["values"]]) for x, one in found]
        axes.plot(
            [x for x, _ in lists],
            [sum(values) / len(values) for _, values in lists],
            color=colour,
            label=variant.replace("_", " "),
        )
        for x, values in lists:
            axes.plot([x] * len(values), values, ".", color=colour)
    axes.set_xscale("log")
    axes.set_xticks([x for x, _ in found], [f"{x:g}" for x, _ in found])
    axes.minorticks_off()


def beside(axes: Axes, root: Path, name: str, scale: float = 1.0) -> None:
    """The metric of each variant of one comparison: mean, and every seed."""
    variants = results(root / name)["variants"]
    for place, (colour, variant) in enumerate(zip(COLOURS, variants, strict=False)):
        values = [scale * v for v in variants[variant]["values"]]
        axes.bar(place, sum(values) / len(values), 0.6, color=colour, alpha=0.6)
        axes.plot([place] * len(values), values, ".", color=colour)
    axes.set_xticks(range(len(variants)), [name.replace("_", " ") for name in variants])


def throughput(axes: Axes, root: Path) -> None:
    """Tokens a second of a training step against the length of the sequence."""
    rows = json.loads((root / "lstm_length" / "profile.json").read_text("utf-8"))["rows"]
    size = max(row["batch_size"] for row in rows)
    for colour, config in zip(COLOURS, dict.fromkeys(row["config"] for row in rows), strict=False):
        own = [row for row in rows if (row["config"], row["batch_size"]) == (config, size)]
        speed = [size * row["length"] / row["train_seconds"] for row in own]
        lengths = [row["length"] for row in own]
        label = "LSTM" if "lstm" in config else "Transformer"
        axes.plot(lengths, speed, ".-", color=colour, label=label)
    axes.set_xscale("log")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    axes.set_ylim(0)


PANELS: list[tuple[str, str, str, Callable[[Axes, Path], None]]] = [
    ("Training speed", "tokens in a row", "tokens a second", throughput),
    (
        "Recalling one token",
        "tokens to each end",
        "test accuracy, %",
        lambda a, r: growing(a, r, [(d, f"recall_{d}") for d in (8, 16, 32, 128)], 100),
    ),
    ("Multi30k, English to German", "", "test BLEU", lambda a, r: beside(a, r, "multi30k")),
    (
        "CIFAR-10",
        "% of the training pictures",
        "test accuracy, %",
        lambda a, r: growing(a, r, [(p, f"cifar10_{p}") for p in (1, 10, 100)], 100),
    ),
    ("Detection of shapes", "", "test mAP, %", lambda a, r: beside(a, r, "detection", 100)),
    (
        "Norm before or after",
        "layers",
        "validation loss",
        lambda a, r: growing(a, r, [(d, f"norm_order_{d}") for d in (2, 8, 24)]),
    ),
]
"""Title, both axes, and what draws it."""


def main(root: Path) -> None:
    figure, grid = plt.subplots(2, 3, figsize=(11, 6.2), layout="constrained")
    for axes, (title, below, beside_it, draw) in zip(grid.flat, PANELS, strict=True):
        draw(axes, root)
        axes.set(title=title, xlabel=below, ylabel=beside_it)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.savefig(root / "story.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
