"""M2M100 (Fan et al. 2021) and NLLB-200 (Costa-jussà et al. 2022), as transformers and the hub store
them."""

from __future__ import annotations

from typing import Any

from family.models.seq2seq import Seq2Seq
from family.pretrained.pairs import CODING, OLD, TEXT, constants, copies, names, rates, start
from family.pretrained.shared_fields import token_ids
from family.pretrained.table import Field, Format


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    first, padding = start(config, 2), config.get("pad_token_id", 1)
    if padding is None or first == padding:
        # Positions are counted from the padding's number, and padding has none.
        raise ValueError(
            f"pad_token_id={padding!r} is not supported with decoder_start_token_id={first}: it must "
            "be a token of its own."
        )
    return {"bos_id": first, "first_position": padding + 1}


def written(model: Seq2Seq, config: dict[str, Any]) -> dict[str, Any]:
    first, known = model.first_position, getattr(model.tokenizer, "pad_id", None)
    padding = first - 1
    if padding < 0 or known not in (None, padding):
        raise ValueError(
            f"format='m2m_100' counts positions from the padding's number: first_position={first} "
            f"would need a tokenizer whose padding is {padding}, not {known}."
        )
    return {
        **token_ids(model),
        "pad_token_id": padding,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
    }


FORMAT = Format(
    name="m2m_100",
    member=Seq2Seq,
    model_types=("m2m_100",),
    architectures=("M2M100ForConditionalGeneration", "M2M100Model"),
    fields=(
        *(f._replace(default="relu") if f.theirs == "activation_function" else f for f in TEXT),
        *rates(attention=0.1),
        Field("scale_embeddings", "scale_embedding", True),
        Field("bos_id", "decoder_start_token_id", 2),
    ),
    constants=constants(norm_order="pre", position="timing"),
    fixed=CODING,
    prefix="model.",
    ignored=(*OLD, r"\.embed_positions\.weights$"),  # sines, which some files hold
    names=names,
    detect=arguments,
    finish=written,
    unread=copies,
)
