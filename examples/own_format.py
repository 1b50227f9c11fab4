"""StableLM (2024), a published format that the project does not ship, in one table.

python examples/own_format.py stabilityai/stablelm-2-1_6b FOLDER  # from the hub to our own layout
"""

import sys

import family
from family.pretrained import ACTIVATIONS, Field, Format, blocks, rope, token_ids


def detect(config, names):  # what a table cannot say: further arguments of ours, from their config
    found, fraction = rope.read_rope(config, fraction=config.get("partial_rotary_factor", 0.25))
    return {**found, "config.rotary_dim": rope.rotary_dim(config, fraction)}


def finish(model, config):  # the reverse
    fields, fraction = rope.write_rope(model.config), rope.turning_fraction(model.config)
    fields["rope_parameters"]["partial_rotary_factor"] = fraction
    return {**fields, "partial_rotary_factor": fraction, **token_ids(model)}


block = {  # our names of weights, theirs; several are joined row by row
    "self_attention.norm": "input_layernorm",
    "self_attention.sublayer.qkv": tuple(f"self_attn.{part}_proj" for part in "qkv"),
    "self_attention.sublayer.out": "self_attn.o_proj",
    "feedforward.norm": "post_attention_layernorm",
    "feedforward.sublayer.up": ("mlp.gate_proj", "mlp.up_proj"),
    "feedforward.sublayer.down": "mlp.down_proj",
}
outside = {"embedding.tokens": "model.embed_tokens", "transformer.norm": "model.norm"}
STABLELM = Format(
    name="stablelm",
    member=family.GPT,
    model_types=("stablelm",),
    architectures=("StableLmForCausalLM",),
    fields=(  # our argument, their field, what its absence means, their words for ours
        Field("vocab_size", "vocab_size"),
        Field("config.dim", "hidden_size"),
        Field("config.depth", "num_hidden_layers"),
        Field("config.heads", "num_attention_heads"),
        Field("config.kv_heads", "num_key_value_heads", 32),
        Field("config.ffn_dim", "intermediate_size"),
        Field("config.max_tokens", "max_position_embeddings", 4096),
        Field("config.activation", "hidden_act", "silu", ACTIVATIONS),
        Field("config.norm_eps", "layer_norm_eps", 1e-5),
        Field("config.qkv_bias", "use_qkv_bias", False),
        Field("tie_embeddings", "tie_word_embeddings", False),
    ),
    constants={"config.causal": True, "config.gated": True, "config.bias": False},
    fixed={"qk_layernorm": False, "use_parallel_residual": False},  # anything else is refused
    names={**outside, "head": "lm_head", **blocks("transformer", "model.layers.{}", block)},
    detect=detect,
    finish=finish,
)

if __name__ == "__main__":
    family.save_pretrained(family.from_pretrained(sys.argv[1], format=STABLELM), sys.argv[2])
