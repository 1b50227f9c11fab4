"""Checkpoints in parts: a light file and its folder, read as a whole, replaced and removed together."""

from __future__ import annotations

import errno
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from family.pretrained.parts import SHARDS, folder_of
from family.pretrained.runs import open_run, read_checkpoint
from tasks.errors import UserError
from tasks.runs.folder import BestCheckpoint
from tasks.runs.parts import divided, shards_of, unused, write_parts
from tasks.runs.writing import WholeCheckpoints

RECORD = {"task": "tasks.x.X", "model": {}, "assets": {}}


@pytest.fixture
def mesh(tmp_path):
    """Of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def content(mesh, start: float = 0.0):
    """A checkpoint as it would be written whole, and with its large tensors shared out."""
    weight = torch.arange(12.0).reshape(4, 3) + start
    state = {"step": torch.tensor(7.0), "mean": weight * 2, "count": 7}
    group = {"params": ["model.weight"], "lr": 0.1}
    whole = {
        "family": RECORD,
        "global_step": 4,
        "state_dict": {"model.weight": weight, "model.tied": weight, "model.scale": torch.ones(())},
        "optimizer_states": [{"state": {"model.weight": state}, "param_groups": [group]}],
        "current_model_state": {"model.weight": weight.bfloat16()},
    }
    shared = distribute_tensor(weight, mesh, [Shard(0)])
    parts = {
        **whole,
        "state_dict": {**whole["state_dict"], "model.weight": shared, "model.tied": shared},
        "optimizer_states": [
            {"state": {"model.weight": {**state, "mean": shared * 2}}, "param_groups": [group]}
        ],
        "current_model_state": {"model.weight": shared.bfloat16()},
    }
    return whole, parts


def write(file, parts):
    """As the strategy does."""
    light, large = divided(parts)
    folder = unused(file, parts["global_step"])
    write_parts(folder, large)
    light[SHARDS] = folder.relative_to(file.parent).as_posix()
    WholeCheckpoints().save_checkpoint(light, file)
    return folder


def same(found, wanted):
    if isinstance(wanted, torch.Tensor):
        assert type(found) is torch.Tensor and found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for name in wanted:
            same(found[name], wanted[name])
    elif isinstance(wanted, list):
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    else:
        assert found == wanted


def test_what_is_read_is_what_was_written(tmp_path, mesh):
    file = tmp_path / "last.ckpt"
    whole, parts = content(mesh)
    write(file, parts)
    light = torch.load(file, weights_only=True)  # nothing but tensors and plain values
    assert (
        light["state_dict"]["model.weight"].is_meta
        and not light["state_dict"]["model.scale"].is_meta
    )
    assert not any(isinstance(one, DTensor) for one in light["state_dict"].values())
    same(read_checkpoint(file)["state_dict"], whole["state_dict"])
    assert read_checkpoint(file, weights=False)["state_dict"]["model.weight"].is_meta
    assert torch.equal(open_run(file).state["weight"], whole["state_dict"]["model.weight"])
    found = WholeCheckpoints().load_checkpoint(file, weights_only=True)
    same(found, {**whole, SHARDS: found[SHARDS]})


def test_a_link_leads_to_file_and_folder(tmp_path, mesh):
    file, link = tmp_path / "runs/a/last.ckpt", tmp_path / "link.ckpt"
    whole, parts = content(mesh)
    folder = write(file, parts)
    link.symlink_to(file)
    same(read_checkpoint(link)["state_dict"], whole["state_dict"])
    WholeCheckpoints().remove_checkpoint(link)
    assert file.is_file() and folder.is_dir() and not link.exists()


def test_the_older_folder_goes_once_the_file_names_the_newer(tmp_path, mesh, monkeypatch):
    file, other = tmp_path / "last.ckpt", tmp_path / "last-4.ckpt"
    first, parts = content(mesh)
    old, beside = write(file, parts), write(other, parts)
    second, parts = content(mesh, start=1.0)

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", cut)
        write(file, parts)  # all parts are there, but not the file
    same(read_checkpoint(file)["state_dict"], first["state_dict"])
    new = write(file, parts)
    assert old.name == "4" and list(shards_of(file).iterdir()) == [new] and beside.is_dir()
    same(read_checkpoint(file)["state_dict"], second["state_dict"])
    WholeCheckpoints().save_checkpoint(first, file)  # a whole one in its place
    assert not shards_of(file).exists()
    write(file, parts)
    WholeCheckpoints().remove_checkpoint(file)
    assert sorted(one.name for one in tmp_path.glob("last*")) == ["last-4.ckpt", "last-4.shards"]


@pytest.mark.parametrize("named", ["/tmp/last.shards/4", "../last.shards/4"])
def test_parts_elsewhere_are_refused(tmp_path, named):
    with pytest.raises(ValueError, match="not beside it"):
        folder_of(tmp_path / "last.ckpt", {SHARDS: named})


def test_what_is_missing_is_said_in_one_sentence(tmp_path, mesh):
    file = tmp_path / "last.ckpt"
    folder = write(file, content(mesh)[1])
    (alone := tmp_path / "alone/kept.ckpt").parent.mkdir()
    shutil.copy(file, alone)
    said = r"kept.ckpt names its weights in .*last.shards/4, which is not there"
    for weights in (True, False):
        with pytest.raises(ValueError, match=said):
            read_checkpoint(alone, weights=weights)
    with pytest.raises(UserError, match=said):
        WholeCheckpoints().load_checkpoint(alone, weights_only=True)
    part = next(one for one in folder.iterdir() if "state_dict/model.weight" in load_file(one))
    lost = tmp_path / "lost"
    part.rename(lost)
    with pytest.raises(ValueError, match="lacks all or a part of state_dict/model.weight"):
        read_checkpoint(file)
    part.write_bytes(lost.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is damaged"):
        read_checkpoint(file)
    # A part of the rows: torch itself would read them, and leave the rest as it was.
    save_file({"state_dict/model.weight": torch.ones(4, 1)}, part)
    with pytest.raises(ValueError, match="lacks all or a part of state_dict/model.weight"):
        read_checkpoint(file)


def test_a_full_disk_leaves_the_checkpoint_of_before(tmp_path, mesh, monkeypatch):
    file = tmp_path / "last.ckpt"
    whole, parts = content(mesh)
    write(file, parts)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(dcp.HuggingFaceStorageWriter, "write_data", full)
    with pytest.raises(OSError, match="No space left on device.*last.shards/4-2"):
        write(file, parts)
    assert [one.name for one in shards_of(file).iterdir()] == ["4"]
    same(read_checkpoint(file)["state_dict"], whole["state_dict"])


def test_the_best_of_before_is_taken_along_with_its_folder(tmp_path, mesh, monkeypatch):
    whole, parts = content(mesh)
    old, first, second = (
        BestCheckpoint(tmp_path / name, filename="best", monitor="val/loss") for name in "abb"
    )
    score = {"best_model_score": torch.tensor(0.5)}
    write(tmp_path / "a/best.ckpt", {**parts, "callbacks": {old.state_key: score}})
    alone = SimpleNamespace(broadcast=lambda value: value)
    trainer = SimpleNamespace(ckpt_path=tmp_path / "a/last.ckpt", strategy=alone)
    for process in (first, second):
        process.on_load_checkpoint(trainer, None, {})
    first.load_state_dict({**old.state_dict(), **score})
    # Another process, which comes once the first one has copied, knows the same.
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    second.load_state_dict({**old.state_dict(), **score})
    for process in (first, second):
        assert list(process.best_k_models) == [process.best_model_path]
        assert process.best_model_path == str(tmp_path / "b/best.ckpt")
    shutil.rmtree(tmp_path / "a")
    same(read_checkpoint(tmp_path / "b/best.ckpt")["state_dict"], whole["state_dict"])


def test_folders_of_others_stay(tmp_path):
    for name in ("0001.tar", "1/notes.txt", "3/shard-00001-model-00001-of-00001.safetensors"):
        file = tmp_path / "train.shards" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    WholeCheckpoints().save_checkpoint({"state_dict": {}}, tmp_path / "train.ckpt")
    assert sorted(one.name for one in (tmp_path / "train.shards").iterdir()) == ["0001.tar", "1"]
