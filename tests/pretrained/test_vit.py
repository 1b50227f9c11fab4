"""ViT, DeiT, DINOv2: files as the hub has them, other sizes, what is refused."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import family
from family.inputs.preprocess import Preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import timm
from cases import vision
from folders import (
    REMOVED,
    change,
    close,
    refuses,
    rewrite,
    same,
    weights_of,
    write,
)
from harness import randomise

CLASSIFIER = partial(vision.made, "ViT", "ViTForImageClassification", num_labels=vision.CLASSES)
CLASSES = SimpleNamespace(batch=vision.pictures, ours=vision.logits, theirs=vision.logits)
TOKENS = SimpleNamespace(batch=vision.pictures, ours=vision.tokens, theirs=vision.hidden)


def test_bare_model_under_either_name(tmp_path):
    theirs = write(vision.made("ViT", "ViTModel"), tmp_path)
    assert "embeddings.cls_token" in weights_of(tmp_path)
    ours = same(TOKENS, tmp_path, theirs)
    assert ours.num_classes == 0 and ours.arguments["pooling"].pooler == "tanh"
    rewrite(tmp_path, lambda name: f"vit.{name}")
    same(TOKENS, tmp_path, theirs)
    rewrite(tmp_path, lambda name: "" if "pooler" in name else name)
    assert family.from_pretrained(tmp_path).pooler is None


def test_two_classes_need_no_names(tmp_path):
    theirs = write(CLASSIFIER(num_labels=2), tmp_path)
    change(tmp_path, id2label=REMOVED, label2id=REMOVED, architectures=REMOVED)
    assert same(CLASSES, tmp_path, theirs).labels is None


def test_labels_and_preprocessing_go_and_come(tmp_path):
    transformers = pytest.importorskip("transformers")
    labels = [f"kind {i}" for i in range(6)]
    write(CLASSIFIER(id2label=dict(enumerate(labels)), num_labels=6), tmp_path / "a")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "a")
    ours = family.from_pretrained(tmp_path / "a")
    assert ours.labels == labels
    assert ours.preprocess == Preprocess((32, 32), "squash", (0.5,) * 3, (0.5,) * 3)
    family.save_pretrained(ours, tmp_path / "b", format="vit")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "b")
    assert theirs.config.id2label == dict(enumerate(labels))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "b")
    assert type(processor) is transformers.ViTImageProcessor
    again = family.from_pretrained(tmp_path / "b")
    assert (again.labels, again.preprocess) == (ours.labels, ours.preprocess)


def test_mask_token(tmp_path):
    """The hub's files have one, which only training reads."""
    theirs = write(vision.made("Dinov2", "Dinov2Model"), tmp_path)
    assert "embeddings.mask_token" in weights_of(tmp_path)
    same(TOKENS, tmp_path, theirs)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architectures": ["ViTForMaskedImageModeling"]}, ["ViTForMaskedImageModeling"]),
        ({"hidden_act": "mish"}, ["hidden_act", "mish", "gelu"]),
        ({"hidden_size": REMOVED}, ["hidden_size"]),
        ({"num_attention_heads": 5}, ["heads=5", "48"]),
        ({"image_size": 48}, ["position", "(17, 48)", "(37, 48)"]),
        ({"image_size": 7}, ["7 x 7", "8 x 8"]),
        ({"num_hidden_layers": 3}, ["vit.encoder.layer.2."]),
        ({"num_hidden_layers": 1}, ["vit.encoder.layer.1."]),
        ({"qkv_bias": False}, ["vit.encoder.layer.0.attention.attention.key.bias"]),
    ],
)
def test_what_a_config_cannot_say(fields, words, tmp_path):
    write(CLASSIFIER(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def test_weights_are_strict(tmp_path):
    write(CLASSIFIER(), tmp_path)
    rewrite(tmp_path, vit_decoder=torch.zeros(3))
    refuses(tmp_path, "vit_decoder")
    rewrite(tmp_path, lambda name: "" if name in ("vit_decoder", "vit.layernorm.bias") else name)
    refuses(tmp_path, "vit.layernorm.bias")
    write(vision.made("ViT", "ViTModel", pooler_output_size=8), tmp_path / "narrow")
    refuses(tmp_path / "narrow", "pooler_output_size=8")


@pytest.mark.parametrize("format", ["vit", "deit", "dinov2", "timm"])
def test_what_a_format_cannot_say(format, tmp_path):
    model = family.vit_tiny(5, 8, 32, dim=24, depth=1, stem="conv")
    with pytest.raises(ValueError, match=rf"{format}.*(stem|layer_scale)"):
        family.save_pretrained(model, tmp_path / "a", format=format)
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match=format):
        family.save_pretrained(family.gpt_nano(61), tmp_path / "a", format=format)


def test_classes_behind_a_pooler_are_refused(tmp_path):
    model = family.vit_tiny(5, 8, 32, dim=24, depth=1, pooler="tanh")
    with pytest.raises(ValueError, match="pooler"):
        family.save_pretrained(model, tmp_path / "a", format="vit")


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("ViT", "ViTModel"),
        ("DeiT", "DeiTModel"),
        ("Dinov2", "Dinov2Model"),
        ("Dinov2WithRegisters", "Dinov2WithRegistersModel"),
    ],
)
def test_positions_at_another_size(kind, model, tmp_path):
    """As their own interpolation has it; DINOv2's, which is the usual case there, by itself."""
    theirs = vision.made(kind, model).eval()
    randomise(theirs)
    asked = {} if "Dinov2" in kind else {"interpolate_pos_encoding": True}
    for size in [(48, 32), (24, 40)]:
        x = vision.pictures(*size)["pixel_values"]
        expected = theirs(x, **asked).last_hidden_state
        close(family.from_pretrained(theirs).forward_features(x), expected)
        made = family.from_pretrained(theirs, image_size=size)
        close(made.forward_features(x), expected)
    assert made.image_size == size and made.arguments["image_size"] == size


