"""ModernBERT (Warner et al. 2024), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.bert import BERT, SPANS, TOKENS
from family.pretrained.formats.bert import KINDS, of_tokens, pooling_of
from family.pretrained.layers import to_layers
from family.pretrained.rope import read_rope, write_rope
from family.pretrained.shared_fields import ACTIVATIONS, count_labels, label_fields, token_ids
from family.pretrained.table import Field, Format, Names, blocks

FULL, SLIDING = "full_attention", "sliding_attention"
BASES = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}
"""What version 4 calls the base of rotary positions in each kind of layer, and its default."""
EVERY, LOCAL = "global_attn_every_n_layers", "local_attention"
POOLINGS = {"cls": "class", "mean": "mean", TOKENS: TOKENS, SPANS: SPANS}
"""Theirs -> ours; the last two stand in no file, where the architecture says it."""
NEW_HEAD = {"pooler": "gelu", "pooler_norm": True}
"""What goes with a fresh head, of whatever kind."""
BLOCK: Names = {
    "self_attention.norm": "attn_norm",
    "self_attention.sublayer.qkv": "attn.Wqkv",
    "self_attention.sublayer.out": "attn.Wo",
    "feedforward.norm": "mlp_norm",
    "feedforward.sublayer.up": "mlp.Wi",
    "feedforward.sublayer.down": "mlp.Wo",
}


def detect(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The heads that the weights are of, and in what layers differ."""
    classes = "classifier.weight" in names
    masked = "head.dense.weight" in names and not classes
    for name in ("tie_word_embeddings", "decoder_bias"):
        if masked and config.get(name, True) is not True:
            raise ValueError(
                f"{name}={config[name]!r} is not supported for modernbert; only True is."
            )
    full, near = rotary(config, FULL), rotary(config, SLIDING)
    if near["rotary_scaling"] == full["rotary_scaling"]:
        del near["rotary_scaling"]
    near["window"] = config.get(LOCAL, 128) // 2 + 1  # they count both sides
    kinds = layer_kinds(config, len(names))
    overrides = [dict(near) if kind == SLIDING else {} for kind in kinds]
    for first in overrides[:1]:
        first["mixer_norm"] = False
    kind = pooling_of(config)
    return {
        **{f"config.{name}": value for name, value in full.items()},
        "config.layers": to_layers(overrides),
        "masked_head": masked,
        "num_classes": count_labels(config) if classes else 0,
        "pooler": ACTIVATIONS[config.get("classifier_activation", "gelu")] if classes else None,
        "pooler_norm": classes,
        **({"pooling": kind} if classes and kind else {}),
    }


def rotary(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """Base and scaling of rotary positions in the layers of a kind, in the layout of either version.

    Raises:
        ValueError: what we do not support.
    """
    given = config.get("rope_parameters") or {}
    strange = sorted(given.keys() - BASES.keys())
    if strange:
        raise ValueError(f"rope_parameters has the field {strange[0]!r}, which is not supported.")
    name, usual = BASES[kind]
    base = config.get(name, usual)
    if base is None:  # version 4 then takes that of the others
        base = config.get(*BASES[FULL])
    found = {"rope_parameters": given.get(kind), name: base}
    found["max_position_embeddings"] = config.get("max_position_embeddings", 8192)
    arguments, fraction = read_rope(found, name)
    if fraction != 1:
        raise ValueError(
            f"rope_parameters: partial_rotary_factor={fraction} is not supported; only 1 is."
        )
    return {name: arguments[f"config.{name}"] for name in ("rotary_base", "rotary_scaling")}


def layer_kinds(config: dict[str, Any], most: int) -> list[str]:
    """What each layer sees, all or its neighbourhood; version 4 says how often it sees all.

    Args:
        most: a depth over it is refused later on, and no list made so long.

    Raises:
        ValueError: other kinds, or fewer or more of them than layers.
    """
    depth, kinds = config["num_hidden_layers"], config.get("layer_types")
    if kinds is None:
        every = config.get(EVERY, 3)
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"{EVERY}={every!r} must be a whole number above 0.")
        return every_so_often(every, min(depth, most))
    if not isinstance(kinds, list) or len(kinds) != depth:
        raise ValueError(f"layer_types={kinds!r} must have a name for each of {depth} layers.")
    for kind in kinds:
        if kind not in BASES:
            known = ", ".join(BASES)
            raise ValueError(f"layer_types: {kind!r} is not supported; known are {known}.")
    return kinds


