"""Optimizers and schedules do what their papers say, and resume to the bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import family
from tasks.errors import UserError
from tasks.optim import (
    build_optimizer,
    build_schedule,
    orthogonalise,
    parameter_groups,
    schedule_factor,
)


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
