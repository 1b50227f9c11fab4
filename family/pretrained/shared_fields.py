"""Names that several published formats share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from family.heads.problem import MULTI, REGRESSION, SINGLE, check_problem
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

ACTIVATION = "sbert_ce_default_activation_function"
"""Where sentence-transformers kept what it makes of logits, before it had a field of its own."""
IDENTITY = "torch.nn.modules.linear.Identity"


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


def read_problem(config: Mapping[str, Any], count: int) -> str | None:
    """What a head of so many labels says, as transformers' pipelines show it; and where its
    ``problem_type`` leaves that open, as sentence-transformers has it of its cross-encoders.

    Returns:
        the ``problem_type``: of one label whose config says nothing that of its sigmoid, of several None.

    Raises:
        ValueError: a ``problem_type`` or an activation that we do not know.
    """
    said = check_problem(config.get("problem_type"))
    if not count or said in (MULTI, REGRESSION) or (said == SINGLE and count > 1):
        return said
    own = config.get("sentence_transformers")
    activation = own.get("activation_fn") if isinstance(own, dict) else None
    kind = str(activation or config.get(ACTIVATION) or "").rpartition(".")[2]
    if kind not in ("", "Identity", "Sigmoid"):
        raise ValueError(f"activation_fn={kind!r} is not supported; only Sigmoid and Identity are.")
    if count == 1:
        return REGRESSION if kind == "Identity" else MULTI
    return MULTI if kind == "Sigmoid" else None


def label_fields(model: Any, count: int) -> dict[str, Any]:
    """The names of so many classes, as a config of transformers has them, and what they say, where that
    is not what it is without a word; none without classes."""
    labels = model.labels or [f"LABEL_{i}" for i in range(count)]
    if not count:
        return {}
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        **problem_fields(model, count),
    }


def problem_fields(model: Any, count: int) -> dict[str, Any]:
    """The ``problem_type`` of a model's head; and of a number of texts, that cross-encoders show it as it is,
    which they would not without a word."""
    said, tasks = model.problem_type, tasks_of(model)
    if said is None and any(task in tasks for task in ("TextRegression", "ImageRegression")):
        said = REGRESSION
    if said is None or (count == 1 and said != REGRESSION):
        return {}  # of one label, the sigmoid goes without a word
    shown = {"sentence_transformers": {"activation_fn": IDENTITY}}
    return {"problem_type": said, **(shown if count == 1 and "TextRegression" in tasks else {})}


def token_ids(model: Any) -> dict[str, int | None]:
    """The tokens with a role, as a config of transformers has them; null where there are none.

    Their own defaults would stop a generation at whichever token has such an id.
    """
    ids = {name: getattr(model.tokenizer, f"{name}_id", None) for name in ("bos", "eos", "pad")}
    return {
        f"{name}_token_id": found if found is not None and found < model.vocab_size else None
        for name, found in ids.items()
    }
