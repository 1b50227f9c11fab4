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
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.distributed.device_mesh import init_device_mesh

import family
from family.sharding import shard, whole
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


def test_models_that_share_weights_cannot_be_shared_out():
    first, second = (family.gpt_nano(31, dim=16, depth=1, heads=2) for _ in range(2))
    second.embedding = first.embedding
    both = torch.nn.ModuleDict({"model": first, "generator": second})
    with pytest.raises(UserError, match="a GPT and a GPT share weights, which would come apart"):
        FSDP2().share_out(both)


class Otherwise(EMAWeightAveraging):
    """An average that exchanges whole weights in a way of its own."""

    def on_validation_epoch_start(self, trainer, pl_module):
        pass


def test_an_average_of_its_own_way_is_refused(tmp_path, capsys, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "0")  # so that what Lightning leaves there is taken away
        monkeypatch.delenv(name)
    average = f"--trainer.callbacks={__name__}.Otherwise"
    with pytest.raises(SystemExit):
        main([*FIT, *TEXT, "--trainer.strategy=fsdp2", average, f"--run_folder={tmp_path}/run"])
    assert "Otherwise exchanges whole ones with its average" in capsys.readouterr().err


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


def shared(count: int, strategy: str = "fsdp2") -> list[str]:
    return [f"--trainer.devices={count}", f"--trainer.strategy={strategy}"]


EMA = ["--trainer.callbacks=pytorch_lightning.callbacks.EMAWeightAveraging"]
EMA += ["--trainer.callbacks.decay=0.5"]
ALIKE = {
    # 4 x 4 rows a step, by one process after another or by several at once.
    "muon": [],
    "adamw": ["--model.optimizer=adamw"],
    "clipped": ["--model.optimizer=adamw", "--trainer.gradient_clip_val=0.1"],
    "checkpointed": ["--model.model.init_args.config.activation_checkpointing=true"],
    "averaged": [*EMA, "--model.optimizer=adamw"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALIKE)
def test_losses_are_those_of_one_process(tmp_path, kind):
    options = [*TEXT, *ALIKE[kind], "--trainer.max_steps=6", "--data.batch_size=4"]
    alone = run(tmp_path / "one", *options, parts=4)
    two = run(tmp_path / "two", *options, *shared(2), parts=2)
    four = run(tmp_path / "four", *options, *shared(4))
    whole = run(tmp_path / "whole", *options, *shared(4, "ddp"))
    assert len(alone) == 3
    assert whole == pytest.approx(alone, rel=2e-5)
    assert two == pytest.approx(alone, rel=2e-5)
    assert four == pytest.approx(alone, rel=2e-5)


def states(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint, those that are averaged beside those of training, and how often they were."""
    found = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    kinds = ("state_dict", "current_model_state", "averaging_state")
    assert "EMAWeightAveraging" in found["callbacks"]
    return {f"{kind} {name}": value for kind in kinds for name, value in found[kind].items()}


PAIRS = ["--config=image_text/shapes", "--data.examples=120", "--data.image_size=[16,16]"]
PAIRS += [
    f"--model.model.init_args.{tower}.{field}"
    for tower in ("image", "text")
    for field in ("dim=16", "depth=1", "heads=2", "ffn_dim=32")
]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_single_numbers_and_averages_are_those_of_one_process(tmp_path, optimizer):
    """A CLIP has the scale of its logits; all rows are told from each other, in one process or in two."""
    options = [*PAIRS, *EMA, f"--model.optimizer={optimizer}", "--trainer.max_steps=4"]
    options += ["--trainer.gradient_clip_val=0.1"]
    run(tmp_path / "one", *options, "--data.batch_size=16")
    run(tmp_path / "two", *options, *shared(2), "--data.batch_size=8")
    alone, two = states(tmp_path / "one"), states(tmp_path / "two")
    assert alone.keys() == two.keys() and "state_dict model.logit_scale" in two
    for name, value in alone.items():
        assert (two[name].dtype, two[name].shape) == (value.dtype, value.shape)
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    changed = "model.logit_scale", "model.text.embedding.tokens.weight"
    for name in changed:  # by training, and averages of what it was before
        assert not torch.equal(two[f"state_dict {name}"], two[f"current_model_state {name}"])


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], EMA], ids=["plain", "averaged"])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, more):
    options, six = [*TEXT, *more, "--data.batch_size=4"], "--trainer.max_steps=6"
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
