"""Residual paths of a block: parallel, and what acts on each branch."""

from __future__ import annotations

import pytest
import torch

from family import Block, Transformer, TransformerConfig
from family.core.mask import Shared

SMALL = {"dim": 16, "depth": 2, "heads": 4}
PARALLEL = TransformerConfig(**SMALL, parallel=True, layer_scale=0.5)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_parallel_branches_read_the_same_input():
    block = randomised(Block(PARALLEL))
    x = torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    attention, mlp = block.self_attention, block.feedforward
    expected = (
        x
        + attention.scale * attention.sublayer(attention.norm(x), Shared(mask=mask))
        + mlp.scale * mlp.sublayer(mlp.norm(x))
    )
    torch.testing.assert_close(block(x, Shared(mask=mask)), expected)


def test_parallel_has_the_weights_of_the_usual_block():
    usual = Transformer(PARALLEL.replace(parallel=False))
    usual.load_state_dict(Transformer(PARALLEL).state_dict(), strict=True)


@pytest.mark.parametrize("rate", ["dropout", "drop_path"])
def test_parallel_branches_are_dropped_each_on_its_own(rate):
    """Of four ways for two branches to be dropped, all come up."""
    block = randomised(Block(PARALLEL.replace(**{rate: 0.5})))
    x = torch.randn(1, 1, 16)
    attention, mlp = block.self_attention, block.feedforward
    with torch.no_grad():
        one = attention.scale * attention.sublayer(attention.norm(x))
        other = mlp.scale * mlp.sublayer(mlp.norm(x))
        seen = set()
        for _ in range(40):
            got = (block(x) - x)[0, 0, 0]
            for a in (0, 2):
                for b in (0, 2):
                    if torch.allclose(got, (a * one + b * other)[0, 0, 0], atol=1e-6):
                        seen.add((a, b))
    assert seen == {(0, 0), (0, 2), (2, 0), (2, 2)}


def test_parallel_decodes_with_a_cache():
    config = PARALLEL.replace(causal=True, position="rotary", rotary_dim=2)
    stack = randomised(Transformer(config)).eval()
    x, cache, parts = torch.randn(2, 7, 16), stack.new_cache(2, 7), []
    for chunk in x.split([4, 1, 2], dim=1):
        parts.append(stack(chunk, cache=cache))
        cache.advance(chunk.shape[1])
    torch.testing.assert_close(torch.cat(parts, 1), stack(x))
