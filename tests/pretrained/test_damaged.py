"""Checkpoints that are cut, changed, or no files at all are refused in one sentence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

import family

RUN = Path(__file__).parents[1] / "fixtures" / "runs" / "language_modeling"
GPT = Path(__file__).parents[1] / "fixtures" / "folders" / "gpt"


@pytest.fixture
def file(tmp_path):
    shutil.copytree(RUN, tmp_path / "run")
    return next((tmp_path / "run").rglob("*.ckpt"))


def refused(source, said):
    with pytest.raises(ValueError, match=said) as caught:
        family.load(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"state_dict": {"model.embedding.weight": None}},
        {"state_dict": {"model.embedding.weight": "0o17"}},
        {"state_dict": {3: torch.ones(1)}},
        {"family": {"task": 3}},
        {"family": {"assets": "x"}},
        {"family": {"model": []}},
        {"family": {"arguments": [1]}},
    ],
)
def test_parts_of_another_type(file, change):
    content = torch.load(file, weights_only=True)
    for name, value in change.items():
        content[name] = {**content[name], **value}
    torch.save(content, file)
    refused(file, f"{file} is not a checkpoint")


def test_assets_of_another_type_deeper_inside(file):
    content = torch.load(file, weights_only=True)
    content["family"]["assets"]["tokenizers"] = "x"
    torch.save(content, file)
    refused(file, f"{file} has a record that is damaged: AttributeError")


def test_an_archive_with_a_broken_table(file):
    whole = bytearray(file.read_bytes())
    for kept in (len(whole) - 1, len(whole) // 2, 3, 0):
        file.write_bytes(whole[:kept])
        refused(file, "is not a checkpoint")


@pytest.mark.parametrize("target", ["nothing", "itself"])
def test_a_link_that_leads_nowhere_is_no_checkpoint(file, target):
    file.unlink()
    file.symlink_to(file.name if target == "itself" else target)
    refused(file.parents[1], "no checkpoint|does not exist")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    shutil.copytree(GPT, tmp_path / "gpt")
    (tmp_path / "gpt" / name).unlink()
    os.mkfifo(tmp_path / "gpt" / name)
    with pytest.raises(ValueError):
        family.load(tmp_path / "gpt")
