"""Corners of members: another size of pictures, weights in eight bits, several texts of a row."""

from __future__ import annotations

import copy

import pytest
import torch

import family
from family.adapt.lora import add_lora, merge_lora
from family.generation import Sampling
from family.generation.hooks import FirstTokens
from family.heads.pooling import pool_mean
from family.inference.answers import Span
from family.models.dit import DiT
from family.models.member import build
from family.models.vision_language import VisionLanguage
from family.quantise import quantise


def example(member):
    return copy.deepcopy(dict(member.facts.example))


def test_slots_of_another_size_of_pictures(tmp_path):
    model = VisionLanguage(**example(VisionLanguage)).eval()
    family.save_pretrained(model, tmp_path / "a")
    larger = family.from_pretrained(tmp_path / "a", image_size=32)
    assert larger.slots == larger.encode(torch.zeros(1, 3, 32, 32)).shape[1] == 4 * model.slots


def test_what_draws_in_latents_has_its_tokenizers_size(tmp_path):
    codes = {"image_size": 16, "downsampling": 4, "width": 8, "depth": 1}
    codes["codebook"] = {"size": 20, "dim": 4}
    model = DiT(**{**example(DiT), "patch_size": 2, "image_tokenizer": codes})
    family.save_pretrained(model, tmp_path / "a")
    with pytest.raises(ValueError, match="the size of its image tokenizer"):
        family.from_pretrained(tmp_path / "a", image_size=32)


def test_a_prompt_is_looked_up_beside_pictures():
    model = VisionLanguage(**example(VisionLanguage)).eval()
    ids = torch.tensor([[1] + [model.image_id] * model.slots + [3, 4]])
    pictures = torch.randn(1, 3, *model.image_size)
    drafted = model.generate(pictures, ids, max_new_tokens=6, draft="prompt")
    assert torch.equal(drafted, model.generate(pictures, ids, max_new_tokens=6))


def test_weights_in_eight_bits_are_neither_saved_nor_merged(tmp_path):
    pytest.importorskip("torchao")
    model = quantise(family.gpt_nano(vocab_size=40, dim=32, depth=1, heads=2).eval())
    with pytest.raises(ValueError, match="before quantise"):
        family.save_pretrained(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    add_lora(model, 2)
    with pytest.raises(ValueError, match="before quantise"):
        merge_lora(model)


def test_each_of_several_texts_begins_with_its_rows_language():
    model = build(family.Seq2Seq, example(family.Seq2Seq)).eval()
    hook, drawn = FirstTokens(torch.tensor([7, 8])), Sampling(temperature=1.0)
    source = torch.randint(3, 40, (2, 5))
    found = model.generate(source, sampling=drawn, num=2, max_new_tokens=3, hook=hook)
    assert found[:, 0].tolist() == [7, 7, 8, 8]


def test_the_mean_of_a_long_text_in_half_precision():
    x = torch.full((1, 8000, 4), 18.0).half()
    found = pool_mean(x, torch.ones(1, 8000, dtype=torch.bool))
    assert found.dtype == torch.float16 and found.tolist() == [[18.0] * 4]


def test_a_text_without_tokens_has_no_answer():
    assert Span(-float("inf"), 1.0, -float("inf"), 0, 0).chance(True, False) == 0.0
