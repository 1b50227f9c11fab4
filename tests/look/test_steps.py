"""The walk through attention: its numbers are the model's, and the page that we show adds up."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import family
from family.core.attention import Attention
from family.look.steps import attention_steps, translation_steps

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests" / "fixtures" / "runs" / "translation"
PAGE = ROOT / "examples" / "look" / "attention.html"


def near(found, expected, bound=2e-3):
    torch.testing.assert_close(torch.as_tensor(found), expected, atol=bound, rtol=bound)


def test_numbers_are_those_of_the_weights():
    """By the formulas of the paper, from the weights alone."""
    model = family.load(RUN).model
    steps = translation_steps(model, "un cercle rouge")
    w, config = model.state_dict(), model.config
    x = w["source_embedding.tokens.weight"][steps["ids"]] * math.sqrt(config.dim)
    near(steps["embedding"], x)
    place = torch.arange(len(x))[:, None] / 10_000 ** (torch.arange(0, config.dim, 2) / config.dim)
    waves = torch.cat([place.sin(), place.cos()], dim=1)
    order = torch.tensor(steps["positions"])[: len(x)]
    pairs = order.sort(1).values
    near(pairs, waves.sort(1).values)  # whichever way sines and cosines lie
    near(steps["entering"], x + order)
    x = x + order
    layer = "encoder.blocks.0.self_attention."
    qkv = x @ w[layer + "sublayer.qkv.weight"].T + w[layer + "sublayer.qkv.bias"]
    heads = []
    for h in range(config.heads):
        width = config.dim // config.heads
        q, k, v = (part[:, h * width : (h + 1) * width] for part in qkv.chunk(3, dim=1))
        scores = q @ k.T / math.sqrt(width)
        chances = scores.exp() / scores.exp().sum(1, keepdim=True)
        for name, value in (("queries", q), ("keys", k), ("values", v), ("scores", scores)):
            near(steps[name][h], value)
        near(steps["weights"][h], chances)
        near(steps["read"][h], chances @ v)
        heads.append(chances @ v)
    out = torch.cat(heads, 1) @ w[layer + "sublayer.out.weight"].T + w[layer + "sublayer.out.bias"]
    near(steps["out"], out)
    norm = w[layer + "norm.weight"], w[layer + "norm.bias"]
    if config.norm_order == "post":
        near(steps["after"], F.layer_norm(x + out, (config.dim,), *norm))
    assert (
        steps["answer"]
        == model.tokenizer.target.decode(
            model.generate(torch.tensor([steps["ids"]]), beams=1, max_new_tokens=40)[0].tolist()
        )
        or len(steps["written"]) < 40
    )


def test_the_page_in_the_examples_adds_up():
    text = PAGE.read_text("utf-8")
    assert len(text) < 300_000 and not re.search(r"(src|href)\s*=|@import|url\(", text)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    q, k, v = (torch.tensor(data[name]) for name in ("queries", "keys", "values"))
    near(
        data["entering"],
        torch.tensor(data["embedding"]) + torch.tensor(data["positions"])[: len(data["source"])],
    )
    scores = q @ k.transpose(1, 2) / math.sqrt(data["width"])
    near(data["scores"], scores)
    near(data["weights"], scores.softmax(-1))
    near(data["read"], torch.tensor(data["weights"]) @ v)
    near(data["sum"], torch.tensor(data["entering"]) + torch.tensor(data["out"]))
    near(torch.tensor(data["alignment"]).sum(-1), torch.ones(len(data["written"])))
    logits, chances = torch.tensor(data["logits"]), torch.tensor(data["chances"])
    near(chances / chances[:, :1], (logits - logits[:, :1]).exp(), 1e-2)
    assert (chances.sum(-1) <= 1.001).all() and data["answer"] == "a picture of a small red square"
    assert [best[0] for best in data["best"]] == data["written"]


def test_the_page_is_made_of_the_template():
    spec = importlib.util.spec_from_file_location("look_example", ROOT / "examples" / "look.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    made = example.page(family.load(RUN).model, "un cercle rouge")
    assert "un cercle rouge" in made and "{{data}}" not in made
    template = (ROOT / "examples" / "look" / "template.html").read_text("utf-8")
    shown = PAGE.read_text("utf-8")
    for part in template.split("{{data}}"):
        assert part in made and part in shown


def test_other_attention_is_refused():
    base = family.TransformerConfig(dim=16, depth=1, heads=4)
    for fields in ({"position": "rotary"}, {"causal": True}, {"kv_heads": 2}, {"key_bias": False}):
        with pytest.raises(ValueError, match="is written out"):
            attention_steps(Attention(base.replace(**fields)), torch.randn(3, 16))
    attention = Attention(base)
    x = torch.randn(3, 16)
    torch.testing.assert_close(attention_steps(attention, x)["out"], attention(x[None])[0])
