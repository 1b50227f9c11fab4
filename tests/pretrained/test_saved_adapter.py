"""LoRA adapters that we write: peft reads them, and so do we."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import family
from family.adapt.lora import adapted, add_lora

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
pytest.importorskip("peft")
import peft
from lora import (
    CONFIG,
    WEIGHTS,
    answers,
    base_of,
    by_peft,
    equal,
    learn,
    loaded_by_peft,
    matters,
    saved_by_peft,
    strictly,  # noqa: F401
)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("Llama", ["*.qkv", "*.out"]),
        ("Llama", ["*.qkv.q", "*.qkv.v", "*.up.value", "*blocks.1.*.down"]),
        ("GPT-2", ["*.qkv", "*.out", "*.up", "*.down"]),
        ("GPT-2", ["*.qkv.q", "*.qkv.v"]),
        ("GPT-NeoX, Pythia", ["*.qkv", "*.out"]),
        ("GPT-NeoX, Pythia", ["*.qkv.k", "head"]),
        ("BERT, masked tokens", ["*.qkv", "*.out", "*.up", "masked_head.dense"]),
        ("BERT", ["*.qkv.v", "*.down"]),
        ("T5", ["*.qkv", "*.query", "*.key_value", "*.out"]),
        ("T5 v1.1", ["encoder.*.qkv.k", "*.key_value.v", "*.up"]),
        ("CLIP", ["image*.qkv", "text*.up"]),
        ("ViT", ["*.qkv", "*.out", "*.up"]),
        ("DINOv2, gated, classes", ["*.qkv", "*.up.gate"]),
        ("DINOv3", ["*.qkv", "*.up", "*.out"]),
        ("VideoMAE", ["*.qkv", "*.down"]),
        ("ViLT", ["*.qkv.v", "pooler.dense", "head.0"]),
        ("DETR", ["decoder*.qkv", "*.query", "*.out"]),
    ],
    ids=str,
)
def test_peft_loads_what_we_write_and_so_do_we(tmp_path, name, targets):
    base_of(name, tmp_path)
    ours = family.from_pretrained(tmp_path / "base")
    add_lora(ours, 4, alpha=6, targets=targets)
    expected = answers(name, learn(ours)).detach()
    matters(name, tmp_path, expected)
    family.save_adapter(ours, tmp_path / "adapter", tmp_path / "base")
    theirs = loaded_by_peft(name, tmp_path)
    equal(answers(name, theirs, "theirs").detach(), expected)
    equal(answers(name, family.from_pretrained(tmp_path / "adapter")).detach(), expected)
    saved_by_peft(theirs, tmp_path / "again")
    equal(answers(name, family.from_pretrained(tmp_path / "again")).detach(), expected)


def test_peft_finds_the_class_of_the_base(tmp_path):
    base_of("Llama", tmp_path)
    ours = family.from_pretrained(tmp_path / "base")
    add_lora(ours, 2)
    family.save_adapter(learn(ours), tmp_path / "adapter", tmp_path / "base")
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").double()
    equal(answers("Llama", theirs, "theirs"), answers("Llama", ours))


def test_adapters_of_unlike_strength_meet_in_one_layer(tmp_path):
    """Ranks add up, and each keeps its own strength; what a base holds apart stays apart."""
    by_peft(
        "Llama",
        tmp_path,
        target_modules=["q_proj", "v_proj", "up_proj"],
        rank_pattern={"v_proj": 2},
        alpha_pattern={"q_proj": 9},
    )
    ours = family.from_pretrained(tmp_path / "adapter")
    family.save_adapter(ours, tmp_path / "again", tmp_path / "base")
    weights = load_file(tmp_path / "adapter" / WEIGHTS)
    assert all(
        torch.equal(v, weights[n]) for n, v in load_file(tmp_path / "again" / WEIGHTS).items()
    )

    base_of("GPT-2", tmp_path)
    model = family.from_pretrained(tmp_path / "base")
    add_lora(model, 4, targets=["*.qkv.q", "*.qkv.v"])
    for _, layer in adapted(model):
        query, value = layer.adapters
        layer.adapters = query._replace(alpha=3.0), value._replace(alpha=8.0)
    expected = answers("GPT-2", learn(model))
    family.save_adapter(model, tmp_path / "fused", tmp_path / "base")
    assert json.loads((tmp_path / "fused" / CONFIG).read_text())["r"] == 8
    equal(answers("GPT-2", loaded_by_peft("GPT-2", tmp_path, "fused"), "theirs"), expected)


def test_a_base_of_our_own(tmp_path):
    """Its folder does not say a format: the only one that fits is taken, or the caller's."""
    model = family.llama(97, dim=16, depth=2, heads=2, qk_norm=True)
    family.save_pretrained(model, tmp_path / "base")
    add_lora(model, 2)
    family.save_adapter(learn(model), tmp_path / "adapter", tmp_path / "base")
    names = load_file(tmp_path / "adapter" / WEIGHTS)
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    again, ids = family.from_pretrained(tmp_path / "adapter"), torch.arange(5)[None]
    torch.testing.assert_close(again(ids), model(ids))

    both = family.gpt2(97, dim=16, depth=2, heads=2)
    family.save_pretrained(both, tmp_path / "both")
    add_lora(both, 2)
    with pytest.raises(ValueError, match="gpt2, opt"):
        family.save_adapter(both, tmp_path / "adapters", tmp_path / "both")
    for format in ("gpt2", "opt"):
        family.save_adapter(learn(both), tmp_path / format, tmp_path / "both", format=format)
        again = family.from_pretrained(tmp_path / format)
        torch.testing.assert_close(again(ids), both(ids))


