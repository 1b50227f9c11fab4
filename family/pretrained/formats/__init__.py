"""All published formats."""

from __future__ import annotations

from typing import Any

from family.pretrained.formats import (
    bart,
    bert,
    clip,
    detr,
    dinov2,
    distilbert,
    gpt2,
    llama,
    m2m100,
    marian,
    neox,
    open_clip,
    opt,
    roberta,
    segmenter,
    t5,
    timm_vit,
    vit,
    whisper,
)
from family.pretrained.table import Format

FORMATS: dict[str, Format] = {
    layout.name: layout
    for layout in (
        gpt2.FORMAT,
        llama.FORMAT,
        llama.MISTRAL,
        llama.QWEN2,
        neox.FORMAT,
        opt.FORMAT,
        bert.FORMAT,
        roberta.FORMAT,
        distilbert.FORMAT,
        t5.FORMAT,
        marian.FORMAT,
        bart.FORMAT,
        bart.MBART,
        m2m100.FORMAT,
        whisper.FORMAT,
        vit.FORMAT,
        vit.DEIT,
        dinov2.FORMAT,
        dinov2.REGISTERS,
        timm_vit.FORMAT,
        detr.FORMAT,
        detr.ORIGINAL,
        segmenter.FORMAT,
        clip.FORMAT,
        clip.SIGLIP,
        open_clip.FORMAT,
        open_clip.ORIGINAL,
    )
}
"""By the names that ``save_pretrained(format=...)`` takes."""


def find_format(config: dict[str, Any], origin: str) -> Format:
    """The format of a ``config.json`` of the hub.

    Raises:
        ValueError: an architecture that we do not know, named.
    """
    model_type, architectures = config.get("model_type"), config.get("architectures")
    for layout in FORMATS.values():
        if model_type in layout.model_types:
            break
    else:
        known = sorted({name for layout in FORMATS.values() for name in layout.model_types})
        raise ValueError(
            f"{origin}: model_type={model_type!r} is not supported; known are {', '.join(known)}."
        )
    named = architectures if isinstance(architectures, list) else []
    if named and not set(map(str, named)) & set(layout.architectures):
        raise ValueError(
            f"{origin}: the architecture {named[0]!r} is not supported; of {layout.name} we know "
            f"{', '.join(layout.architectures)}."
        )
    return layout