@pytest.mark.parametrize(
    "build",
    [
        CLASSIFIER,
        partial(vision.made, "Dinov2", "Dinov2ForImageClassification", num_labels=6),
        partial(vision.made, "DeiT", "DeiTForImageClassificationWithTeacher", num_labels=6),
        partial(vision.made, "ViT", "ViTModel"),
        partial(timm.create_model, "vit_tiny_patch16_224", img_size=32, num_classes=6, depth=2),
    ],
)
def test_other_classes(build, caplog):
    theirs = build().eval()
    randomise(theirs)
    ours = family.from_pretrained(theirs, num_classes=4)
    logits = ours(vision.pictures()["pixel_values"])
    assert logits.shape == (3, 4) and not logits.any()  # a fresh head finds all equally likely
    assert ours.labels is None and "starts afresh" in caplog.text
    kept = family.from_pretrained(theirs)
    x = vision.pictures()["pixel_values"]
    assert torch.equal(ours.forward_features(x), kept.forward_features(x))


def test_distilled_head_is_the_mean_of_two():
    ours = family.vit_tiny(5, 8, 32, dim=24, depth=1, distilled=True).eval()
    assert ours.num_prefix_tokens == 2
    for head, value in ((ours.head, 1.0), (ours.distilled_head, 3.0)):
        torch.nn.init.constant_(head.bias, value)
    x = vision.pictures()["pixel_values"]
    assert torch.equal(ours(x), torch.full((3, 5), 2.0))
    features = ours.forward_features(x)
    close(ours.forward_head(features, pre_logits=True), features[:, :2].mean(1))
    for wrong in ({"pool": "mean"}, {"pool_norm": True}, {"pooler": "tanh"}):
        with pytest.raises(ValueError, match="distilled"):
            family.vit_tiny(5, 8, 32, dim=24, depth=1, distilled=True, **wrong)


def test_pools():
    ours = family.vit_tiny(5, 8, 32, dim=24, depth=1, pool="class+mean").eval()
    features = ours.forward_features(vision.pictures()["pixel_values"])
    pooled = ours.forward_head(features, pre_logits=True)
    close(pooled, torch.cat([features[:, 0], features[:, 1:].mean(1)], dim=1))
    assert ours.head.in_features == 48
    with pytest.raises(ValueError, match="class_token"):
        family.vit_tiny(5, 8, 32, dim=24, pool="class+mean", class_token=False)
    with pytest.raises(ValueError, match="norm_after"):
        family.vit_tiny(5, 8, 32, dim=24, pool="class+mean", pool_norm=True)


@pytest.mark.parametrize("wrong", [{"interpolation": "nearest"}, {"prefix_positions": "registers"}])
def test_bad_positions(wrong):
    with pytest.raises(ValueError, match="choose one of"):
        family.vit_tiny(5, 8, 32, dim=24, depth=1, **wrong)
