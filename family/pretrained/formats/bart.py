"""BART (Lewis et al. 2020) and mBART (Liu et al. 2020; Tang et al. 2020), as transformers and the hub
store them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from family.models.seq2seq import Seq2Seq
from family.pretrained.pairs import CODING, OLD, TEXT, constants, copies, names, rates, start
from family.pretrained.shared_fields import token_ids
from family.pretrained.table import Field, Format


def arguments(usual: int | None, config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """
    Args:
        usual: the token to start from where the config names none.
    """
    # Zeros, which files may leave out.
    return {"bos_id": start(config, usual), "output_bias": "final_logits_bias" in names}


def written(model: Seq2Seq, config: dict[str, Any]) -> dict[str, Any]:
    tokens = token_ids(model)
    # By default theirs ends what is cut with token 2, whatever that is.
    return {**tokens, "forced_eos_token_id": tokens["eos_token_id"]}


FORMAT = Format(
    name="bart",
    member=Seq2Seq,
    model_types=("bart",),
    architectures=("BartForConditionalGeneration", "BartModel"),
    fields=(
        *TEXT,
        *rates(),
        Field("scale_embeddings", "scale_embedding", False),
        Field("bos_id", "decoder_start_token_id", 2),
    ),
    constants={
        **constants(norm_order="post", position="learned"),
        "embedding_norm": True,
    },
    fixed={
        **CODING,
        "normalize_before": False,
        "normalize_embedding": True,
        "add_final_layer_norm": False,
        "static_position_embeddings": False,
    },
    prefix="model.",
    ignored=OLD,
    names=names,
    detect=partial(arguments, 2),
    finish=written,
    unread=copies,
)
MBART = replace(
    FORMAT,
    name="mbart",
    model_types=("mbart",),
    architectures=("MBartForConditionalGeneration", "MBartModel"),
    fields=(*FORMAT.fields[:-1], Field("bos_id", "decoder_start_token_id", None)),
    constants={**FORMAT.constants, **constants(norm_order="pre", position="learned")},
    fixed={**FORMAT.fixed, "normalize_before": True, "add_final_layer_norm": True},
    detect=partial(arguments, None),
)
