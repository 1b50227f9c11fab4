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
    prompt: Tensor | None = None,
    prompt_mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Beam search with several beams, or else :func:`~family.generation.generate`.

    Raises:
        ValueError: several beams and a sampling, as a search draws nothing; less than one beam.
    """
    if beams < 1:
        raise ValueError(f"beams={beams} must be at least 1.")
    if beams > 1:
        options.pop("generator", None)  # nothing is drawn
        if sampling != Sampling():
            raise ValueError(f"beams={beams} search and draw nothing: they go without a sampling.")
        return beam_search(model, inputs, beams=beams, length_penalty=length_penalty, **options)[0]
    options.update(sampling=sampling, prompt=prompt, prompt_mask=prompt_mask)
    return generate(model, inputs, **options)
