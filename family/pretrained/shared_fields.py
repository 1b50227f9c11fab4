"""Names that several published formats share."""

from __future__ import annotations

import math
from typing import Any

from family.inputs.patches import pair
from family.models.member import tasks_of
from family.pretrained.table import Names

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "quick_gelu": "quick_gelu",
}
"""transformers' names of activations -> ours."""

REGRESSION = "regression"
"""What transformers calls the problem of one label that is a number."""


BLOCK: Names = {
    "self_attention.norm": "self_attn_layer_norm",
    "self_attention.sublayer.qkv": tuple(f"self_attn.{part}_proj" for part in "qkv"),
    "self_attention.sublayer.out": "self_attn.out_proj",
    "feedforward.norm": "final_layer_norm",
    "feedforward.sublayer.up": "fc1",
    "feedforward.sublayer.down": "fc2",
}
"""A block of BART's kind in transformers: Marian, Whisper, DETR."""
CROSS: Names = {
    "cross_attention.norm": "encoder_attn_layer_norm",
    "cross_attention.sublayer.query": "encoder_attn.q_proj",
    "cross_attention.sublayer.key_value": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross_attention.sublayer.out": "encoder_attn.out_proj",
}


def ratio(hidden: int, dim: int) -> float:
    """``mlp_ratio`` of timm and open_clip, such that their rounding down arrives at ``hidden``."""
    share = hidden / dim
    return share if int(dim * share) == hidden else math.nextafter(share, math.inf)


def rest(image_size: Any, patch_size: Any) -> dict[str, bool]:
    """Whether pixels of a picture fill no patch, which the convolutions of all libraries leave out."""
    sides = zip(pair(image_size), pair(patch_size), strict=True)
    return {"patches.drop_rest": any(side % patch for side, patch in sides)}


def count_labels(config: dict[str, Any]) -> int:
    """The number of classes in a config of transformers; 1 is that of a regression.

    Raises:
        ValueError: a regression of several numbers at once.
    """
    found = config.get("id2label")
    count = len(found) if isinstance(found, dict) else config.get("num_labels", 2)
    if config.get("problem_type") == REGRESSION and count != 1:
        raise ValueError(
            f"problem_type={REGRESSION!r} of {count} labels is not supported; only of 1 is."
        )
    return count


def label_fields(model: Any, count: int) -> dict[str, Any]:
    """The names of so many classes, as a config of transformers has them, and of a regression that it
    is one; none without classes."""
    labels = model.labels or [f"LABEL_{i}" for i in range(count)]
    if not count:
        return {}
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        **({"problem_type": REGRESSION} if "TextRegression" in tasks_of(model) else {}),
    }


def token_ids(model: Any) -> dict[str, int | None]:
    """The tokens with a role, as a config of transformers has them; null where there are none.

    Their own defaults would stop a generation at whichever token has such an id.
    """
    ids = {name: getattr(model.tokenizer, f"{name}_id", None) for name in ("bos", "eos", "pad")}
    return {
        f"{name}_token_id": found if found is not None and found < model.vocab_size else None
        for name, found in ids.items()
    }
