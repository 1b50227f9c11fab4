"""Muon's step is the published one, of whole matrices: also where processes hold a part of each."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import family
from tasks.errors import UserError
from tasks.training.optim import build_optimizer, check_matrices

RATE, DECAY, STEPS = 0.02, 0.1, 3
SIZES = [(16, 16), (16, 40), (40, 16), (7, 12)]


def gradients():
    """The same for each step and matrix, wherever it is asked for."""
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.randn(rows, columns, generator=generator) for rows, columns in SIZES]
        for _ in range(STEPS)
    ]


def matrices():
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(columns, rows, bias=False) for rows, columns in SIZES)


def stepped(model, build):
    optimizer = build(model)
    for step in gradients():
        for layer, gradient in zip(model, step, strict=True):
            layer.weight.grad = gradient.clone()
        optimizer.step()
    return [layer.weight.detach() for layer in model]


def ours(model):
    return build_optimizer("muon", model, RATE, DECAY)


def test_a_step_is_that_of_the_paper():
    """Jordan et al. 2024, scaled as Liu et al. 2025 do, in double precision."""
    for i, (layer, found) in enumerate(zip(matrices(), stepped(matrices(), ours), strict=True)):
        weight, momentum = layer.weight.detach().double(), 0.0
        for step in gradients():
            gradient = step[i].double()
            momentum = 0.95 * momentum + 0.05 * gradient
            x = 0.05 * gradient + 0.95 * momentum
            x = x / x.norm()
            turned = x.shape[0] > x.shape[1]
            x = x.T if turned else x
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            x = x.T if turned else x
            weight = weight * (1 - RATE * DECAY) - RATE * 0.2 * math.sqrt(max(x.shape)) * x
        torch.testing.assert_close(found.double(), weight, rtol=0, atol=1e-5)


def test_a_step_is_that_of_torch():
    """As near as its bfloat16 comes: of each update a hundredth."""

    def theirs(model):
        options = {"adjust_lr_fn": "match_rms_adamw", "momentum": 0.95, "nesterov": True}
        return torch.optim.Muon(model.parameters(), RATE, weight_decay=DECAY, **options)

    before = [layer.weight.detach() for layer in matrices()]
    for start, one, other in zip(
        before, stepped(matrices(), ours), stepped(matrices(), theirs), strict=True
    ):
        assert (one - other).norm() < 0.02 * (one - start).norm()


# --- Two processes -----------------------------------------------------------------------------


def trained(model, sharded):
    """The weights after some steps on the same batch, whole."""
    optimizer = build_optimizer("muon", model, RATE, DECAY)
    held = [p for g in optimizer.param_groups for p in g["params"]]
    assert all(isinstance(p, DTensor) == sharded for p in held)
    ids = torch.randint(0, 20, (2, 8), generator=torch.Generator().manual_seed(2))
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(ids).logsumexp(-1).mean().backward()
        optimizer.step()
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in model.state_dict().items()
    }


def tiny():
    """Fused projections, and sides that two do not divide."""
    torch.manual_seed(0)
    return family.gpt_nano(20, dim=18, depth=2, heads=2, ffn_dim=37, max_tokens=8)


def one_process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh, model = init_device_mesh("cpu", (2,)), tiny()
    for block in model.transformer.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    torch.save(trained(model, sharded=True), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_that_share_each_matrix_step_as_one(tmp_path):
    torch.multiprocessing.spawn(one_process, (str(tmp_path),), nprocs=2)
    start, alone = tiny().state_dict(), trained(tiny(), sharded=False)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=2e-5)
            assert "weight" not in name or (value - start[name]).norm() > 0.01


def test_what_makes_no_matrices_of_weights_is_refused():
    for strategy in (DDPStrategy(), ModelParallelStrategy()):
        check_matrices(strategy)
    with pytest.raises(UserError, match=r"trainer.strategy=FSDPStrategy flattens"):
        check_matrices(FSDPStrategy())
