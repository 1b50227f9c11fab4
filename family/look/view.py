"""What there is to see of one input, ready to be drawn: tokens, maps, and what comes of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from family.look.maps import entropy, rollout

MOST = 8_000_000
"""Weights on a page, each a byte."""
LENS = 5
"""Words shown of each place of the logit lens."""


@dataclass
class Side:
    """Tokens that attend, or are attended to.

    Args:
        name: what to call them: "source".
        tokens: a text each; a number is a cell of the picture, counted row by row.
        picture: as the model sees it.
        grid: rows and columns of cells.
        covers: the part of the picture's height and width that the cells lie over.
        named: what the cells are called; None is by row and column.
    """

    name: str
    tokens: list[str | int]
    picture: Image.Image | None = None
    grid: tuple[int, int] | None = None
    covers: tuple[float, float] = (1.0, 1.0)
    named: list[str] | None = None

    def to_plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"name": self.name, "tokens": self.tokens}
        if self.picture is not None and self.grid is not None:
            plain |= {"picture": as_png(self.picture), "size": list(self.picture.size)}
            plain |= {"grid": list(self.grid), "covers": list(self.covers)}
            plain |= {"named": self.named}
        return plain


@dataclass
class Panel:
    """The maps of one kind: which tokens attend to which, by layer and head.

    Args:
        name: "decoder to encoder".
        queries, keys: numbers of the view's sides.
        maps: of each layer ``(heads, queries, keys)``; None where a layer has none.
        rolls: its tokens attend to each other layer after layer, so that a rollout makes sense.
        turned: a row is what is read, and says by which of the keys.
    """

    name: str
    queries: int
    keys: int
    maps: Sequence[Tensor | None]
    rolls: bool = False
    turned: bool = False

    def to_plain(self) -> dict[str, Any]:
        layers = [
            None if one is None else {"heads": len(one), "weights": packed(one)}
            for one in self.maps
        ]
        bits = [None if m is None else rounded(entropy(m[None])[0]) for m in self.maps]
        plain = {"name": self.name, "queries": self.queries, "keys": self.keys, "layers": layers}
        plain |= {"shape": list(next(m for m in self.maps if m is not None).shape[1:])}
        plain |= {"entropy": bits, "turned": self.turned}
        if self.rolls and len(self.maps) > 1:
            plain["rollout"] = packed(rollout([m if m is None else m[None] for m in self.maps])[0])
        return plain


@dataclass
class View:
    """Everything that is shown of one input.

    Args:
        task: the model's.
        answer: what the model says, a line or a few.
        sides: of all panels.
        panels: the first is shown at first.
        relevance: of classes: ``class``, ``score``, ``side`` and ``values``, one a token.
        lens: of each layer and token, the likeliest next words and how likely they are.
        boxes: found in the picture: ``label``, ``score``, ``box`` in 0..1 and ``row``, its query.
    """

    task: str
    answer: list[str]
    sides: list[Side]
    panels: list[Panel]
    relevance: list[dict[str, Any]] = field(default_factory=list)
    lens: dict[str, Any] | None = None
    boxes: list[dict[str, Any]] = field(default_factory=list)

    def check(self) -> None:
        """Refuse what is too large for a page.

        Raises:
            ValueError: see above.
        """
        count = sum(m.numel() for panel in self.panels for m in panel.maps if m is not None)
        check_count(count, max(len(side.tokens) for side in self.sides))

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for JSON: weights are bytes in base64, 255 times their roots.

        Raises:
            ValueError: see :meth:`check`.
        """
        self.check()
        return {
            "task": self.task,
            "answer": self.answer,
            "sides": [side.to_plain() for side in self.sides],
            "panels": [panel.to_plain() for panel in self.panels],
            "relevance": self.relevance,
            "lens": self.lens,
            "boxes": self.boxes,
        }


def check_count(count: int, tokens: int) -> None:
    """Refuse more weights than a page has room for.

    Raises:
        ValueError: see above.
    """
    if count > MOST:
        raise ValueError(
            f"{count:,} weights, of {tokens} tokens in all layers and heads, are too many to show: at "
            f"most {MOST:,}. Give a shorter text or series, or a smaller picture."
        )


def packed(weights: Tensor) -> str:
    """0..1 as bytes, by their roots, so that small ones are told apart."""
    small = (weights.float().clamp(0, 1).sqrt() * 255).round().to(torch.uint8)
    return base64.b64encode(small.cpu().contiguous().numpy().tobytes()).decode()


def rounded(values: Tensor, digits: int = 3) -> list[float]:
    return [round(value, digits) for value in values.float().tolist()]


def as_png(picture: Image.Image) -> str:
    """A picture as a URL that holds it."""
    held = io.BytesIO()
    picture.convert("RGB").save(held, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def lens_of(logits: Tensor, tokenizer: Any, said: Any) -> dict[str, Any]:
    """The best words of ``(layers, tokens, vocab)`` logits.

    Args:
        said: the text of a token's id.
    """
    scores, ids = logits.float().softmax(-1).topk(min(LENS, logits.shape[-1]))
    words = [[[said(tokenizer, i) for i in best] for best in row] for row in ids.tolist()]
    chances = [[[round(x, 3) for x in best] for best in row] for row in scores.tolist()]
    return {"words": words, "scores": chances}
