"""Optimizers and schedules do what their papers say, and resume to the bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import family
from tasks.errors import UserError
from tasks.training.optim import build_optimizer, orthogonalise, parameter_groups
from tasks.training.schedules import build_schedule, schedule_factor


def tiny():
    torch.manual_seed(0)
    return family.gpt_nano(20, dim=16, depth=2, heads=2, max_tokens=8, bias=True)


def test_every_parameter_is_in_one_group_and_only_matrices_decay():
    model = tiny()
    decay, plain = parameter_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {names[id(p)] for p in decay["params"]}
    kept = {names[id(p)] for p in plain["params"]}
    assert decayed | kept == set(names.values())
    assert not decayed & kept
    assert all(
        name.endswith(("qkv.weight", "out.weight", "up.weight", "down.weight")) for name in decayed
    )


VIT = {"dim": 16, "depth": 2, "heads": 2}


def rates(optimizer, model):
    """The learning rate of each parameter, by name."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


@pytest.mark.parametrize("name", ["adamw", "muon", "lamb"])
def test_layers_learn_at_their_own_rates_through_the_whole_schedule(name):
    model = family.vit_tiny(3, patch_size=4, image_size=8, **VIT)
    optimizer = build_optimizer(name, model, lr=1e-2, weight_decay=0.1, layer_decay=0.5)
    schedule = build_schedule("cosine", optimizer, 2, 10)
    layers = {"embedding": 0, "transformer.blocks.0": 1, "transformer.blocks.1": 2}
    for step in range(4):
        factor = schedule_factor("cosine", step, 2, 10)
        for parameter, rate in rates(optimizer, model).items():
            layer = next((n for start, n in layers.items() if parameter.startswith(start)), 3)
            assert math.isclose(rate, 1e-2 * 0.5 ** (3 - layer) * factor), parameter
        optimizer.step()
        schedule.step()
    assert len(rates(optimizer, model)) == len(list(model.parameters()))
    decays = {g["weight_decay"] for g in optimizer.param_groups}
    assert decays == {0.0, 0.1}


def test_each_stack_counts_its_own_layers():
    model = family.transformer_tiny(20, target_vocab_size=30, **VIT, decoder_depth=3)
    at = rates(build_optimizer("adamw", model, lr=1.0, layer_decay=0.5), model)
    assert at["source_embedding.tokens.weight"] == 0.5**3
    assert at["target_embedding.tokens.weight"] == 0.5**4
    assert at["encoder.blocks.1.feedforward.sublayer.up.weight"] == 0.5
    assert at["encoder.blocks.0.self_attention.sublayer.qkv.weight"] == 0.5**2
    assert at["decoder.blocks.0.cross_attention.sublayer.query.weight"] == 0.5**3
    assert at["decoder.blocks.2.feedforward.norm.weight"] == 0.5
    shared = family.transformer_tiny(20, **VIT)
    at = rates(build_optimizer("adamw", shared, lr=1.0, layer_decay=0.5), shared)
    assert at["source_embedding.tokens.weight"] == 0.5**3
    clip = family.clip_small(20, **VIT, image_depth=1)
    at = rates(build_optimizer("adamw", clip, lr=1.0, layer_decay=0.5), clip)
    assert at["image.embedding.projection.weight"] == 0.5**2
    assert at["text.embedding.tokens.weight"] == 0.5**3
    assert at["logit_scale"] == at["image.head.weight"] == 1.0


def test_layer_decay_needs_layers():
    with pytest.raises(UserError, match="a Linear has none"):
        build_optimizer("adamw", torch.nn.Linear(2, 2), lr=1.0, layer_decay=0.5)


def test_frozen_parameters_are_in_no_group():
    model = tiny()
    model.embedding.requires_grad_(False)
    names = rates(build_optimizer("adamw", model, lr=1.0), model)
    assert names
    assert not [name for name in names if name.startswith("embedding")]


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 16, 40)))
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("name", ["adamw", "adam", "muon", "lion"])
def test_optimizers_train_and_resume_to_the_bit(name):
    ids = torch.randint(0, 20, (4, 9), generator=torch.Generator().manual_seed(0))

    def loss_of(model):
        return torch.nn.functional.cross_entropy(
            model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
        )

    def steps(model, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()

    model = tiny()
    optimizer = build_optimizer(name, model, lr=3e-3, weight_decay=0.1)
    before = loss_of(model)
    steps(model, optimizer, 5)
    other = tiny()
    other.load_state_dict(model.state_dict())
    resumed = build_optimizer(name, other, lr=3e-3, weight_decay=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, 5)
    steps(other, resumed, 5)
    assert loss_of(model) < before
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("cosine", 0, 0.1),
        ("cosine", 9, 1.0),
        ("cosine", 55, 0.55),
        ("cosine", 100, 0.1),
        ("linear", 55, 0.55),
        ("inverse_sqrt", 39, 0.5),
        ("wsd", 80, 1.0),
        ("wsd", 91, 0.55),
        ("constant", 90, 1.0),
    ],
)
def test_schedules(name, step, expected):
    assert math.isclose(schedule_factor(name, step, 10, 100, 0.1), expected, abs_tol=1e-9)


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(UserError, match="adamw"):
        build_optimizer("adamww", tiny(), lr=1e-3)
    optimizer = build_optimizer("adamw", tiny(), lr=1e-3)
    with pytest.raises(UserError, match="cosine"):
        build_schedule("cosin", optimizer, 1, 10)


def test_muon_steps_the_parts_of_a_fused_projection_one_by_one():
    """And those of a copied model too: it is the layer that knows its parts, not the tensor."""
    model = copy.deepcopy(tiny())
    fused = model.transformer.blocks[0].self_attention.sublayer.qkv.weight
    before = fused.detach().clone()
    optimizer = build_optimizer("muon", model, 1.0)
    model(torch.randint(0, 20, (2, 8))).logsumexp(-1).sum().backward()
    optimizer.step()
    for part in (before - fused.detach()).chunk(3):
        values = torch.linalg.svdvals(part / (0.2 * math.sqrt(16)))
        # of three parts in one, some would be far smaller
        assert values.max() < 1.3 and values.median() > 0.6


def test_fused_parts_start_one_by_one():
    config = family.TransformerConfig(dim=64, depth=1, heads=2, init_std=None)
    fused = family.Transformer(config).blocks[0].self_attention.sublayer.qkv.weight
    assert float(fused.detach().abs().max()) == pytest.approx(
        math.sqrt(6 / 128), rel=0.01
    )  # of 64 x 64
