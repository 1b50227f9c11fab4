"""Two processes train as one: the same losses and weights, for a dense model and for a mixture."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import family
from family.losses.balance import balance_loss

FIELDS = {
    "dense": {},
    "experts": {"feedforward": "experts", "experts": 5, "layers": [{}, {"feedforward": "dense"}]},
}
STEPS, ROWS, TOKENS = 4, 6, 9


def model_of(name: str) -> family.GPT:
    torch.manual_seed(0)
    fields = {"dim": 16, "depth": 2, "heads": 2, "position": "rotary", **FIELDS[name]}
    return family.gpt_nano(31, **fields).double()


def train(model: torch.nn.Module, rows: slice) -> list[torch.Tensor]:
    """A few steps on a process's share of each batch; the losses."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for _ in range(STEPS):
        ids = torch.randint(0, 31, (ROWS, TOKENS), generator=generator)[rows]
        logits = model(ids)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        found = balance_loss(model)
        if found is not None:
            loss = loss + 0.1 * found[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for name in FIELDS:
        model = DistributedDataParallel(model_of(name))
        losses = train(model, slice(rank * ROWS // 2, (rank + 1) * ROWS // 2))
        results[name] = (torch.stack(losses), model.module.state_dict())
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    # Both are forks of one process, which has imported this module once.
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    two = {"nprocs": 2, "start_method": "forkserver"}
    torch.multiprocessing.start_processes(one_process, (folder,), **two)
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", list(FIELDS))
def test_two_processes_train_as_one(name, of_two_processes):
    model = model_of(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    losses = torch.stack(train(model, slice(None)))
    mean = sum(results[name][0] for results in of_two_processes) / 2
    torch.testing.assert_close(mean, losses, rtol=1e-10, atol=0)
    for results in of_two_processes:
        for key, value in model.state_dict().items():
            torch.testing.assert_close(results[name][1][key], value, rtol=1e-9, atol=1e-12)
    assert any(
        not torch.equal(before[k], v) for k, v in model.state_dict().items() if "router" in k
    ) == (name == "experts")
