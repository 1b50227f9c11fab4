"""A mixture of experts: what it computes, its balance, its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import family
from family import Transformer, TransformerConfig
from family.core.experts import Experts
from family.losses.balance import balance_loss

CONFIG = TransformerConfig(
    dim=16, depth=2, heads=4, ffn_dim=24, feedforward="experts", experts=5, gated=True, bias=False
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def token_by_token(layer, x):
    """Section 2.1 of Mixtral's paper, one token at a time."""
    result = torch.zeros_like(x)
    for row, tokens in enumerate(x):
        for column, token in enumerate(tokens):
            chances = layer.router(token).softmax(-1)
            best = chances.topk(layer.count)
            total = best.values.sum() if layer.normalize else 1.0
            for chance, expert in zip(best.values, best.indices, strict=True):
                answer = layer.experts[int(expert)](token)
                result[row, column] = result[row, column] + chance / total * answer
            if layer.shared is not None:
                result[row, column] = result[row, column] + layer.shared(token)
    return result


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "fields", [{}, {"normalize_routing": False}, {"shared_experts": 2}, {"gated": False}]
)
def test_grouped_as_token_by_token(count, fields):
    layer = randomised(Experts(CONFIG.replace(experts_per_token=count, **fields))).double()
    x = torch.randn(2, 7, 16).double()
    results = []
    for compute in (layer, lambda x: token_by_token(layer, x)):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        output = compute(leaf)
        output.square().sum().backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in layer.parameters()]
        results.append([output, leaf.grad, *gradients])
    torch.testing.assert_close(*results)


def test_shared_experts_are_one_wider_one():
    layer = Experts(CONFIG.replace(shared_experts=3))
    assert layer.shared.down.in_features == 3 * 24


def test_each_token_by_itself():
    """Neither neighbours nor their number change a token's answer."""
    layer = randomised(Experts(CONFIG)).eval()
    x = torch.randn(3, 7, 16)
    torch.testing.assert_close(layer(x)[1:2, 2:3], layer(x[1:2, 2:3]))
    assert layer(x[:, :0]).shape == (3, 0, 16)


def test_every_parameter_gets_a_gradient_though_nothing_chose_it():
    """Processes that share out gradients wait for each one."""
    stack = Transformer(CONFIG)
    stack(torch.randn(1, 1, 16)).sum().backward()
    assert all(p.grad is not None for p in stack.parameters())


def test_balance_of_one_layer_by_hand():
    layer = Experts(CONFIG.replace(experts=2, experts_per_token=1)).train()
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[0, 0] = 1.0
    x = torch.zeros(1, 4, 16)
    x[0, :3, 0], x[0, 3, 0] = 2.0, -2.0
    layer(x)
    chance = torch.tensor(2.0).sigmoid()  # softmax of (2, 0)
    mean = (3 * chance + (1 - chance)) / 4
    loss, largest = balance_loss(layer)
    torch.testing.assert_close(loss, 2 * (0.75 * mean + 0.25 * (1 - mean)))
    assert largest == 1.5  # three quarters of the tokens, where half would be even
    mask = torch.tensor([[True, True, False, True]])
    masked, largest = balance_loss(layer, mask)
    mean = (2 * chance + (1 - chance)) / 3
    torch.testing.assert_close(masked, 2 * (2 / 3 * mean + 1 / 3 * (1 - mean)))
    torch.testing.assert_close(largest, torch.tensor(4 / 3))


def test_balance_is_what_even_use_gives_and_has_gradients():
    stack = Transformer(CONFIG.replace(experts_per_token=2)).train()
    stack(torch.randn(4, 50, 16))
    loss, largest = balance_loss(stack)
    assert 1.9 < loss < 3 and 1 <= largest < 3
    loss.backward()
    routers = [b.feedforward.sublayer.router.weight.grad for b in stack.blocks]
    assert all(g is not None and g.abs().max() > 0 for g in routers)
    assert balance_loss(Transformer(CONFIG.replace(feedforward="dense"))) is None


def test_balance_loss_takes_from_the_expert_that_gets_most():
    layer = Experts(CONFIG.replace(experts=3, experts_per_token=1)).train()
    x = torch.randn(1, 60, 16).abs()
    with torch.no_grad():
        layer.router.weight.mul_(0.01)
        layer.router.weight[1] += 0.1
    layer(x)
    loss, largest = balance_loss(layer)
    loss.backward()
    assert largest == 3
    # Along the steepest descent the scores of expert 1 fall, those of the others rise.
    change = (-layer.router.weight.grad @ x[0].T).mean(1)
    assert change[1] < 0 < min(change[0], change[2])


def test_half_precision_routes_in_float32():
    layer = randomised(Experts(CONFIG)).bfloat16().train()
    assert layer(torch.randn(2, 3, 16).bfloat16()).dtype == torch.bfloat16
    assert layer.routing.probabilities.dtype == torch.float32
    layer = randomised(Experts(CONFIG))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(torch.randn(2, 3, 16)).float().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_copies_hold_no_routing_and_a_compiled_step_breaks_nowhere():
    torch._dynamo.reset()
    stack = Transformer(CONFIG)
    x = torch.randn(2, 7, 16)
    expected = stack(x)
    assert copy.deepcopy(stack).blocks[0].feedforward.sublayer.routing is None
    compiled = torch.compile(stack, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), expected)


@torch.no_grad()
def test_a_mixture_decodes_as_it_reads():
    config = CONFIG.replace(causal=True, position="rotary", layers=({"feedforward": "dense"}, {}))
    model = family.GPT(31, config).eval()
    ids = torch.randint(0, 31, (2, 5))
    step, cache = model.prefill(ids, capacity=6)
    for _ in range(6):
        torch.testing.assert_close(step, model(ids)[:, -1])
        token = step.argmax(-1)
        ids = torch.cat([ids, token[:, None]], 1)
        step = model.decode(token, cache)
