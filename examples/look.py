"""The original explanation of attention in the numbers of a model that was trained here, as one page.

Three minutes on one thread, on the built-in data, then a moment:

    family fit --config translation/shapes --model.model.config.dim 64 --model.model.config.ffn_dim 128 \
      --trainer.max_steps 400 --trainer.val_check_interval 200 --run_folder runs/look
    python examples/look.py runs/look examples/look/attention.html
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import family
from family.look.steps import translation_steps

TEMPLATE = Path(__file__).parent / "look" / "template.html"
TEXT = "une image d'un petit carré rouge"


def page(model: Any, text: str = TEXT) -> str:
    """The page of a translation; all of its numbers are data in it."""
    steps = translation_steps(model, text)
    count = sum(p.numel() for p in model.parameters())
    steps["about"] = (
        f"{steps['layers']} layers of {len(steps['weights'])} heads, {len(steps['out'][0])} wide, {count:,} "
        f"numbers learned from made-up sentences about pictures, {steps['vocabulary']} pieces of words. Shown is the "
        "first layer of its encoder, then what its decoder made of it."
    )
    # Begin where a head looks at something else than the word itself.
    off = [[max(row[:i] + row[i + 1 :]) for i, row in enumerate(one)] for one in steps["weights"]]
    chosen = max((value, h, i) for h, one in enumerate(off) for i, value in enumerate(one[:-1]))
    steps |= {"head": chosen[1], "query": chosen[2], "step": min(1, len(steps["written"]) - 1)}
    data = json.dumps(steps, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    before, _, after = TEMPLATE.read_text(encoding="utf-8").partition("{{data}}")
    return before + data + after


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(family.load(sys.argv[1]).model), encoding="utf-8")
