"""The figure at the top of the README: every member that there is, drawn from its config.

    python examples/figure.py examples/gallery/family.svg

Members are found, not listed: what each reads and gives, and how it is built, it says itself.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch

import family
from family.look.outline import Outline, outline_of
from family.look.portrait import portrait
from family.models.member import build, facts_of, is_member


def members() -> list[tuple[Outline, str]]:
    """Those with stacks of ours, each as its example, and what it gives."""
    found = []
    for name in sorted(dir(family)):
        cls: Any = getattr(family, name)
        if not is_member(cls):
            continue
        torch.manual_seed(0)
        model = build(cls, cls.facts.example).eval()
        batch = cls.facts.inputs.draw(model, 0)
        one = outline_of(model, name, lambda model=model, batch=batch: model(**batch))
        if one.stacks:
            found.append((one, gives(cls)))
    order = ("text", "pictures", "video", "sound", "series")
    return sorted(
        found, key=lambda one: (len(one[0].reads), *map(order.index, one[0].reads), one[0].name)
    )


def gives(cls: Any) -> str:
    """What a member is for, in words: its task, or what it calls its outputs."""
    facts: Any = facts_of(cls)
    said = facts.task or facts.inputs.outputs[0]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", said).lower()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(portrait(members()), encoding="utf-8")
