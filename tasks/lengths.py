"""How long the texts may be that a model takes, ours or not."""

from __future__ import annotations

import math
from typing import Any


def longest_text(model: Any, otherwise: float = math.inf) -> float:
    """The most tokens by the model's ``config``: what it calls ``longest``, else its ``max_tokens``.

    Args:
        otherwise: where it says neither.
    """
    config = getattr(model, "config", None)
    return getattr(config, "longest", getattr(config, "max_tokens", otherwise))
