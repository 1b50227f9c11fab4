"""Weights shared out over processes: the losses of one process, decoding, checkpoints, other numbers of them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

import family
from family.sharding import is_shared_out, shard, whole
from tasks.cli import main
from tasks.errors import UserError
from tasks.training.sharding import FSDP2

ROOT = Path(__file__).parents[2]
FIT = [
    "fit",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.log_every_n_steps=1",
]
TINY = [
    f"--model.model.init_args.config.{field}"
    for field in ("dim=16", "depth=2", "heads=2", "ffn_dim=32")
]
TEXT = ["--config=gpt/shapes", *TINY, "--data.context=16"]


def computed(rank: int, folder: str) -> None:
    """One of two processes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    model, ids = family.gpt_nano(31, dim=16, depth=2, heads=2), torch.randint(0, 31, (2, 6))
    expected, made = model(ids), model.generate(ids, max_new_tokens=4)
    expected.logsumexp(-1).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    shard(model, init_device_mesh("cpu", (2,)))
    found = model(ids)
    found.logsumexp(-1).sum().backward()
    torch.testing.assert_close(found, expected)
    for name, parameter in model.named_parameters():
        assert parameter.to_local().numel() < gradients[name].numel(), name
        torch.testing.assert_close(parameter.grad.full_tensor(), gradients[name])
    # By methods that are nested, of which the inner one ends first.
    model.logits(model.features(ids)).logsumexp(-1).sum().backward()
    with whole(model):
        longer = model.generate(ids, max_new_tokens=4 + rank)  # nobody waits
    assert torch.equal(longer[:, :4], made)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_outputs_gradients_and_decoding_are_those_of_the_whole(tmp_path):
    mp.spawn(computed, (str(tmp_path),), 2)


def test_a_single_number_cannot_be_shared_out():
    model = family.clip_small(40, image_size=16)
    with pytest.raises(ValueError, match=r"single numbers \(logit_scale\), which cannot be shared"):
        shard(model, None)
    assert not is_shared_out(model)


def test_models_that_share_weights_cannot_be_shared_out():
    first, second = (family.gpt_nano(31, dim=16, depth=1, heads=2) for _ in range(2))
    second.embedding = first.embedding
    both = torch.nn.ModuleDict({"model": first, "generator": second})
    with pytest.raises(UserError, match="a GPT and a GPT share weights, which would come apart"):
        FSDP2().share_out(both)


def test_an_average_of_weights_is_refused(tmp_path, capsys):
    average = "--trainer.callbacks=pytorch_lightning.callbacks.EMAWeightAveraging"
    with pytest.raises(SystemExit):
        main([*FIT, *TEXT, "--trainer.strategy=fsdp2", average, f"--run_folder={tmp_path}/run"])
    assert "leave that callback out, or choose ddp." in capsys.readouterr().err


def test_the_name_is_a_class():
    from tasks.training.trainer import Trainer

    assert isinstance(Trainer(accelerator="cpu", strategy="fsdp2").strategy, FSDP2)
    assert issubclass(Trainer, pl.Trainer)


# --- Runs ---


def run(folder: Path, *options: str, parts: int = 1) -> list[float]:
    """Train in processes of their own, a step on so many batches of each; the losses of validations after
    each second step."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tasks.cli", *FIT, f"--run_folder={folder}", *options]
    command += [f"--trainer.accumulate_grad_batches={parts}"]
    command += [f"--trainer.val_check_interval={2 * parts}"]
    ended = subprocess.run(
        command, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    with (folder / "logs/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row["val/loss"]) for row in rows if row.get("val/loss")]


def shared(count: int) -> list[str]:
    return [f"--trainer.devices={count}", "--trainer.strategy=fsdp2"]


ALIKE = {
    # 4 x 4 rows a step, by one process after another or by several at once.
    "muon": [],
    "adamw": ["--model.optimizer=adamw"],
    "clipped": ["--model.optimizer=adamw", "--trainer.gradient_clip_val=0.1"],
    "checkpointed": ["--model.model.init_args.config.activation_checkpointing=true"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALIKE)
def test_losses_are_those_of_one_process(tmp_path, kind):
    options = [*TEXT, *ALIKE[kind], "--trainer.max_steps=6", "--data.batch_size=4"]
    alone = run(tmp_path / "one", *options, parts=4)
    two = run(tmp_path / "two", *options, *shared(2), parts=2)
    four = run(tmp_path / "four", *options, *shared(4))
    assert len(alone) == 3
    assert two == pytest.approx(alone, rel=2e-5)
    assert four == pytest.approx(alone, rel=2e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    options, six = [*TEXT, "--data.batch_size=4"], "--trainer.max_steps=6"
    alone = run(tmp_path / "one", *options, six, parts=4)
    some = run(tmp_path / "two", *options, *shared(2), "--trainer.max_steps=4", parts=2)
    last = tmp_path / "two/checkpoints/last.ckpt"
    more = [*options, six, f"--ckpt_path={last}"]
    rest = run(tmp_path / "four", *more, *shared(4))
    assert [*some, *rest] == pytest.approx(alone, rel=2e-5)
    assert run(tmp_path / "again", *more, parts=4) == pytest.approx(alone[2:], rel=2e-5)
    text = family.load(str(tmp_path / "two")).predict(["there is"], max_new_tokens=4)
    assert text and json.dumps(text)


@pytest.mark.slow
def test_adapters_of_a_frozen_model(tmp_path):
    talk = ["--config=chat_tuning/shapes", "--data.examples=120", "--trainer.max_steps=2"]
    run(tmp_path / "base", *talk, *TINY, "--data.vocab_size=300", "--data.batch_size=8")
    lora = [*talk, "--model.lora.rank=2", f"--model.pretrained={tmp_path}/base"]
    alone = run(tmp_path / "one", *lora, "--data.batch_size=8", parts=2)
    two = run(tmp_path / "two", *lora, *shared(2), "--data.batch_size=8")
    assert two == pytest.approx(alone, rel=2e-5)
