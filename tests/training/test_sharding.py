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
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.distributed.device_mesh import init_device_mesh

import family
from family.sharding import shard, whole
from tasks.cli import main
from tasks.errors import UserError
from tasks.runs.writing import WholeCheckpoints
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


@pytest.fixture
def left(monkeypatch):
    """What Lightning leaves in this process is taken away."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.usefixtures("left")
def test_an_average_of_its_own_way_is_refused(tmp_path, capsys):
    average = f"--trainer.callbacks={__name__}.Otherwise"
    with pytest.raises(SystemExit):
        main([*FIT, *TEXT, "--trainer.strategy=fsdp2", average, f"--run_folder={tmp_path}/run"])
    assert "Otherwise exchanges whole ones with its average" in capsys.readouterr().err


class OwnIO(TorchCheckpointIO):
    """A way of its own to write checkpoints."""


@pytest.mark.usefixtures("left")
def test_another_way_of_writing_parts_is_refused(tmp_path, capsys):
    plugin = f"--trainer.plugins={__name__}.OwnIO"
    with pytest.raises(SystemExit):
        main([*FIT, *TEXT, *shared(1, PARTS), plugin, f"--run_folder={tmp_path}/run"])
    assert "and OwnIO in its own way: leave that plugin out" in capsys.readouterr().err


def test_the_name_is_a_class():
    from tasks.training.trainer import Trainer

    for name, sharded in (("fsdp2", False), (PARTS, True)):
        found = Trainer(accelerator="cpu", strategy=name).strategy
        assert isinstance(found, FSDP2) and found.sharded is sharded
    assert issubclass(Trainer, pl.Trainer)


# --- Runs ---


def run(folder: Path, *options: str, parts: int = 1, command: str = "fit") -> list[float]:
    """Train in processes of their own, a step on so many batches of each; the losses of validations after
    each second step."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    call = [
        sys.executable,
        "-m",
        "tasks.cli",
        command,
        *FIT[1:],
        f"--run_folder={folder}",
        *options,
    ]
    call += [f"--trainer.accumulate_grad_batches={parts}"]
    call += [f"--trainer.val_check_interval={2 * parts}"]
    ended = subprocess.run(
        call, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    with (folder / "logs/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row["val/loss"]) for row in rows if row.get("val/loss")]


def shared(count: int, strategy: str = "fsdp2") -> list[str]:
    return [f"--trainer.devices={count}", f"--trainer.strategy={strategy}"]


PARTS = "fsdp2_sharded"
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
    run(tmp_path / "parts", *options, *shared(2, PARTS), "--data.batch_size=8")
    assert in_parts(tmp_path / "parts")
    compare(tmp_path / "parts", tmp_path / "two")
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


# --- Checkpoints in parts ---


def all_of(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's last checkpoint, the optimizer's by their place among its weights."""
    found = WholeCheckpoints().load_checkpoint(run / "checkpoints/last.ckpt", weights_only=True)
    kinds = ("state_dict", "current_model_state", "averaging_state")
    values = {kind: found.get(kind, {}) for kind in kinds}
    for number, state in enumerate(found["optimizer_states"]):
        names = [name for group in state["param_groups"] for name in group["params"]]
        for place, name in enumerate(names):
            values[f"optimizer {number} {place}"] = state["state"].get(name, {})
    return {
        f"{kind} {name}": torch.as_tensor(value)
        for kind, of_kind in values.items()
        for name, value in of_kind.items()
    }


def compare(found: Path, wanted: Path) -> None:
    one, other = all_of(found), all_of(wanted)
    assert one.keys() == other.keys() and any(name.startswith("optimizer") for name in one)
    for name, value in other.items():
        torch.testing.assert_close(one[name], value, rtol=1e-4, atol=1e-5, msg=name)


def in_parts(run: Path) -> bool:
    """Whether a last checkpoint is, of which the file holds no matrix and one folder the rest."""
    folder, file = run / "checkpoints/last.shards", run / "checkpoints/last.ckpt"
    content = torch.load(file, weights_only=True)
    if "shards" not in content:
        assert not folder.exists() and not any(v.is_meta for v in content["state_dict"].values())
        return False
    assert [f"last.shards/{one.name}" for one in folder.iterdir()] == [content["shards"]]
    assert all(v.is_meta or v.dim() == 0 for v in content["state_dict"].values())
    return True


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_one_process_writes_and_reads_parts(tmp_path, optimizer):
    def fit(name, *options):
        more = [f"--model.optimizer={optimizer}", "--data.batch_size=4", *options]
        more += ["--trainer.val_check_interval=1", "--trainer.limit_val_batches=1"]
        main([*FIT, *TEXT, *EMA, *more, f"--run_folder={tmp_path / name}"])

    fit("whole", "--trainer.devices=1", "--trainer.max_steps=3")
    fit("begun", *shared(1, PARTS), "--trainer.max_steps=2")
    last = f"--ckpt_path={tmp_path}/begun/checkpoints/last.ckpt"
    fit("alone", "--trainer.devices=1", last, "--trainer.max_steps=3")
    fit("again", *shared(1, PARTS), last, "--trainer.max_steps=3")
    assert in_parts(tmp_path / "begun") and in_parts(tmp_path / "again")
    assert not in_parts(tmp_path / "alone")
    compare(tmp_path / "alone", tmp_path / "whole")
    compare(tmp_path / "again", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["averaged", "muon"])
def test_parts_go_on_with_any_number_of_processes(tmp_path, kind):
    options = [*TEXT, *ALIKE[kind], "--data.batch_size=4"]

    def go_on(name: str, before: str, steps: int, *more: str, parts: int) -> list[float]:
        given = [f"--ckpt_path={tmp_path / before}/checkpoints/last.ckpt"] if before else []
        limit = f"--trainer.max_steps={steps}"
        return run(tmp_path / name, *options, limit, *given, *more, parts=parts)

    alone = go_on("alone", "", 6, parts=4)
    two = go_on("two", "", 2, *shared(2, PARTS), parts=2)
    four = go_on("four", "two", 4, *shared(4, PARTS), parts=1)
    assert in_parts(tmp_path / "two") and in_parts(tmp_path / "four")
    one = go_on("one", "four", 6, parts=4)
    ddp = go_on("ddp", "four", 6, *shared(2, "ddp"), parts=2)
    whole = go_on("whole", "two", 4, *shared(2), parts=2)
    assert not in_parts(tmp_path / "whole")
    parts = go_on("parts", "whole", 6, *shared(2, PARTS), parts=2)
    assert [*two, *four] == pytest.approx(alone[:2], rel=2e-5)
    # When validations are due is counted in batches, of which another number of processes makes others.
    assert [one[-1], ddp[-1]] == pytest.approx(alone[-1:] * 2, rel=2e-5)
    assert [*two, *whole, *parts] == pytest.approx(alone, rel=2e-5)
    for name in ("one", "ddp", "parts"):
        compare(tmp_path / name, tmp_path / "alone")
    state = all_of(tmp_path / "parts")
    for name, value in (
        family.load(str(tmp_path / "parts/checkpoints/last.ckpt")).model.state_dict().items()
    ):
        assert torch.equal(value, state[f"state_dict model.{name}"]), name
    evaluated = [f"--ckpt_path={tmp_path}/parts/checkpoints/last.ckpt", *shared(2, PARTS)]
    found = run(tmp_path / "found", *options, *evaluated, command="validate")
    assert found == pytest.approx(parts[-1:], rel=2e-5)


@pytest.mark.slow
def test_adapters_of_a_frozen_model(tmp_path):
    talk = ["--config=chat_tuning/shapes", "--data.examples=120", "--trainer.max_steps=2"]
    run(tmp_path / "base", *talk, *TINY, "--data.vocab_size=300", "--data.batch_size=8")
    lora = [*talk, "--model.lora.rank=2", f"--model.pretrained={tmp_path}/base"]
    alone = run(tmp_path / "one", *lora, "--data.batch_size=8", parts=2)
    two = run(tmp_path / "two", *lora, *shared(2), "--data.batch_size=8")
    assert two == pytest.approx(alone, rel=2e-5)
