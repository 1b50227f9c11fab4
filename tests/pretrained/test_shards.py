"""Weights in several pickled files with an index, as repositories of before safetensors have them."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

import family
from family.pretrained.weights import PICKLED, PICKLED_INDEX, SINGLE

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path):
    """A GPT-2 of transformers in two pickled files."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=61, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    theirs = transformers.GPT2LMHeadModel(config)
    place = tmp_path / "repository"
    theirs.save_pretrained(place)
    (place / SINGLE).unlink()
    state = {name: value for name, value in theirs.state_dict().items() if name != "lm_head.weight"}
    names, files = list(state), [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    for start, file in enumerate(files):
        torch.save({name: state[name] for name in names[start::2]}, place / file)
    places = {name: files[i % 2] for i, name in enumerate(names)}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (place / PICKLED_INDEX).write_text(json.dumps(index))
    return place


def same(ours, place):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(place).eval()
    ids = torch.randint(61, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits)


def test_as_transformers_loads_them(folder):
    same(family.from_pretrained(folder), folder)
    (folder / PICKLED).write_bytes(b"goes first")
    with pytest.raises(ValueError, match=f"{PICKLED} cannot be read"):
        family.from_pretrained(folder)


def test_what_is_asked_of_the_hub(folder, tmp_path, monkeypatch):
    cache, asked = tmp_path / "cache", []

    def download(source, allow_patterns):
        assert source == "someone/model"
        wanted = [
            file for file in folder.iterdir() if any(fnmatch(file.name, p) for p in allow_patterns)
        ]
        asked.append({file.name for file in wanted})
        cache.mkdir(exist_ok=True)
        for file in wanted:
            shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    shards = {f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)}
    for name in ("optimizer.bin", "training_args.bin", "pytorch_model.fp16.bin"):
        (folder / name).write_bytes(b"of no use")
    same(family.from_pretrained("someone/model"), folder)
    assert {PICKLED_INDEX, "config.json"} <= asked[0] and not asked[0] & shards
    assert asked[1] == shards and len(asked) == 2
    # Where there are weights by safetensors, nothing that is pickled is fetched.
    family.save_pretrained(family.from_pretrained(folder), tmp_path / "other", "gpt2")
    shutil.copy(tmp_path / "other" / SINGLE, folder)
    asked.clear()
    family.from_pretrained("someone/model")
    assert len(asked) == 1 and not any(name.endswith(".bin") for name in asked[0])


def test_an_index_and_files_that_do_not_agree(folder):
    index = json.loads((folder / PICKLED_INDEX).read_text())
    first, *_ = sorted(Path(folder).glob("*00001*"))
    for content, said in (
        ({}, "has no weight_map"),
        ({"weight_map": {**index["weight_map"], "more": "x.bin"}}, "names x.bin, which"),
        ({"weight_map": {**index["weight_map"], "more": first.name}}, "names the weight more"),
    ):
        (folder / PICKLED_INDEX).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=said):
            family.from_pretrained(folder)
    (folder / PICKLED_INDEX).write_text(json.dumps(index))
    first.write_bytes(first.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{first.name} cannot be read"):
        family.from_pretrained(folder)
    (folder / PICKLED_INDEX).unlink()
    with pytest.raises(ValueError, match=f"{PICKLED_INDEX}"):
        family.from_pretrained(folder)
