"""What a step would hold is what it holds, as PyTorch's profiler counts it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tasks.cli import main
from tasks.cli.configs import find_config
from tasks.commands.plan import advice
from tasks.compare.capacity import shares
from tasks.compare.footprint import Footprint, footprint, task_and_batch
from tasks.training.optim import build_optimizer

CONFIG = "--model.model.init_args.config."
CASES = {
    "gpt/shapes": ["--data.batch_size=4"],
    "translation/shapes": ["--data.examples=300", "--data.tokens_per_batch=1024"],
    "image_classification/shapes": ["--data.examples=100", "--data.batch_size=8"],
    "detection/shapes": ["--data.examples=60", "--data.batch_size=4"],  # asks for its numbers
}


def held(config: str, options: list[str]) -> int:
    """The most bytes that a real step holds, by the profiler's events."""
    task, batch = task_and_batch(config, options, None)
    task.configure_model()
    task.learner.train()
    rest = (task.lr, task.weight_decay, task.betas, True, task.layer_decay)
    optimizer = build_optimizer(task.optimizer_name, task.learner, *rest)

    def step() -> None:
        task.loss(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    states = [v for s in optimizer.state.values() for v in s.values()]
    kept = [*task.learner.parameters(), *task.learner.buffers(), *states, *batch.values()]
    before = sum(t.numel() * t.element_size() for t in kept if isinstance(t, torch.Tensor))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return before + most


@pytest.mark.parametrize("config", CASES)
def test_the_peak_is_that_of_a_real_step(config):
    path = str(find_config(config))
    found = footprint(path, CASES[config])
    assert found is not None
    assert found.peak == pytest.approx(held(path, CASES[config]), rel=0.1)


def test_checkpointing_holds_less_and_computes_more():
    path = str(find_config("gpt/shapes"))
    kept, again = (footprint(path, [], way) for way in (False, True))
    assert kept is not None and again is not None
    assert again.activations < kept.activations / 2
    assert again.flops > 1.2 * kept.flops
    assert (again.weights, again.optimizer) == (kept.weights, kept.optimizer)


@pytest.mark.slow
def test_a_model_that_few_memories_would_hold():
    big = ["dim=8192", "depth=20", "heads=64"]
    path = str(find_config("gpt/shapes"))
    found = footprint(path, [*CASES["gpt/shapes"], *(CONFIG + one for one in big)])
    assert found is not None
    assert found.parameters > 5e9 and found.weights == pytest.approx(4 * found.parameters, rel=0.01)


STEP = Footprint(100, 100, 400, 400, 400, 800, 1000, 2200, 40, 80, 1e12, 8, 64)


def test_shares_of_processes():
    alone = shares(STEP, 1, False)
    assert [s.strategy for s in alone] == ["one process"] and alone[0].peak == 2600
    ddp, fsdp = shares(STEP, 4, False, rate=1e12, bandwidth=600.0)
    assert ddp.peak == 400 + 800 + 800 + 1000 and ddp.sent == 600 and ddp.sending == 1.0
    assert fsdp.weights == 100 + 160 and fsdp.optimizer == 200 and fsdp.seconds == 1.0
    assert fsdp.sent == (400 + 320 + 400) * 0.75
    more = shares(replace(STEP), 64, False)[1]
    assert more.peak < fsdp.peak < ddp.peak


def test_the_command(capsys):
    given = ["plan", "--config=gpt/shapes", *CASES["gpt/shapes"], "--gpus=8", "--tflops=100"]
    main([*given, "--memory=0.02"])
    shown = capsys.readouterr().out
    assert "too large" in shown and "Take --trainer.strategy fsdp2." in shown


def test_what_to_do_where_nothing_fits():
    row = {"peak": 2.0 * 2**30, "strategy": "ddp", "checkpointing": True}
    assert advice({"choice": None, "ways": [row]}, 1).startswith(
        "Nothing fits 1 GiB, the least is 2 GiB"
    )
    chosen = advice({"choice": 0, "gpus": 2, "ways": [row]}, 4)
    assert "strategy ddp and activation_checkpointing: true" in chosen


def test_it_refuses_no_devices(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--config=gpt/shapes", "--gpus=0"])
    assert "--gpus must be above 0, not 0." in capsys.readouterr().err
