"""VideoMAE: files as the hub has them, fresh classes, what is refused."""

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
import transformers
from cases import video
from cases.vision import CLASSES, logits, made
from folders import (
    REMOVED,
    change,
    close,
    config_of,
    refuses,
    rewrite,
    same,
    weights_of,
    write,
)

OPTIONS = {**video.CLIP, "num_labels": CLASSES}
CLASSIFIER = partial(made, "VideoMAE", "VideoMAEForVideoClassification", **OPTIONS)
CLIPS = SimpleNamespace(batch=video.clips, ours=logits, theirs=logits)
TOKENS = SimpleNamespace(batch=video.clips, ours=video.tokens, theirs=video.hidden)
SMALL = {"dim": 24, "depth": 1, "heads": 2, "image_size": 16, "patch_size": 8}


@pytest.mark.slow
def test_published_size():
    theirs = transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(num_labels=400, num_hidden_layers=1)
    )
    ours = family.videomae_base(depth=1)
    counts = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
    assert counts[0] == counts[1]
    assert family.from_pretrained(theirs).config == ours.config


def test_files_of_version_4(tmp_path):
    """They call the biases of queries and values otherwise, and leave out what is usual."""
    theirs = write(CLASSIFIER(), tmp_path)
    assert any(name.endswith("attention.q_bias") for name in weights_of(tmp_path))
    removed = dict.fromkeys(("qv_bias", "use_mean_pooling", "tubelet_size", "hidden_act"), REMOVED)
    change(tmp_path, qkv_bias=True, **removed)
    same(CLIPS, tmp_path, theirs)
    rewrite(tmp_path, lambda name: name.replace(".q_bias", ".query.bias"))
    same(CLIPS, tmp_path, theirs)
    change(tmp_path, qkv_bias=False, qv_bias=True)
    refuses(tmp_path, "query.bias")


@pytest.mark.parametrize("mean", [True, False])
def test_the_encoder_of_pre_training(mean, tmp_path):
    """Square patches, as their decoder needs them; what it is for is not read."""
    square = {"image_size": 32, "patch_size": 8, "num_frames": 4, "use_mean_pooling": mean}
    decoder = {"decoder_hidden_size": 24, "decoder_intermediate_size": 32}
    theirs = write(made("VideoMAE", "VideoMAEForPreTraining", **square, **decoder), tmp_path)
    assert "encoder_to_decoder.weight" in weights_of(tmp_path)
    ours, x = family.from_pretrained(tmp_path), torch.randn(2, 4, 3, 32, 32)
    close(ours.forward_features(x), theirs.videomae(x).last_hidden_state)
    fresh = family.from_pretrained(tmp_path, num_classes=3)
    assert torch.equal(fresh(x), torch.zeros(2, 3))
    assert torch.equal(fresh.forward_features(x), ours.forward_features(x))


def test_bare_model_under_either_name(tmp_path):
    theirs = write(made("VideoMAE", "VideoMAEModel", **video.CLIP), tmp_path)
    ours = same(TOKENS, tmp_path, theirs)
    x = video.clips()["pixel_values"]
    close(ours(x), ours.forward_features(x).mean(1))
    rewrite(tmp_path, lambda name: f"videomae.{name}")
    same(TOKENS, tmp_path, theirs)


@pytest.mark.parametrize("kind", ["Image", "Video"])
def test_labels_and_preprocessing_go_and_come(kind, tmp_path):
    labels = [f"kind {i}" for i in range(6)]
    write(CLASSIFIER(id2label=dict(enumerate(labels))), tmp_path / "a")
    processor = getattr(transformers, f"VideoMAE{kind}Processor")
    size = {"height": 32, "width": 32}
    processor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(tmp_path / "a")
    ours = family.from_pretrained(tmp_path / "a")
    assert ours.labels == labels
    half = (0.5,) * 3
    assert ours.preprocess == Preprocess((32, 32), "crop", half, half, resized=32, floor=True)
    family.save_pretrained(ours, tmp_path / "b", format="videomae")
    again = transformers.AutoImageProcessor.from_pretrained(tmp_path / "b")
    assert type(again) is transformers.VideoMAEImageProcessor
    assert config_of(tmp_path / "b")["id2label"]["3"] == "kind 3"
    again = family.from_pretrained(tmp_path / "b")
    assert (again.labels, again.preprocess) == (ours.labels, ours.preprocess)
    fresh = family.from_pretrained(tmp_path / "a", num_classes=4)
    assert fresh.labels is None and fresh.head.out_features == 4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_frames": 5}, ["5 frames of 24 x 32", "2 x 8 x 16"]),
        ({"image_size": 28}, ["28 x 28 pixels", "2 x 8 x 16"]),
        ({"tubelet_size": 3}, ["projection", "(48, 3, 2, 8, 16)", "(48, 3, 3, 8, 16)"]),
        ({"use_mean_pooling": False}, ["videomae.layernorm.weight"]),
        ({"hidden_act": "mish"}, ["hidden_act", "mish"]),
        ({"num_hidden_layers": 3}, ["videomae.encoder.layer.2."]),
    ],
)
def test_what_a_config_cannot_say(fields, words, tmp_path):
    write(CLASSIFIER(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"final_norm": False}, "norm after pooling"),
        ({"num_classes": 0}, "norm after pooling"),
        ({"position": "none"}, "position='none'"),
        ({"key_bias": True}, "q_bias|key_bias"),
        ({"layer_scale": 0.1}, "layer_scale|self_attention.scale"),
    ],
)
def test_what_the_format_cannot_say(options, words, tmp_path):
    model = family.videomae_base(**{"num_classes": 3, "frames": 4, **SMALL, **options})
    with pytest.raises(ValueError, match=words):
        family.save_pretrained(model, tmp_path / "a", format="videomae")
