"""Copy the weights of transformers' models into ours; biases and norms are drawn away from 0 and 1."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import family


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter at random: a bias of 0 or a norm of 1 would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.dim() == 1 else 0.5 * parameter.shape[-1] ** -0.5
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            norm = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(noise * spread + norm)


def gradients(theirs: nn.Module) -> dict[str, Tensor]:
    """The gradients of a published model under our names, by the way that its weights take."""
    carrier = copy.deepcopy(theirs)
    for parameter, original in zip(carrier.parameters(), theirs.parameters(), strict=True):
        gradient = original.grad
        parameter.data = torch.zeros_like(original) if gradient is None else gradient
    return dict(family.from_pretrained(carrier).named_parameters())


def load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Strictly: every weight has its place, and every place its weight."""
    model.load_state_dict(weights, strict=True)


def gpt2_weights(theirs: nn.Module) -> dict[str, Tensor]:
    state = theirs.state_dict()
    ours = {
        "embedding.tokens.weight": state["transformer.wte.weight"],
        "embedding.position.weight": state["transformer.wpe.weight"],
        "transformer.norm.weight": state["transformer.ln_f.weight"],
        "transformer.norm.bias": state["transformer.ln_f.bias"],
        "head.weight": state["lm_head.weight"],
    }
    names = {
        "self_attention.norm": ("ln_1", False),
        "self_attention.sublayer.qkv": ("attn.c_attn", True),
        "self_attention.sublayer.out": ("attn.c_proj", True),
        "feedforward.norm": ("ln_2", False),
        "feedforward.sublayer.up": ("mlp.c_fc", True),
        "feedforward.sublayer.down": ("mlp.c_proj", True),
    }
    for i in range(theirs.config.n_layer):
        for our_name, (their_name, transposed) in names.items():
            for kind in ("weight", "bias"):
                value = state[f"transformer.h.{i}.{their_name}.{kind}"]
                # GPT-2 stores its linear layers as (in, out).
                value = value.T if transposed and kind == "weight" else value
                ours[f"transformer.blocks.{i}.{our_name}.{kind}"] = value
    return ours


def llama_weights(theirs: nn.Module) -> dict[str, Tensor]:
    state = theirs.state_dict()
    ours = {
        "embedding.tokens.weight": state["model.embed_tokens.weight"],
        "transformer.norm.weight": state["model.norm.weight"],
        "head.weight": state["lm_head.weight"],
    }
    names = {
        "self_attention.norm": ["input_layernorm"],
        "self_attention.sublayer.qkv": [f"self_attn.{n}_proj" for n in "qkv"],
        "self_attention.sublayer.out": ["self_attn.o_proj"],
        "feedforward.norm": ["post_attention_layernorm"],
        "feedforward.sublayer.up": ["mlp.gate_proj", "mlp.up_proj"],
        "feedforward.sublayer.down": ["mlp.down_proj"],
    }
    for i in range(theirs.config.num_hidden_layers):
        for our_name, parts in names.items():
            values = [state[f"model.layers.{i}.{part}.weight"] for part in parts]
            ours[f"transformer.blocks.{i}.{our_name}.weight"] = torch.cat(values)
    return ours


def marian_weights(theirs: nn.Module, ours: nn.Module) -> dict[str, Tensor]:
    state = theirs.state_dict()
    shared = state["model.shared.weight"]
    weights = {
        name: shared
        for name in (
            "source_embedding.tokens.weight",
            "target_embedding.tokens.weight",
            "head.weight",
        )
    }
    weights["head.bias"] = state["final_logits_bias"][0]
    names = {
        "self_attention.norm": ["self_attn_layer_norm"],
        "self_attention.sublayer.qkv": [f"self_attn.{n}_proj" for n in "qkv"],
        "self_attention.sublayer.out": ["self_attn.out_proj"],
        "feedforward.norm": ["final_layer_norm"],
        "feedforward.sublayer.up": ["fc1"],
        "feedforward.sublayer.down": ["fc2"],
    }
    cross = {
        "cross_attention.norm": ["encoder_attn_layer_norm"],
        "cross_attention.sublayer.query": ["encoder_attn.q_proj"],
        "cross_attention.sublayer.key_value": [f"encoder_attn.{n}_proj" for n in "kv"],
        "cross_attention.sublayer.out": ["encoder_attn.out_proj"],
    }
    for stack, table in (("encoder", names), ("decoder", names | cross)):
        for i in range(len(getattr(ours, stack).blocks)):
            for our_name, parts in table.items():
                for kind in ("weight", "bias"):
                    values = [state[f"model.{stack}.layers.{i}.{part}.{kind}"] for part in parts]
                    weights[f"{stack}.blocks.{i}.{our_name}.{kind}"] = torch.cat(values)
    return weights


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Largest difference, relative to the largest value of the reference."""
    assert ours.shape == theirs.shape
    worst = float((ours - theirs).abs().max().detach() / theirs.abs().max().detach())
    assert worst <= tolerance, f"relative difference {worst:.1e} over {tolerance:.0e}"
