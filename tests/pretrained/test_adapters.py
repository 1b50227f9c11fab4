"""LoRA adapters in peft's layout: what peft computes with them we compute, or it is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

import family
from family.adapt.lora import adapted, merge_lora, unmerge_lora
from family.pretrained.adapters import modules
from family.pretrained.formats import FORMATS
from tasks.runs.sources import open_published

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
pytest.importorskip("peft")
from cases import causal, encoders
from folders import message_of
from harness import made_loss, read
from lora import (
    CASES,
    WEIGHTS,
    answers,
    by_peft,
    change,
    equal,
    gradients,
    loaded_by_peft,
    matters,
    rewrite,
    strictly,  # noqa: F401
)

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("Llama", ["q_proj", "v_proj"]),
        ("Llama", ["k_proj"]),
        ("Llama", ["up_proj"]),
        ("Llama", [*LAYERS, "lm_head"]),
        ("GPT-2", ["c_attn", "c_proj", "c_fc"]),
        ("GPT-NeoX, Pythia", ["query_key_value", "dense"]),
        ("BERT, masked tokens", ["query", "value", "intermediate.dense"]),
        ("BERT", ["key", "dense"]),
        ("T5", ["q", "v"]),
        ("T5 v1.1", ["q", "k", "v", "o", "wi_1", "wo"]),
        ("CLIP", ["q_proj", "v_proj"]),
        ("ViT", ["q_proj", "v_proj", "fc1"]),
        ("DINOv2, gated, classes", ["q_proj", "o_proj", "up_proj"]),
        ("DINOv3", ["q_proj", "v_proj", "up_proj"]),
        ("VideoMAE", ["query", "value", "intermediate.dense"]),
        ("ViLT", ["query", "value", "intermediate.dense"]),
        ("DETR", ["q_proj", "v_proj", "mlp.fc2"]),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_pefts(tmp_path, name, targets):
    fused = {"fan_in_fan_out": True} if name == "GPT-2" else {}
    theirs = by_peft(name, tmp_path, target_modules=targets, **fused)
    ours = family.from_pretrained(tmp_path / "adapter")
    assert not ours.training
    answer, expected = answers(name, ours), answers(name, theirs, "theirs")
    equal(answer, expected)
    matters(name, tmp_path, answer)
    made_loss(answer).backward()
    made_loss(expected).backward()
    assert {n for n, p in ours.named_parameters() if p.grad is not None} == {
        n for n, _ in ours.named_parameters() if ".lora_" in n
    }
    found = gradients(ours, tmp_path)
    wanted = {
        n.replace(".default", ""): p.grad for n, p in theirs.named_parameters() if ".lora_" in n
    }
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"q_proj": 5, r"layers\.1\..*v_proj": 2}, "alpha_pattern": {"v_proj": 7}},
        {"use_rslora": True, "rank_pattern": {"v_proj": 6}},
        {"layers_to_transform": [0, 2]},
        {"layers_to_transform": 1, "layers_pattern": "layers"},
        {"exclude_modules": ["layers.1.self_attn.q_proj"]},
        {"target_modules": r".*layers\.[02]\..*(q|o)_proj"},
        {"target_modules": "all-linear"},
        {"init_lora_weights": "gaussian", "lora_dropout": 0.1},
    ],
    ids=str,
)
def test_options_that_are_carried(tmp_path, options):
    theirs = by_peft("Llama", tmp_path, **{"target_modules": ["q_proj", "v_proj"], **options})
    ours = family.from_pretrained(tmp_path / "adapter")
    equal(answers("Llama", ours), answers("Llama", theirs, "theirs"))
    rate = options.get("lora_dropout", 0.0)
    assert {layer.dropout.p for _, layer in adapted(ours)} == {rate}


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("BERT, classes", ["classifier", "score"]),
        ("RoBERTa, classes", ["classifier"]),
        ("Llama", ["lm_head", "embed_tokens"]),
        ("ViT", ["classifier"]),
    ],
)
def test_modules_that_are_saved_whole(tmp_path, name, whole):
    targets = {"BERT": ["query"], "RoBE": ["query"]}.get(name[:4], ["q_proj"])
    theirs = by_peft(name, tmp_path, whole, target_modules=targets)
    ours = family.from_pretrained(tmp_path / "adapter")
    expected = answers(name, theirs, "theirs")
    equal(answers(name, ours), expected)
    family.save_adapter(ours, tmp_path / "again", tmp_path / "base")
    first, second = (load_file(tmp_path / place / WEIGHTS) for place in ("adapter", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    again = loaded_by_peft(name, tmp_path, "again")
    equal(answers(name, again, "theirs"), expected)


def test_classes_of_an_adapter_whose_base_has_none(tmp_path):
    theirs = by_peft("BERT, classes", tmp_path, ["classifier"], target_modules=["query"])
    names = {n: v for n, v in load_file(tmp_path / "base" / "model.safetensors").items()}
    save_file(
        {n: v for n, v in names.items() if "classifier" not in n},
        tmp_path / "base" / "model.safetensors",
    )
    assert "no place for the weight classifier.bias; classes need num_classes" in message_of(
        tmp_path / "adapter"
    )
    ours = family.from_pretrained(tmp_path / "adapter", num_classes=encoders.CLASSES)
    equal(answers("BERT, classes", ours), answers("BERT, classes", theirs, "theirs"))


def test_an_adapter_of_the_bare_stack(tmp_path):
    """Its names lack the prefix, as files of the bare stack do."""
    by_peft("Llama", tmp_path, target_modules=["q_proj", "v_proj"])
    whole = family.from_pretrained(tmp_path / "adapter")
    rewrite(
        tmp_path / "adapter",
        lambda w: {n.replace("model.model.model.", "model.model."): v for n, v in w.items()},
    )
    assert "base_model.model.layers.0.self_attn.q_proj.lora_A.weight" in load_file(
        tmp_path / "adapter" / WEIGHTS
    )
    bare = family.from_pretrained(tmp_path / "adapter")
    assert torch.equal(answers("Llama", bare), answers("Llama", whole))


def test_names_of_older_versions(tmp_path):
    """Before version 5 of transformers, modules were called what weights in files still are."""
    theirs = by_peft("ViT", tmp_path, target_modules=["q_proj", "fc2"])
    older = {
        ".layers.": ".encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "mlp.fc2": "output.dense",
    }

    def renamed(name):
        for now, before in older.items():
            name = name.replace(now, before)
        return name

    rewrite(tmp_path / "adapter", lambda w: {renamed(n): v for n, v in w.items()})
    ends = [f"layer.{layer}.output.dense" for layer in range(3)]
    change(tmp_path / "adapter", target_modules=["query", *ends])
    ours = family.from_pretrained(tmp_path / "adapter")
    equal(answers("ViT", ours), answers("ViT", theirs, "theirs"))


def test_pickled_adapters_and_another_dtype(tmp_path):
    by_peft("Llama", tmp_path, target_modules=["q_proj"])
    folder = tmp_path / "adapter"
    before = family.from_pretrained(folder, dtype=torch.float32)
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    ours = family.from_pretrained(folder, dtype=torch.float32)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    batch = CASES["Llama"].batch()
    assert torch.equal(causal.ours(ours, batch), causal.ours(before, batch))


@pytest.mark.parametrize("place", ["beside", "here", "hub", "within"])
def test_where_the_base_may_lie(tmp_path, monkeypatch, place):
    theirs = by_peft("Llama", tmp_path, target_modules=["q_proj"])
    folder = tmp_path / "adapter"
    named = {"beside": "../base", "here": "base", "hub": "someone/base", "within": "nowhere"}[place]
    change(folder, base_model_name_or_path=named)
    here = tmp_path if place == "here" else tmp_path / "elsewhere" / "deep"
    here.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(here)  # what stands beside the caller's own folder must not count
    if place == "hub":
        known = {"someone/base": tmp_path / "base", "someone/adapter": folder}
        fetched = lambda source, allow_patterns: str(known[source])  # noqa: E731
        monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
        folder = "someone/adapter"
    elif place == "within":
        for file in ("config.json", "model.safetensors"):
            shutil.copy(tmp_path / "base" / file, folder)
    ours = family.from_pretrained(folder)
    equal(answers("Llama", ours), answers("Llama", theirs, "theirs"))


def test_the_tokenizer_of_the_adapter_goes_first(tmp_path):
    by_peft("Llama", tmp_path, target_modules=["q_proj"])
    for folder, words in (("base", 2), ("adapter", 3)):
        vocabulary = {f"word{i}": i for i in range(words)}
        inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="word0"))
        inner.save(str(tmp_path / folder / "tokenizer.json"))
        assert family.from_pretrained(tmp_path / "adapter").tokenizer.vocab_size == words


def test_merged_and_trained_as_before(tmp_path):
    theirs = by_peft("Llama", tmp_path, target_modules=["q_proj", "v_proj", "up_proj"])
    ours, expected = (
        family.from_pretrained(tmp_path / "adapter"),
        answers("Llama", theirs, "theirs"),
    )
    merge_lora(ours)
    equal(answers("Llama", ours), expected)
    unmerge_lora(ours)
    merge_lora(ours, remove=True)
    family.save_pretrained(ours, tmp_path / "merged", format="llama")
    equal(answers("Llama", family.from_pretrained(tmp_path / "merged")), expected)
    whole = open_published(str(tmp_path / "adapter"))
    assert not any(adapted(whole)) and all(p.requires_grad for p in whole.parameters())
    torch.testing.assert_close(answers("Llama", whole.double()), expected, rtol=1e-4, atol=1e-4)


PUBLISHED = {case.format: case for case in CASES.values() if case.format in FORMATS}


@pytest.mark.parametrize("format", PUBLISHED)
def test_modules_are_called_so_in_memory(format):
    case = PUBLISHED[format]
    theirs = case.build()
    ours, layout = read(case, theirs), FORMATS[format]
    names, known = modules(layout.loaded(ours), ours), dict(theirs.named_modules())
    assert names
    assert all(name in known or name.removeprefix(layout.prefix) in known for name in names)


# --- Refusals --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    by_peft("Llama", folder, target_modules=["q_proj", "v_proj"])
    return folder


@pytest.fixture
def copied(adapter, tmp_path):
    shutil.copytree(adapter, tmp_path, dirs_exist_ok=True)
    change(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"target_parameters": ["experts.gate_up_proj"]},
        {"trainable_token_indices": [1, 2]},
        {"layer_replication": [[0, 2], [1, 3]]},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "loftq"},
        {"revision": "0a1b2c"},
        {"an_option_to_come": 3},
        {"r": 4},
        {"rank_pattern": {"v_proj": 2}},
        {"r": "many"},
        {"r": 0},
        {"alpha_pattern": {"q_proj": None}},
        {"rank_pattern": 7},
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj", "v_proj", "k_proj"]},
        {"target_modules": "("},
        {"layers_to_transform": [0]},
        {"base_model_name_or_path": None},
        {"base_model_name_or_path": "no/such/place"},
    ],
    ids=str,
)
def test_what_a_config_says_and_we_do_not_carry(copied, fields):
    change(copied, **fields)
    message = message_of(copied)
    assert str(copied) in message and message.endswith(".")
    (name, value), *_ = fields.items()
    if name in ("r", "rank_pattern") and value != 7:
        assert "shape (" in message or f"r={value!r}" in message
    elif name == "alpha_pattern":
        assert "lora_alpha=None" in message
    elif name == "layers_to_transform":
        assert "layers.1.self_attn" in message and "target_modules" in message
    elif name == "target_modules" and isinstance(value, list):
        assert ("v_proj" if len(value) == 1 else "k_proj") in message and name in message
    elif value in ("no/such/place",):
        assert value in message and "base" in message
    elif value not in (7, "("):
        assert name in message and str(value if not isinstance(value, list) else "") in message


def q(part, layer=0):
    return f"base_model.model.model.layers.{layer}.self_attn.q_proj.{part}"


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (lambda w: w | {q("lora_magnitude_vector"): torch.ones(3)}, ["lora_magnitude_vector"]),
        (lambda w: {n: v for n, v in w.items() if n != q("lora_A.weight")}, ["lora_B", "alone"]),
        (lambda w: w | {"base_model.model.model.norm.x": torch.ones(1)}, ["no place", "norm.x"]),
        (
            lambda w: w | {"base_model.model.model.norm.weight": torch.ones(7)},
            ["model.norm.weight", "(7,)", "(32,)"],
        ),
        (
            lambda w: w | {q("base_layer.weight"): torch.ones(32, 32)},
            ["has no place for", "q_proj.weight"],
        ),
        (lambda w: {n: v for n, v in w.items() if "layers.2" not in n}, ["no adapter", "layers.2"]),
        (lambda w: w | {q("lora_A.weight"): torch.ones(3, 5)}, ["(3, 5)", "(3, 32)"]),
        (lambda w: w | {q("lora_B.weight"): torch.ones(5, 3)}, ["(5, 3)", "(32, 3)"]),
        (
            lambda w: (
                w | {q(f"lora_{x}.weight", 7): w[q(f"lora_{x}.weight")].clone() for x in "AB"}
            ),
            ["layers.7", "no linear layer"],
        ),
        (
            lambda w: {n.replace("self_attn", "attention"): v for n, v in w.items()},
            ["attention.q_proj", "no linear layer of this GPT"],
        ),
        (
            lambda w: (
                w | {n.replace("model.model.model", "model.model"): v + 1 for n, v in w.items()}
            ),
            ["two adapters"],
        ),
    ],
)
def test_weights_that_do_not_fit(copied, weights, words):
    rewrite(copied, weights)
    message = message_of(copied)
    for word in (WEIGHTS, *words):
        assert word in message, message


def test_folders_that_do_not_hold_what_they_should(copied, tmp_path):
    change(copied, base_model_name_or_path=str(copied))
    assert f"its base cannot be had: {copied} is itself an adapter" in message_of(copied)
    change(copied, base_model_name_or_path=str(tmp_path / "base"))
    (copied / WEIGHTS).unlink()
    assert "adapter_model.bin" in message_of(copied)
    (copied / "modules.json").write_text("[]")
    assert "sentence encoder" in message_of(copied)


def test_a_tied_head_is_not_adapted(tmp_path):
    """It would be one thing unmerged, and another merged."""
    by_peft("GPT-2", tmp_path, target_modules=["c_attn"], fan_in_fan_out=True)
    folder = tmp_path / "adapter"
    rewrite(
        folder,
        lambda w: (
            w
            | {
                "base_model.model.lm_head.lora_A.weight": torch.ones(3, 32),
                "base_model.model.lm_head.lora_B.weight": torch.ones(97, 3),
            }
        ),
    )
    change(folder, target_modules=["c_attn", "lm_head"])
    assert "head shares its weight with embedding.tokens.weight" in message_of(folder)
