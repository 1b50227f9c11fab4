"""Diagrams: what is drawn is what the configs say."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

import family
from family.look.diagram import block_boxes, diagram, differing
from family.look.outline import layer_kinds, outline_of, short
from family.models.member import is_member

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def outlined(model, name=""):
    torch.manual_seed(0)
    batch = model.facts.inputs.draw(model, 0)
    return outline_of(model.eval(), name, lambda: model(**batch))


def texts(svg):
    return [one.text for one in ET.fromstring(svg).iter(f"{SVG}text")]


def titles(outline):
    return [[part.name for part in column] for column in outline.columns]


TINY = {"dim": 16, "depth": 2, "heads": 2}


def test_parts_stand_as_they_compute():
    seq = outlined(family.transformer_tiny(40, **TINY))
    assert titles(seq) == [["source_embedding", "encoder"], ["target_embedding", "decoder", "head"]]
    bert = outlined(family.bert_tiny(40, **TINY))
    assert titles(bert) == [["embedding", "transformer", "masked_head"]]
    detr = outlined(family.DETR(5, family.TransformerConfig(**TINY), "patch", queries=3))
    assert titles(detr) == [["backbone", "encoder"], ["queries", "decoder", "head"]]
    clip = outlined(family.CLIP(**family.CLIP.facts.example))
    assert [column[0].reads for column in clip.columns] == ["picture", "text"]
    unrun = outline_of(family.gpt_nano(40, **TINY))
    assert titles(unrun) == [["embedding", "transformer", "head"]]
    assert unrun.parameters == sum(p.numel() for p in family.gpt_nano(40, **TINY).parameters())


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("pre", ["layer norm", "self-attention", "+"]),
        ("post", ["self-attention", "+", "layer norm"]),
        ("sandwich", ["layer norm", "self-attention", "layer norm", "+"]),
        ("branch", ["self-attention", "layer norm", "+"]),
    ],
)
def test_norms_stand_where_the_block_has_them(order, expected):
    config = family.TransformerConfig(**TINY, norm_order=order)
    first, second = block_boxes(config)
    assert [(box.lines or ["+"])[0] for box in first] == expected
    assert "feed-forward" in [(box.lines or ["+"])[0] for box in second]
    assert len(block_boxes(config.replace(norm_order="pre", parallel=True))) == 1


def test_layers_that_differ():
    near = {"window": 4, "rotary_base": 1e4}
    config = family.TransformerConfig(
        dim=16,
        depth=6,
        heads=4,
        kv_heads=1,
        causal=True,
        position="rotary",
        layers=[near] * 5 + [{}],
    )
    which, words = layer_kinds(tuple(config.at(i) for i in range(6)))
    assert which == [0] * 5 + [1]
    assert words == ["window 4", "window none"]  # the base is the usual one in both
    svg = diagram([outlined(family.GPT(40, config))])
    assert {"4 heads on 1 of keys × 4", "causal, window 4", "window none"} <= {*texts(svg)}


def test_what_differs_stands_out():
    gpt, bert = (
        outlined(family.gpt_nano(40, **TINY), "mine"),
        outlined(family.bert_tiny(40, **TINY)),
    )
    rows = dict(differing([gpt, bert]))
    assert rows["causal"] == ["yes", "no"] and rows["norm order"] == ["pre", "post"]
    assert "heads" not in rows and differing([gpt]) == []
    svg = diagram([gpt, bert])
    assert {"mine", "BERT", "what differs", "norm order"} <= {*texts(svg)}
    bold = [
        one.text for one in ET.fromstring(svg).iter(f"{SVG}text") if one.get("fill") == "#c2410c"
    ]
    assert "causal" in bold and "both ways" in bold and "2 heads × 8" not in bold


def test_numbers_for_readers():
    assert [short(n) for n in (12, 1234, 124_439_808, 6_738_415_616)] == [
        "12",
        "1.23 K",
        "124 M",
        "6.74 B",
    ]


def test_the_figure_of_the_readme_has_every_member():
    spec = importlib.util.spec_from_file_location("figure", ROOT / "examples" / "figure.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    members = example.members()
    drawn = example.portrait(members)
    shown = (ROOT / "examples" / "gallery" / "family.svg").read_text("utf-8")
    assert drawn == shown, "python examples/figure.py examples/gallery/family.svg draws it anew"
    assert not any(
        word in shown for word in ("<script", "foreignObject", "http://", "https://")[:2]
    )
    ours = {name for name in dir(family) if is_member(getattr(family, name))}
    assert {one.name for one, _ in members} <= ours and len(members) > 15
    assert {one.name for one, _ in members} <= {*texts(shown)}
    assert "examples/gallery/family.svg" in (ROOT / "README.md").read_text("utf-8")