def test_a_base_of_timm(tmp_path):
    import timm

    torch.manual_seed(0)
    model = family.vit_tiny(5, 8, 16, dim=24, depth=2, heads=2).eval()
    family.save_pretrained(model, tmp_path / "base", format="timm")
    add_lora(model, 2, targets=["*.qkv.q", "*.out"])
    family.save_adapter(learn(model), tmp_path / "adapter", tmp_path / "base")
    base = timm.create_model(f"local-dir:{tmp_path / 'base'}", pretrained=True)
    pixels = torch.randn(2, 3, 16, 16)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(theirs(pixels), model(pixels))
    torch.testing.assert_close(family.from_pretrained(tmp_path / "adapter")(pixels), model(pixels))


def test_a_base_in_the_cache_of_the_hub_says_its_format(tmp_path, monkeypatch):
    base_of("GPT-2", tmp_path)
    model = family.from_pretrained(tmp_path / "base")
    add_lora(model, 2)
    cached = lambda source, file: str(tmp_path / "base" / file)  # noqa: E731
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    family.save_adapter(model, tmp_path / "adapter", "someone/base")
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert config["base_model_name_or_path"] == "someone/base"
    assert config["fan_in_fan_out"] and config["target_modules"] == [
        "c_attn",
        *(f"transformer.h.{layer}.attn.c_proj" for layer in range(3)),
    ]


def test_what_cannot_be_written(tmp_path):
    def saving(model, said, **options):
        with pytest.raises(ValueError, match=said):
            family.save_adapter(model, tmp_path / "x", "base", **options)
        assert not (tmp_path / "x").exists()

    model = family.llama(97, dim=16, depth=1, heads=2)
    saving(model, "no LoRA layers: add_lora")
    add_lora(model, 2)
    saving(model, "format='gpt3' is unknown", format="gpt3")
    saving(model, "format='gpt2'", format="gpt2")
    tied = family.gpt2(97, dim=16, depth=1, heads=2)
    add_lora(tied, 2)
    tied.head.requires_grad_(True)
    saving(tied, "embedding.tokens.weight learns beside the adapters", format="gpt2")
    saving(torch.nn.Linear(2, 2), "no LoRA layers")
    clip = family.clip_small(61, dim=16, depth=1, heads=2, eos_id=60)
    add_lora(clip, 2)
    saving(clip, "open_clip.*no linear layer of its own", format="open_clip")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="not empty"):
        family.save_adapter(model, tmp_path / "full", "base")