def every_so_often(every: int, depth: int) -> list[str]:
    return [SLIDING if i % every else FULL for i in range(depth)]


def fields(model: BERT, config: dict[str, Any]) -> dict[str, Any]:
    """Layers in the words of both versions, where version 4 has words for them."""
    classes, masked = bool(model.num_classes), model.masked_head is not None
    if classes and masked:
        raise ValueError("format='modernbert' has masked tokens or classes, not both.")
    kind = KINDS.get(model.pooling, "ForSequenceClassification")
    head = kind if classes else "ForMaskedLM" if masked else "Model"
    depth = model.config.depth
    layers = [model.config.at(i) for i in range(depth)]
    kinds = [FULL if layer.window is None else SLIDING for layer in layers]
    near = next((layer for layer in layers if layer.window is not None), None)
    written: dict[str, Any] = {
        "layer_types": kinds,
        # Null, which version 4 stumbles over, where it would otherwise take its default.
        EVERY: next((n for n in range(1, depth + 1) if kinds == every_so_often(n, depth)), None),
        "rope_parameters": {},
        LOCAL: 128 if near is None or near.window is None else 2 * (near.window - 1),
    }
    for kind, layer in ((FULL, model.config), (SLIDING, near)):
        name, usual = BASES[kind]
        stack = layer or model.config.replace(rotary_base=usual, rotary_scaling=None)
        found = write_rope(stack, name)
        written[name] = found[name]
        written["rope_parameters"][kind] = found["rope_parameters"]
    return {
        "architectures": [f"ModernBert{head}"],
        **({"classifier_pooling": "cls"} if of_tokens(model) else {}),
        **written,
        **token_ids(model),
        **label_fields(model, model.num_classes),
    }


FORMAT = Format(
    name="modernbert",
    member=BERT,
    model_types=("modernbert",),
    architectures=(
        "ModernBertModel",
        "ModernBertForMaskedLM",
        "ModernBertForSequenceClassification",
        "ModernBertForTokenClassification",
        "ModernBertForQuestionAnswering",
    ),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("embedding_dim", "hidden_size"),
        Field("config.dim", "hidden_size"),
        Field("config.depth", "num_hidden_layers"),
        Field("config.heads", "num_attention_heads"),
        Field("config.ffn_dim", "intermediate_size"),
        Field("config.max_tokens", "max_position_embeddings", 8192),
        Field("config.activation", "hidden_activation", "gelu", ACTIVATIONS),
        Field("config.norm_eps", "norm_eps", 1e-5),
        Field("config.norm_bias", "norm_bias", False),
        Field("config.bias", "mlp_bias", False),
        Field("config.qkv_bias", "attention_bias", False),
        Field("config.out_bias", "attention_bias", False),
        Field("config.attention_dropout", "attention_dropout", 0.0),
        Field("config.ffn_dropout", "mlp_dropout", 0.0),
        Field("masked_activation", "classifier_activation", "gelu", ACTIVATIONS),
        Field("dense_bias", "classifier_bias", False),
        Field("pooling", "classifier_pooling", "cls", POOLINGS),
        Field("head_dropout", "classifier_dropout", 0.0),
    ),
    constants={
        "config.norm_order": "pre",
        "config.gated": True,
        "config.position": "rotary",
        "token_types": 0,
    },
    fixed={"rope_scaling": None, "sliding_window": None},
    prefix="model.",
    names={
        "embedding.tokens": "model.embeddings.tok_embeddings",
        "embedding.norm": "model.embeddings.norm",
        "transformer.norm": "model.final_norm",
        **blocks("transformer", "model.layers.{}", BLOCK),
        "masked_head.dense": "head.dense",
        "masked_head.norm": "head.norm",
        "masked_head.output": "decoder",
        "pooler.dense": "head.dense",
        "pooler.norm": "head.norm",
        "class_head": "classifier",
    },
    new_classes=NEW_HEAD,
    new_heads={"Tagging": NEW_HEAD, "QuestionAnswering": NEW_HEAD},
    detect=detect,
    finish=fields,
)
