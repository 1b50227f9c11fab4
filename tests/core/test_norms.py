"""Norm orders and conditions of a branch; norms, caps and biases of queries and keys."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from family import Attention, Block, Shared, Transformer, TransformerConfig

SMALL = {"dim": 16, "depth": 4, "heads": 4, "causal": True}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


# --- Norm orders and conditions ---


@pytest.mark.parametrize("order", ["pre", "post", "sandwich", "branch"])
def test_norm_orders_written_out(order):
    block = randomised(Block(TransformerConfig(dim=16, heads=4, norm_order=order)))
    x = expected = torch.randn(2, 5, 16)
    for part in (block.self_attention, block.feedforward):
        if order == "pre":
            expected = expected + part.sublayer(part.norm(expected))
        elif order == "post":
            expected = part.norm(expected + part.sublayer(expected))
        elif order == "sandwich":
            expected = expected + part.branch_norm(part.sublayer(part.norm(expected)))
        else:
            expected = expected + part.norm(part.sublayer(expected))
    torch.testing.assert_close(block(x), expected)
    assert Transformer(TransformerConfig(**SMALL, norm_order=order)).config.final_norm == (
        order != "post"
    )


def test_the_first_norm_may_be_left_out():
    block = randomised(Block(TransformerConfig(dim=16, heads=4, mixer_norm=False)))
    x = torch.randn(2, 5, 16)
    middle = x + block.self_attention.sublayer(x)
    torch.testing.assert_close(block(x), block.feedforward(middle))
    assert not list(block.self_attention.norm.parameters())


class DiTBlock(nn.Module):
    """Peebles & Xie 2023, figure 3, written anew from PyTorch's own parts."""

    def __init__(self, dim, heads, ffn_dim):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.up, self.down = nn.Linear(dim, ffn_dim), nn.Linear(ffn_dim, dim)
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, x, condition):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition))[
            :, None
        ].chunk(6, -1)
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(h, h, h, need_weights=False)[0]
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2
        return x + gate2 * self.down(F.gelu(self.up(h)))


def test_a_conditioned_block_is_that_of_dit():
    config = TransformerConfig(dim=16, heads=4, norm_eps=1e-6, condition_dim=16)
    ours, theirs = randomised(Block(config).double()), randomised(DiTBlock(16, 4, 64).double())
    attention, mlp = ours.self_attention, ours.feedforward
    pairs = {
        "attention.in_proj": attention.sublayer.qkv,
        "attention.out_proj": attention.sublayer.out,
        "up": mlp.sublayer.up,
        "down": mlp.sublayer.down,
    }
    state = {}
    for name, layer in pairs.items():
        dot = "_" if name.endswith("in_proj") else "."
        state |= {f"{name}{dot}{kind}": getattr(layer, kind) for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        both = [getattr(part.modulation, kind) for part in (attention, mlp)]
        state[f"modulation.{kind}"] = torch.cat(both)
    theirs.load_state_dict(state)
    x, condition = torch.randn(3, 5, 16).double(), torch.randn(3, 16).double()
    results = []
    for block, arguments in ((ours, (Shared(condition=condition),)), (theirs, (condition,))):
        leaf = x.clone().requires_grad_()
        output = block(leaf, *arguments)
        output.square().sum().backward()
        results.append((output, leaf.grad))
    torch.testing.assert_close(*results)
    each = Shared(condition=condition[:, None].expand(-1, 5, -1))
    torch.testing.assert_close(ours(x, each), results[0][0])


def test_a_conditioned_stack_begins_as_nothing_and_learns():
    stack = Transformer(TransformerConfig(**SMALL, condition_dim=8, final_norm=False))
    x, condition = torch.randn(2, 5, 16), torch.randn(2, 8)
    output = stack(x, condition=condition)
    assert torch.equal(output, x)  # gates of zero
    output.square().sum().backward()
    assert stack.blocks[0].self_attention.modulation.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match=r"condition_dim=8 needs a condition \(batch, 8\)"):
        stack(x)


# --- Norms of queries and keys, caps ---


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm", "offset_rmsnorm"])
@pytest.mark.parametrize("cross", [False, True])
def test_norms_of_queries_and_keys(norm, whole, cross):
    config = TransformerConfig(dim=16, heads=4, kv_heads=2, qk_norm=norm, qk_norm_whole=whole)
    attention = randomised(Attention(config, cross=cross))
    plain = Attention(config.replace(qk_norm=None), cross=cross)
    x, context = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    source = context if cross else x
    if cross:
        query = attention.query(x)
        key, value = attention.key_value(source).split([8, 8], -1)
    else:
        query, key, value = attention.qkv(x).split([16, 8, 8], -1)

    def heads(tensor, norm=None):
        if norm is not None and whole:
            tensor = norm(tensor)
        split = tensor.unflatten(-1, (-1, 4)).transpose(1, 2)
        return norm(split) if norm is not None and not whole else split

    query, key = heads(query, attention.query_norm), heads(key, attention.key_norm)
    key, value = key.repeat_interleave(2, 1), heads(value).repeat_interleave(2, 1)
    read = (query @ key.mT / 2).softmax(-1) @ value
    expected = attention.out(read.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, Shared(context=context)), expected)
    assert len(plain.state_dict()) < len(attention.state_dict())


def test_a_cap_on_scores():
    attention = randomised(Attention(TransformerConfig(dim=16, heads=4, score_cap=0.5)))
    x = torch.randn(2, 5, 16)
    query, key, value = (
        part.unflatten(-1, (4, 4)).transpose(1, 2) for part in attention.qkv(x).chunk(3, -1)
    )
    scores = 0.5 * torch.tanh(query @ key.mT / 2 / 0.5)
    expected = attention.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), expected)


def test_keys_without_biases():
    for cross in (False, True):
        config = TransformerConfig(dim=16, heads=4, key_bias=False)
        attention = randomised(Attention(config, cross=cross))
        full = Attention(config.replace(key_bias=True), cross=cross).eval()
        state = attention.state_dict()
        value = state.pop("value_bias")
        if cross:
            state["key_value.bias"] = torch.cat([torch.zeros(16), value])
        else:
            query = state.pop("query_bias")
            state["qkv.bias"] = torch.cat([query, torch.zeros(16), value])
        full.load_state_dict(state)
        x, position = torch.randn(2, 2, 5, 16)
        for shared in (Shared(context=x), Shared(context=x, query_position=position)):
            torch.testing.assert_close(attention(x, shared), full(x, shared))
