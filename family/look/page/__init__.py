"""A view as one page that needs nothing else: styles, script and data are in it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from family.look.view import View

HERE = Path(__file__).parent


def page_of(view: View, title: str, layer: int | None = None, head: int | None = None) -> str:
    """HTML of a view, which works from a file.

    Args:
        title: what was looked at, for its head.
        layer, head: that are shown at first, counted from 1; None is the last layer that attends, and the
            mean of all heads.

    Raises:
        ValueError: a layer or head that is not there, or a view that is too large.
    """
    panel = view.panels[0]
    at = chosen_layer(panel.maps, layer)
    heads = len(panel.maps[at])  # type: ignore[arg-type]
    if head is not None and not 1 <= head <= heads:
        raise ValueError(f"head {head} is not there: layer {at + 1} has {heads}.")
    plain = view.to_plain()
    depth = len(panel.maps)
    plain |= {
        "said": f"{spoken(view.task)} \N{MIDDLE DOT} {depth} layer{'s' * (depth > 1)} of {heads} heads",
        "begin": {"layer": at, "head": -1 if head is None else head - 1},
        "open": "relevance" if view.relevance and layer is head is None else 0,
    }
    return filled(title, plain)


def spoken(task: str) -> str:
    """The name of a task as words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", task).lower()


def chosen_layer(maps: Any, layer: int | None) -> int:
    """The number from 0 of a layer that attends.

    Raises:
        ValueError: it does not, or is not there.
    """
    there = [i for i, one in enumerate(maps) if one is not None]
    if layer is None:
        return there[-1]
    if layer - 1 not in there:
        raise ValueError(f"layer {layer} is none that attends: there are {len(maps)}.")
    return layer - 1


def filled(title: str, plain: dict[str, Any]) -> str:
    """The template with its parts; data cannot end the script that holds them."""
    parts = {
        "title": html.escape(title),
        "css": read("page.css"),
        "script": read("page.js"),
        "data": json.dumps(plain, ensure_ascii=False, separators=(",", ":")).replace(
            "<", "\\u003c"
        ),
    }
    return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], read("page.html"))


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
