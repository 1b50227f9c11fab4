"""Beam search or sampling, as a member's ``generate`` is asked for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from family.generation.beam import beam_search
from family.generation.generate import Decodes, generate
from family.generation.sampling import Sampling


def search_or_sample(
    model: Decodes,
    inputs: tuple[Any, ...],
    beams: int,
    length_penalty: float,
    sampling: Sampling,
    prompt: tuple[Tensor | None, Tensor | None] = (None, None),
    **options: Any,
) -> Tensor:
    """Beam search with several beams, or else :func:`~family.generation.generate`."""
    if beams > 1:
        return beam_search(model, inputs, beams=beams, length_penalty=length_penalty, **options)[0]
    text, mask = prompt
    return generate(model, inputs, sampling=sampling, prompt=text, prompt_mask=mask, **options)
