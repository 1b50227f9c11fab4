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
from family.models.member import build, is_member
from tasks.errors import UserError
from tasks.training.optim import build_optimizer, check_matrices, keep_options

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


def stepped_by_muon(model):
    names = {id(p): name for name, p in model.named_parameters()}
    groups = build_optimizer("muon", model, RATE).param_groups
    return {names[id(p)] for group in groups if group["muon"] for p in group["params"]}


def members():
    found = (getattr(family, name) for name in dir(family))
    return sorted({one for one in found if is_member(one)}, key=lambda one: one.__name__)


@pytest.mark.parametrize("cls", members(), ids=lambda cls: cls.__name__)
def test_of_each_member_muon_steps_the_blocks_alone(cls):
    """Not its tables, what feeds a stack, what reads it, nor a weight that its classes decide."""
    model = build(cls, cls.facts.example)
    stacks = [name for name, m in model.named_modules() if isinstance(m, family.Transformer)]
    found = stepped_by_muon(model)
    assert not [name for name in found if name.startswith(cls.facts.classes)]
    if stacks:
        inside = tuple(f"{stack}.blocks." for stack in stacks)
        expected = {
            name
            for name, p in model.named_parameters()
            if name.startswith(inside) and name.endswith(".weight") and p.dim() == 2
        }
        tables = {n for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
        assert found == {name for name in expected if name.rpartition(".")[0] not in tables}
    else:
        ends = ("fc", "head", "cls_score", "bbox_pred", "classifier")
        assert not [name for name in found if name.split(".")[-2] in ends]


class Own(nn.Module):
    """A model of one's own: the names say nothing."""

    def __init__(self, *between):
        super().__init__()
        self.a = nn.Embedding(7, 8)
        self.place = nn.Parameter(torch.zeros(4, 8))
        self.b = nn.Linear(8, 8)
        self.between = between[0] if len(between) == 1 else nn.Sequential(*between)
        self.c, self.d = nn.Linear(8, 3), nn.Linear(8, 4)


def test_of_a_model_of_ones_own_muon_steps_what_lies_in_blocks():
    layers = [nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2)]
    for blocks in (nn.ModuleList(layers), nn.Sequential(*layers)):
        found = stepped_by_muon(Own(blocks))
        assert {name.rsplit(".", 2)[-2] for name in found} == {
            *("self_attn", "out_proj", "linear1", "linear2")
        }
    assert stepped_by_muon(Own(nn.LSTM(8, 8))) >= {"between.weight_hh_l0", "between.weight_ih_l0"}
    plain = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    assert stepped_by_muon(plain) == {"1.weight"}


def test_a_state_of_another_division_is_refused():
    model = build(family.CLIP, family.CLIP.facts.example)
    now = build_optimizer("muon", model, RATE)
    before = now.state_dict()
    first, *_, last = before["param_groups"]
    first["params"].append(last["params"].pop())
    with pytest.raises(UserError, match="stepped other weights by Muon"):
        keep_options(now).load_state_dict(before)
