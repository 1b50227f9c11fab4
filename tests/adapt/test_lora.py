"""LoRA changes nothing at first, trains alone, and merges and unmerges exactly."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import family
from family import TransformerConfig
from family.adapt.lora import (
    LoRALinear,
    adapted,
    add_lora,
    linear_layers,
    load_lora,
    lora_state,
    merge_lora,
    unmerge_lora,
    without_adapters,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "parity"))
from peers import randomise

SMALL = {"dim": 16, "depth": 2, "heads": 2}
EVERYWHERE = ("*.qkv", "*.out", "*.up", "*.down")


def gpt():
    return family.llama(23, **SMALL, ffn_dim=24, kv_heads=1, max_tokens=32)


def seq2seq():
    return family.transformer_tiny(23, **SMALL, ffn_dim=24, max_tokens=32)


def vit():
    return family.vit_tiny(5, patch_size=4, image_size=8, **SMALL)


def detr():
    config = TransformerConfig(**SMALL, activation="relu", norm_order="post")
    return family.DETR(3, config, backbone="patch", patch_size=4, queries=5)


def inputs(build):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 23, (2, 7), generator=generator)
    pixels = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    return {gpt: (ids,), seq2seq: (ids, ids[:, :5]), vit: (pixels,), detr: (pixels,)}[build]


def answer(model, build):
    made = model(*inputs(build))
    return torch.cat([made["logits"], made["boxes"]], -1) if isinstance(made, dict) else made


BUILDS = {
    gpt: (*EVERYWHERE, "head"),
    seq2seq: (*EVERYWHERE, "*.query", "*.key_value"),
    vit: (*EVERYWHERE, "head"),
    detr: (*EVERYWHERE, "*.query", "*.key_value", "head.classes"),
}


@pytest.fixture(params=BUILDS, ids=lambda build: build.__name__)
def build(request):
    return request.param


def made(build):
    torch.manual_seed(0)
    model = build().double().eval()
    randomise(model)
    return model


def trained(model):
    """As if the adapters had learnt something."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def test_at_first_nothing_changes_and_only_adapters_learn(build):
    model = made(build)
    before = answer(model, build)
    names = add_lora(model, 4, alpha=8, targets=BUILDS[build])
    assert torch.equal(answer(model, build), before)
    trained(model)
    answer(model, build).square().sum().backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert got == {f"{name}.lora_{part}.weight" for name in names for part in "ab"}
    assert len(names) >= 2 * len(EVERYWHERE)


def test_merging_agrees_and_unmerging_restores_every_bit(build):
    model = made(build)
    base = answer(model, build)
    add_lora(model, 4, alpha=8, targets=BUILDS[build])
    trained(model)
    apart, state = answer(model, build), copy.deepcopy(model.state_dict())
    assert (apart - base).abs().max() > 1e-3
    merge_lora(model)
    torch.testing.assert_close(answer(model, build), apart, rtol=1e-10, atol=1e-10)
    assert model.state_dict().keys() == state.keys()
    unmerge_lora(model)
    assert torch.equal(answer(model, build), apart)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_removed_for_good_the_names_are_the_models_own(build):
    model = made(build)
    names = set(model.state_dict())
    add_lora(model, 4, alpha=8, targets=BUILDS[build])
    apart = answer(trained(model), build)
    merge_lora(model, remove=True)
    assert set(model.state_dict()) == names
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    torch.testing.assert_close(answer(model, build), apart, rtol=1e-10, atol=1e-10)
    plain = made(build)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(answer(plain, build), apart, rtol=1e-10, atol=1e-10)


def test_adapters_travel_alone(build, tmp_path):
    first, second = made(build), made(build)
    for model in (first, second):
        add_lora(model, 4, alpha=8, targets=BUILDS[build])
    trained(first)
    torch.save(lora_state(first), tmp_path / "adapters.pt")
    state = torch.load(tmp_path / "adapters.pt", weights_only=True)
    assert all(".lora_" in name for name in state)
    merge_lora(second)  # what is merged of the old adapters goes
    load_lora(second, state)
    assert torch.equal(answer(second, build), answer(first, build))


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("build", [gpt, seq2seq])
def test_generation_with_a_cache_follows_the_adapters(build, merged):
    model = made(build)
    add_lora(model, 4, alpha=16, targets=BUILDS[build])
    trained(model)
    if merged:
        merge_lora(model)
    ids = inputs(gpt)[0]
    new = model.generate(ids, max_new_tokens=6, sampling=family.Sampling(temperature=0))
    for i in range(new.shape[1]):  # as without a cache
        if build is gpt:
            logits = model(torch.cat([ids, new[:, :i]], 1))
        else:
            begun = torch.full((2, 1), model.bos_id)
            logits = model(ids, torch.cat([begun, new[:, :i]], 1))
        assert torch.equal(logits[:, -1].argmax(-1), new[:, i])


PARTS = {
    gpt: ("*.qkv.q", "*.qkv.v", "*.up.gate"),
    seq2seq: ("*.qkv.k", "*.key_value.v", "*.query"),
    vit: ("*.qkv.v", "*.out"),
    detr: ("*.qkv.q", "*.key_value.k", "decoder.*.query"),
}

FUSED = {"qkv": ("q", "k", "v"), "key_value": ("k", "v"), "up": ("gate", "value")}


