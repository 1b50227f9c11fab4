"""What an encoder-decoder writes, as tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from family.generation.choose import NEW_TOKENS
from family.generation.defaults import defaults_of
from family.inference.batches import device_of
from family.inference.translation import BEAMS, most_new_tokens
from family.inputs.encode import encode_sources
from family.models.member import longest_text


def source_ids(
    model: Any, text: str, source: str | None = None, target: str | None = None, **_: Any
) -> tuple[Tensor, str | None]:
    """The ids ``(1, tokens)`` of a text as :func:`family.inference.translation.translate` reads it, and the
    language that is written.

    Raises:
        ValueError: a text that is too long, or languages that the model does not know.
    """
    known = getattr(model, "language_tokens", None)
    if known is None and (source or target):
        raise ValueError(f"the model knows no tokens of languages: leave {source or target} out.")
    if known is None:
        ids = encode_sources(model.tokenizer, [text])[0]
    else:
        source, target = known.direction(source, target, model)
        ids = known.sources(model.tokenizer, [text], source, target)[0]
    longest = longest_text(model)
    if len(ids) > longest:
        raise ValueError(f"a text of {len(ids)} tokens does not fit the model's {longest}.")
    return torch.tensor([ids], device=device_of(model)), target


@torch.no_grad()
def written_ids(
    model: Any, source: Tensor, language: str | None, beams: int | None, alone: bool
) -> tuple[Tensor, Tensor]:
    """What decoding starts from, and what the model writes, both ``(1, tokens)``, the stop token included.

    Args:
        source: what the front-end reads, of one example.
        language: of a model of several, that is written.
        beams: None are the model's own, or as many as its command takes.
        alone: as long as ``generation`` says, not by the source, and one beam.
    """
    if not hasattr(model, "generate"):
        raise ValueError(f"a {type(model).__name__} cannot write: it has no method generate.")
    own, target = defaults_of(model), model.tokenizer.target
    if beams is None:
        beams = own.beams if alone or own.beams > 1 else BEAMS
    most = own.most_new_tokens(1, NEW_TOKENS)
    if not alone:
        most = most_new_tokens(source.shape[1], longest_text(model))
    begin = {}
    if language is not None and (known := getattr(model, "language_tokens", None)) is not None:
        begin = known.begin([language], source.device)
    start = begin.get("prompt")
    if start is None:
        start = torch.tensor([[model.bos_id]], device=source.device)
    made = model.generate(
        source,
        max_new_tokens=int(min(most, model.longest_target)),
        beams=beams,
        stop_ids={target.eos_id, *(own.stop_ids or ())},
        pad_id=target.pad_id,
        **begin,
    )
    return start, made
