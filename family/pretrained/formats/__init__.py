"""All published formats."""

from __future__ import annotations

from typing import Any

from family.models.member import is_member
from family.pretrained.formats import (
    bart,
    bert,
    clip,
    detr,
    dinov2,
    dinov3,
    distilbert,
    electra,
    eomt,
    gemma,
    gpt2,
    gpt_neo,
    llama,
    m2m100,
    marian,
    mixtral,
    modernbert,
    mpnet,
    neox,
    olmo2,
    open_clip,
    opt,
    phi3,
    qwen3,
    reward,
    roberta,
    segmenter,
    smollm3,
    t5,
    timm_vit,
    videomae,
    vilt,
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
        qwen3.FORMAT,
        qwen3.MOE,
        mixtral.FORMAT,
        smollm3.FORMAT,
        phi3.FORMAT,
        neox.FORMAT,
        opt.FORMAT,
        gpt_neo.FORMAT,
        gemma.FORMAT,
        gemma.GEMMA2,
        gemma.GEMMA3,
        olmo2.FORMAT,
        bert.FORMAT,
        roberta.FORMAT,
        roberta.XLM,
        distilbert.FORMAT,
        electra.FORMAT,
        mpnet.FORMAT,
        modernbert.FORMAT,
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
        dinov3.FORMAT,
        timm_vit.FORMAT,
        videomae.FORMAT,
        vilt.FORMAT,
        detr.FORMAT,
        detr.ORIGINAL,
        segmenter.FORMAT,
        eomt.FORMAT,
        clip.FORMAT,
        clip.SIGLIP,
        open_clip.FORMAT,
        open_clip.ORIGINAL,
    )
}
"""By the names that ``save_pretrained(format=...)`` takes."""
NOT_IT = {"siglip2": " (SigLIP 2 for pictures of any shape, NaFlex)"}
"""What a ``model_type`` means that is near to one that we know."""


def as_format(format: Any, *others: str) -> Format:
    """A format by its name, or one of the caller's own as it is.

    Args:
        others: names that would do as well, for an error.

    Raises:
        ValueError: neither, or one whose member is none.
    """
    if not isinstance(format, Format):
        if not isinstance(format, str) or format not in FORMATS:
            choices = ", ".join((*FORMATS, *others))
            raise ValueError(
                f"format={format!r} is unknown; choose one of: {choices}, or give a Format."
            )
        return FORMATS[format]
    if not is_member(format.member):
        raise ValueError(
            f"format={format.name!r} is for {format.member!r}, which is no class decorated with "
            "family.models.member.member."
        )
    return format


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
            f"{origin}: model_type={model_type!r}{NOT_IT.get(str(model_type), '')} is not supported; "
            f"known are {', '.join(known)}."
        )
    named = architectures if isinstance(architectures, list) else []
    layout = reward.named(layout, list(map(str, named)))
    if named and not set(map(str, named)) & set(layout.architectures):
        ours = (*layout.architectures, *reward.architectures_of(layout))
        raise ValueError(
            f"{origin}: the architecture {named[0]!r} is not supported; of {layout.name} we know "
            f"{', '.join(ours)}."
        )
    return layout
