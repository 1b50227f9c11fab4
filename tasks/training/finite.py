"""A run whose numbers are not finite stops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tasks.errors import NotFiniteError


def check_finite(values: Mapping[str, Any], step: int) -> None:
    """Refuse numbers that are not finite, before the weights learn of them.

    Raises:
        NotFiniteError: the first of them, at which step.
    """
    for name, value in values.items():
        number = float(value)
        if not math.isfinite(number):
            raise NotFiniteError(
                f"{name} is {number} at step {step}: the run ends, and its last good checkpoint stays; a "
                "smaller model.lr or trainer.gradient_clip_val may help."
            )
