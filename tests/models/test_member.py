"""Arguments of members: nested configs, flat overrides, and what records of before say flatly."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from torch import nn

import family
from family.adapt.resize import class_arguments
from family.core.config import TransformerConfig
from family.models.member import (
    build,
    complete,
    describe,
    is_member,
    placed,
    ready,
    tasks_of,
)
from tasks.runs.checkpoints import build_model, completed

STACK = {"dim": 24, "depth": 1, "heads": 2, "position": "learned"}
TEXT = {**STACK, "max_tokens": 12}
SIZES = {"image_size": 16, "patch_size": 8}
UNUSED = {"pooler": None, "distilled": False, "head_bias": True, "head_dropout": 0.0}
BEFORE = {
    "ViT": (
        {
            **{"num_classes": 5, "config": STACK, **SIZES, **UNUSED, "pool": "mean", "channels": 1},
            **{
                "class_token": False,
                "register_tokens": 0,
                "prefix_positions": True,
                "stem": "conv",
            },
            **{"patch_bias": True, "embedding_norm": True, "interpolation": "bicubic"},
            **{"coordinates": "index", "drop_rest": False, "pool_norm": False},
        },
        {
            "patches": {
                **{"class_token": False, "stem": "conv", "norm": True, "interpolation": "bicubic"},
                "channels": 1,
            },
            "pooling": {"kind": "mean", "norm_after": False},
        },
    ),
    "ViT with what was not its default": (
        {"num_classes": 5, "config": STACK, **SIZES, "pool": "mean", "head_dropout": 0.1},
        {"pooling": {"kind": "mean", "head_dropout": 0.1}},
    ),
    "CLIP": (
        {
            **{"vocab_size": 40, "image": STACK, "text": TEXT, "embed_dim": 24, **SIZES},
            **{"image_pool": "attention", "text_pool": "eos", "eos_id": None, "logit_bias": True},
            **{"image_tower": None, "image_norm": False, "image_projection": False},
            **{"interpolation": "bicubic", "drop_rest": False, "fill_id": 1, "text_bias": True},
        },
        {
            "logit_bias": True,
            "patches": {
                "class_token": False,
                "norm": False,
                "bias": True,
                "interpolation": "bicubic",
            },
            "pooling": {
                **{"image": "attention", "image_projection": False, "fill_id": 1},
                "text_projection_bias": True,
            },
        },
    ),
    "CLIP with what was not its default": (
        {
            "vocab_size": 40,
            "image": STACK,
            "text": TEXT,
            **SIZES,
            "text_pool": "mean",
            "eos_id": 39,
        },
        {"pooling": {"text": "mean", "eos_id": 39}},
    ),
    "Segmenter": (
        {
            **{"num_classes": 4, "config": STACK, **SIZES, **UNUSED, "stem": "conv"},
            **{"decoder": "mask", "decoder_depth": 1, "class_token": False, "patch_bias": False},
        },
        {
            "decoder_depth": 1,
            "patches": {"stem": "conv", "class_token": False, "bias": False},
        },
    ),
    "VideoViT": (
        {"num_classes": 5, "config": {**STACK, "position": "none"}, **SIZES, "pool": "class"},
        {"pool": "class"},
    ),
    "Fusion": (
        {
            **{
                "vocab_size": 40,
                "config": TEXT,
                "num_classes": 5,
                "image_size": 20,
                "patch_size": 8,
            },
            **{"interpolation": "aligned", "drop_rest": True, "channels": 1},
        },
        {"patches": {"drop_rest": True, "channels": 1, "interpolation": "aligned"}},
    ),
}
"""Arguments of before, flat -> where they stand now."""


@pytest.mark.parametrize("name", BEFORE)
def test_records_of_before_say_what_they_said(name):
    flat, differing = BEFORE[name]
    cls = getattr(family, name.split()[0])
    own = {n: v for n, v in flat.items() if n in describe(build(cls, flat))["arguments"]}
    assert complete(cls, flat) == complete(cls, {**own, **differing})
    path = f"family.{cls.__name__}"
    model = build_model({"class_path": path, "init_args": flat}, {})
    assert describe(model)["arguments"] == complete(cls, flat)
    now = {"class_path": path, "init_args": describe(model)["arguments"]}
    assert completed({"class_path": path, "init_args": flat}) == completed(now)


def test_a_folder_of_before_is_read_to_the_bit(tmp_path):
    flat, _ = BEFORE["ViT"]
    model = build(family.ViT, flat).eval()
    nn.init.normal_(model.head.weight)
    family.save_pretrained(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["arguments"] = flat
    (tmp_path / "config.json").write_text(json.dumps(config))
    x = torch.randn(2, 1, 16, 16)
    again = family.from_pretrained(tmp_path)
    assert torch.equal(again(x), model(x))
    assert again.arguments == model.arguments


def test_a_norm_in_place_of_the_bias_and_a_token_for_its_pooling():
    """What single arguments of CLIP said of several things."""
    flat = {"vocab_size": 40, "image": STACK, "text": TEXT, "embed_dim": 8, **SIZES}
    for said, patches in (
        ({}, (True, False, True)),
        ({"image_norm": False}, (False, True, True)),
        ({"image_pool": "mean"}, (True, False, False)),
    ):
        made = ready(family.CLIP, {**flat, **said})
        made = made.get("patches", family.CLIP(**made).arguments["patches"])
        assert (made.norm, made.bias, made.class_token) == patches


def test_overrides_reach_the_config_that_has_the_field():
    model = family.vit_tiny(
        5, 8, 16, dim=24, heads=2, depth=1, bias=False, norm="rmsnorm", stem="conv", pool="mean"
    )
    assert (model.config.bias, model.config.norm) == (
        False,
        "rmsnorm",
    )  # the stack's, which is first
    patches = model.arguments["patches"]
    assert (patches.stem, patches.bias, patches.norm) == ("conv", True, False)
    assert model.pooling.kind == "mean"
    nested = family.dinov3_vit_small(0, 8, 16, depth=1, patches={"register_tokens": 1})
    assert nested.num_prefix_tokens == 2
    assert nested.arguments["patches"].coordinates == "centre"
    stack = family.transformer_tiny(40, depth=1, dropout=0.2)  # of two stacks, the one it must have
    assert (stack.config.dropout, stack.config.depth) == (0.2, 1)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: family.vit_tiny(5, stemm="conv"),
            "ViT: got an unexpected keyword argument 'stemm'",
        ),
        (
            lambda: family.vit_tiny(5, patches={"stemm": "conv"}),
            "patches has the unknown field 'stemm'",
        ),
        (
            lambda: family.vit_tiny(5, patches=family.PatchConfig(), stem="conv"),
            "stem='conv' stands beside patches=.*: give one of them",
        ),
        (
            lambda: build(family.Segmenter, {"num_classes": 4, "config": STACK, "distilled": True}),
            "distilled=True is no argument of Segmenter any more",
        ),
        (
            lambda: build(
                family.CLIP, {"vocab_size": 40, "image": STACK, "text": TEXT, "depth": 1}
            ),
            "CLIP: got an unexpected keyword argument 'depth'",
        ),
    ],
)
def test_one_sentence_for_what_has_no_place(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


class Strange(nn.Module):
    """No member: one stack by its annotation, one without, and what is no config."""

    def __init__(self, stack: TransformerConfig, other, options: dict, **more):
        super().__init__()


def test_dictionaries_become_what_annotations_say():
    small = {"dim": 16, "heads": 2}
    made = ready(Strange, {"stack": small, "other": small, "options": small, "depth": 3})
    config = TransformerConfig(**small)
    # A stranger's own dictionaries stay what they are, whatever their names.
    assert made == {"stack": config, "other": small, "options": small, "depth": 3}
    assert ready(Strange, {"other": {"width": 3}}) == {"other": {"width": 3}}
    assert placed(Strange, {"stack": small}) == {"stack": small}


def test_old_names_say_where_they_stand_now():
    with pytest.raises(TypeError, match=r"ViT takes no pool: it is pooling\.kind now"):
        family.ViT(5, TransformerConfig(**STACK), 16, 8, pool="mean")


@pytest.mark.parametrize("name", [n for n in dir(family) if is_member(getattr(family, n))])
def test_the_weights_of_classes_are_there(name):
    cls = getattr(family, name)
    more = {}
    if "two_stage" in inspect.signature(cls).parameters:
        more = {"anchors": True, "two_stage": True, "denoising": 5}
    if "distilled" in inspect.signature(cls).parameters:
        more = {"distilled": True}
    models = [cls(**{**cls.facts.example, **more})]
    if "masked_head" in inspect.signature(cls).parameters:
        models.append(cls(**{**cls.facts.example, "masked_head": True, "replaced_head": True}))
    if "decoder" in inspect.signature(cls).parameters and cls.facts.task == "Segmentation":
        models.append(cls(**{**cls.facts.example, "decoder": "linear"}))
    names = [n for model in models for n, _ in model.named_parameters()]
    assert all(any(n.startswith(start) for n in names) for start in cls.facts.classes)


def test_what_a_head_is_for():
    """One table: arguments that make a model of a head, and by which it is known again."""
    tiny = {**family.BERT.facts.example, "masked_head": False}
    usual = family.BERT(**tiny)
    assert tasks_of(usual) == ["TextClassification"]
    both = family.BERT(**{**tiny, "masked_head": True})
    assert tasks_of(both) == ["TextClassification", "MaskedLanguageModeling"]
    tagger = family.BERT(**tiny, pooling="tokens")
    assert tasks_of(tagger) == ["Tagging"] and tagger.facts.task == "Tagging"
    assert tasks_of(family.BERT) == ["TextClassification"]
    assert class_arguments(family.BERT, 3, "Tagging")["pooling"] == "tokens"
    masked = class_arguments(family.BERT, 3, "MaskedLanguageModeling")
    assert masked == class_arguments(family.BERT, 3)  # it tells no classes apart