@pytest.mark.parametrize("build", PARTS, ids=lambda build: build.__name__)
def test_projections_within_a_layer_are_adapted_apart(build):
    model = made(build)
    before = answer(model, build)
    weights = {name: m.weight.clone() for name, m in linear_layers(model).items()}
    names = add_lora(model, 4, alpha=8, targets=PARTS[build])
    assert torch.equal(answer(model, build), before)
    trained(model)
    apart = answer(model, build)
    assert (apart - before).abs().max() > 1e-3
    for path, layer in adapted(model):
        fused = FUSED.get(path.rpartition(".")[2], ())
        assert [f"{path}.{part}" in names for part in fused] == [p in layer.lora_b for p in fused]
        rows = [16, 8, 8] if build is gpt and "k" in fused else [16, 16, 16]
        rows = [24, 24] if "gate" in fused else rows[: len(fused)]
        changes = [
            2 * layer.lora_b[part].weight @ layer.lora_a[part].weight
            if part in layer.lora_b
            else torch.zeros(count, 16, dtype=torch.float64)
            for part, count in zip(fused, rows, strict=True)
        ]
        if fused:
            torch.testing.assert_close(layer.weight - weights[path], torch.cat(changes))
    state = lora_state(model)
    again = made(build)
    add_lora(again, 4, alpha=8, targets=PARTS[build])
    load_lora(again, state)
    assert torch.equal(answer(again, build), apart)
    merge_lora(model, remove=True)
    torch.testing.assert_close(answer(model, build), apart, rtol=1e-10, atol=1e-10)


def test_a_pattern_that_takes_the_layer_takes_it_whole():
    model = made(gpt)
    names = add_lora(model, 2, targets=["*.qkv.q", "*blocks.0*", "*.v"])
    assert "transformer.blocks.0.self_attention.sublayer.qkv" in names
    assert [n for n in names if ".qkv." in n] == [
        f"transformer.blocks.1.self_attention.sublayer.qkv.{part}" for part in "qv"
    ]
    assert model.transformer.blocks[0].feedforward.sublayer.up.lora_a.weight.shape == (2, 16)


@pytest.mark.slow
def test_layers_compile_in_one_piece():
    model = made(gpt)
    add_lora(model, 2, targets=["*.qkv.q", "*.qkv.v", "*.out"])
    compiled = torch.compile(trained(model), backend="eager", fullgraph=True)
    assert torch.equal(compiled(*inputs(gpt)), answer(model, gpt))


def test_dropout_is_of_training_alone():
    model = made(gpt)
    add_lora(model, 4, dropout=0.5)
    trained(model)
    assert torch.equal(answer(model, gpt), answer(model, gpt))
    model.train()
    assert not torch.equal(answer(model, gpt), answer(model, gpt))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "rank=0: LoRA needs a rank of at least 1"),
        ({"rank": 2, "alpha": 0}, "alpha=0.* must be above 0"),
        ({"rank": 2, "dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        ({"rank": 2, "targets": ["*.qvk"]}, r"'\*.qvk' matches no name .* nearest are: \*.qkv"),
        ({"rank": 2, "targets": ["*.norm"]}, "matches no name of a linear layer"),
    ],
)
def test_what_cannot_be_is_said(options, said):
    model = made(gpt)
    with pytest.raises(ValueError, match=said):
        add_lora(model, **options)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_shared_weight_or_a_second_adapter_is_refused():
    tied = family.gpt_nano(11, **SMALL)
    with pytest.raises(ValueError, match=r"head shares its weight with embedding.tokens.weight"):
        add_lora(tied, 2, targets=["head"])
    add_lora(tied, 2)
    with pytest.raises(ValueError, match="has LoRA layers already"):
        add_lora(tied, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.popitem(), "the adapters have no transformer"),
        (lambda s: s.update(x=torch.zeros(1)), "the model has no place for the adapter x"),
        (lambda s: s.update({next(iter(s)): torch.zeros(1, 1)}), r"has the shape \(1, 1\), but"),
    ],
)
def test_adapters_of_another_model_are_refused(change, said):
    model = made(gpt)
    add_lora(model, 2)
    state = lora_state(model)
    change(state)
    with pytest.raises(ValueError, match=said):
        load_lora(model, state)


def test_merged_and_back_within_what_goes_without_adapters(build):
    model = made(build)
    add_lora(model, 4, alpha=8, targets=BUILDS[build])
    before = answer(trained(model), build)
    merge_lora(model)
    with without_adapters(model):
        assert not torch.equal(answer(model, build), before)
    torch.testing.assert_close(answer(model, build), before, atol=1e-5, rtol=1e-4)
    unmerge_lora(model)
    with without_adapters(model):
        answer(model, build)
    merge_lora(model)
    torch.testing.assert_close(answer(model, build), before, atol=1e-5, rtol=1e-4)
    assert not any("merged" in name for name, _ in model.named_parameters())


def test_weights_that_are_loaded_into_a_merged_model_count():
    model, other = made(gpt), made(gpt)
    for each in (model, other):
        add_lora(each, 2)
    randomise(other)
    merge_lora(model)
    model.load_state_dict(other.state_dict())
    assert torch.equal(answer(model, gpt), answer(other, gpt))
