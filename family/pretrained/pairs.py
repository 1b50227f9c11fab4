"""What published encoder-decoders share: two stacks, and one table of tokens or several."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from family.pretrained.shared_fields import ACTIVATIONS, BLOCK, CROSS
from family.pretrained.table import FIRST, POSITIONS, Field, Names, Row, blocks


def both(*fields: Field) -> tuple[Field, ...]:
    """Fields of the encoder's stack, named without it, and the same of the decoder's."""
    stacks = ("config", "decoder_config")
    return tuple(f._replace(ours=f"{stack}.{f.ours}") for f in fields for stack in stacks)


def constants(**values: Any) -> dict[str, Any]:
    """What both stacks always have, and what makes the second one a decoder."""
    decoder = {"causal": True, "cross_attention": True, **values}
    return {
        **{f"config.{name}": value for name, value in values.items()},
        **{f"decoder_config.{name}": value for name, value in decoder.items()},
    }


STACKS = (
    *both(Field("dim", "d_model"), Field("activation", "activation_function", "gelu", ACTIVATIONS)),
    Field("decoder_config.context_dim", "d_model"),
    Field("config.depth", "encoder_layers"),
    Field("decoder_config.depth", "decoder_layers"),
    Field("config.heads", "encoder_attention_heads"),
    Field("decoder_config.heads", "decoder_attention_heads"),
    Field("config.ffn_dim", "encoder_ffn_dim"),
    Field("decoder_config.ffn_dim", "decoder_ffn_dim"),
)
"""The sizes of BART's kind in transformers."""
TEXT = (
    Field("vocab_size", "vocab_size"),
    *STACKS,
    Field("decoder_depth", "decoder_layers"),
    *both(Field("max_tokens", "max_position_embeddings", 1024)),
    Field("tie_embeddings", "tie_word_embeddings", True),
)
"""Those of text on both sides."""
CODING = {"is_encoder_decoder": True, "is_decoder": False}
OLD = (r"\.version$",)
"""Names of numbers that fairseq's files have, and some that were made from them."""


def rates(dropout: float = 0.1, attention: float = 0.0) -> tuple[Field, ...]:
    """Dropout, by its usual rates."""
    return both(
        Field("dropout", "dropout", dropout),
        Field("attention_dropout", "attention_dropout", attention),
        Field("ffn_dropout", "activation_dropout", 0.0),
    )


def names(model: Any) -> Names:
    """The weights of BART's kind with text on both sides; each format has some of them."""
    source = Row(("model.shared",), copies=("model.encoder.embed_tokens",))
    if model.target_vocab_size is not None:  # a table of its own for each side
        source = Row(("model.encoder.embed_tokens",))
    return {
        "source_embedding.tokens": source,
        "source_embedding.position": Row(("model.encoder.embed_positions",), POSITIONS),
        "source_embedding.norm": "model.encoder.layernorm_embedding",
        "target_embedding.tokens": "model.decoder.embed_tokens",
        "target_embedding.position": Row(("model.decoder.embed_positions",), POSITIONS),
        "target_embedding.norm": "model.decoder.layernorm_embedding",
        "encoder.norm": "model.encoder.layer_norm",
        "decoder.norm": "model.decoder.layer_norm",
        "head": "lm_head",
        "head.bias": Row(("final_logits_bias",), FIRST),
        **blocks("encoder", "model.encoder.layers.{}", BLOCK),
        **blocks("decoder", "model.decoder.layers.{}", {**BLOCK, **CROSS}),
    }


def copies(model: Any) -> dict[str, Tensor]:
    """The other names of a table that both sides share, where the head has one of its own: their
    loader then takes nothing for shared."""
    if model.tie_embeddings or model.target_vocab_size is not None:
        return {}
    table = model.get_parameter("source_embedding.tokens.weight").detach()
    return {f"model.{side}.embed_tokens.weight": table.clone() for side in ("encoder", "decoder")}


def start(config: dict[str, Any], usual: int | None) -> int:
    """The token that decoding starts from, as their generation finds it.

    Raises:
        ValueError: there is none.
    """
    for name, default in (("decoder_start_token_id", usual), ("bos_token_id", 0)):
        found = config.get(name, default)
        if found is not None:
            return found
    raise ValueError("decoder_start_token_id and bos_token_id are null: decoding has no start.")
