"""Preprocessing of pictures against transformers, timm and open_clip, and its files."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from family.inputs.preprocess import Preprocess
from family.pretrained.images import (
    from_open_clip,
    from_timm,
    from_transformers,
    read_preprocess,
    to_open_clip,
    to_timm,
    to_transformers,
)

SHAPES = [(97, 64), (50, 83), (40, 40), (31, 90)]
KINDS = {
    "ViT": {"size": {"height": 32, "width": 24}},
    "DeiT": {"size": {"height": 40, "width": 36}, "crop_size": {"height": 33, "width": 30}},
    "Bit": {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}},
    "CLIP": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    "Siglip": {"size": {"height": 32, "width": 32}},
    "Detr": {"size": {"shortest_edge": 30, "longest_edge": 55}},
    "VideoMAE": {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}},
    "Vilt": {"size": {"shortest_edge": 38}, "size_divisor": 4},
}


def picture(height, width, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def assert_levels(ours, theirs, std, levels):
    """Equal to so many of the 256 levels that a pixel has."""
    assert ours.shape == theirs.shape
    level = 1 / 255 / min(std)
    assert float((ours - theirs).abs().max()) <= (levels + 0.01) * level
    assert float((ours - theirs).abs().mean()) <= 0.5 * level


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_transformers(kind, shape):
    """With Pillow both do the same. By torchvision, transformers' default, pixels of noise come out up
    to 4 levels beside: Pillow rounds and cuts to 0..255 between the two directions."""
    transformers = pytest.importorskip("transformers")
    image = picture(*shape)
    for backend, levels in (("ImageProcessorPil", 0), ("ImageProcessor", 4)):
        processor = getattr(transformers, kind + backend)(**KINDS[kind])
        ours = from_transformers(processor.to_dict())
        theirs = processor(image, return_tensors="pt").pixel_values[0]
        theirs = theirs[0] if kind == "VideoMAE" else theirs  # a frame of a clip
        assert_levels(ours(image), theirs, ours.std, levels)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_we_write(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, f"{kind}ImageProcessor")(**KINDS[kind])
    ours = from_transformers(processor.to_dict())
    fields = to_transformers(ours, f"{kind}ImageProcessor")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    again = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert type(again) is type(processor)
    assert from_transformers(again.to_dict()) == ours
    assert read_preprocess(tmp_path) == ours


@pytest.mark.parametrize(
    ("older", "today"),
    [
        (
            {"feature_extractor_type": "ViTFeatureExtractor", "size": 32},
            Preprocess((32, 32), "squash", (0.1,) * 3, (0.2,) * 3),
        ),
        (
            {
                "feature_extractor_type": "CLIPFeatureExtractor",
                "size": 36,
                "crop_size": 32,
                "do_center_crop": True,
                "resample": 3,
            },
            Preprocess((32, 32), "crop", (0.1,) * 3, (0.2,) * 3, "bicubic", 36, True),
        ),
        (
            {"feature_extractor_type": "DeiTFeatureExtractor", "size": 36, "crop_size": 32}
            | {"do_center_crop": True},
            Preprocess((32, 32), "crop", (0.1,) * 3, (0.2,) * 3, resized=(36, 36), floor=True),
        ),
        (
            {"feature_extractor_type": "DetrFeatureExtractor", "size": 800, "max_size": 1333},
            Preprocess((800, 1333), "edges", (0.1,) * 3, (0.2,) * 3),
        ),
        (
            {"feature_extractor_type": "VideoMAEFeatureExtractor", "size": 32, "crop_size": 32}
            | {"do_center_crop": True},
            Preprocess((32, 32), "crop", (0.1,) * 3, (0.2,) * 3, resized=32, floor=True),
        ),
        (
            {"feature_extractor_type": "ViltFeatureExtractor", "size": 384, "size_divisor": 32},
            Preprocess((384, 639), "edges", (0.1,) * 3, (0.2,) * 3, multiple=32),
        ),
        (
            {"size": {"height": 32, "width": 32}, "do_normalize": False},
            Preprocess((32, 32), "squash", (0.0,) * 3, (1.0,) * 3),
        ),
    ],
)
def test_older_files(older, today, tmp_path):
    fields = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "resample": 2, **older}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    assert read_preprocess(tmp_path) == today
    # Version 5 may put it among a processor's other parts.
    (tmp_path / "preprocessor_config.json").unlink()
    nested = {"processor_class": "CLIPProcessor", "image_processor": fields}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert read_preprocess(tmp_path) == today


@pytest.mark.parametrize(
    "fields",
    [
        {"do_resize": False, "size": {"height": 32, "width": 32}},
        {"rescale_factor": 1 / 127, "size": {"height": 32, "width": 32}},
        {"size": {"max_height": 32, "max_width": 32}},
        {"size": {"shortest_edge": 32}},
        {"size": "large"},
        {},
    ],
)
def test_what_we_cannot_do_is_said(fields, tmp_path, caplog):
    fields = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, **fields}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    with caplog.at_level(logging.WARNING):
        assert read_preprocess(tmp_path) is None
    assert "model.preprocess is None" in caplog.text
    assert str(tmp_path) in caplog.text


def test_folders_without_pictures(tmp_path):
    assert read_preprocess(tmp_path) is None
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 16000}')
    assert read_preprocess(tmp_path) is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_timm(mode, share, shape):
    timm = pytest.importorskip("timm")
    fields = {
        "input_size": (3, 32, 32),
        "crop_pct": share,
        "crop_mode": mode,
        "interpolation": "bicubic",
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.3, 0.4),
    }
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=fields))
    ours, image = from_timm(fields), picture(*shape)
    torch.testing.assert_close(ours(image), transform(image), rtol=0, atol=1e-6)
    assert from_timm(to_timm(ours, 3)) == ours


@pytest.mark.parametrize("size", [224, 336, 378, 518])
@pytest.mark.parametrize("extra", range(0, 60, 7))
def test_share_of_a_crop_comes_back(size, extra):
    ours = Preprocess((size, size), "crop", resized=size + extra)
    assert from_timm(to_timm(ours, 3)).resized == size + extra


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("shape", SHAPES)
def test_open_clip(mode, shape):
    transform = pytest.importorskip("open_clip.transform")
    fields = {"size": 32, "resize_mode": mode, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    theirs = transform.image_transform_v2(transform.PreprocessCfg(**fields), is_train=False)
    ours, image = from_open_clip(fields), picture(*shape)
    torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-6)
    assert from_open_clip(to_open_clip(ours)) == ours


def test_open_clip_defaults():
    constants = pytest.importorskip("open_clip.constants")
    ours = from_open_clip({})
    assert ours.mean == constants.OPENAI_DATASET_MEAN
    assert ours.std == constants.OPENAI_DATASET_STD
    assert ours.size == (224, 224)


@pytest.mark.parametrize("write", [lambda p: to_timm(p, 3), to_open_clip])
def test_what_a_library_cannot_do_is_refused(write):
    with pytest.raises(ValueError, match="edges"):
        write(Preprocess((800, 1333), "edges"))
    with pytest.raises(ValueError, match=r"32, 24"):
        write(Preprocess((32, 24), "crop"))
    with pytest.raises(ValueError, match="longest"):
        to_transformers(Preprocess((32, 24), "longest"), "ViTImageProcessor")


def test_another_size():
    assert Preprocess((32, 32)).at(48).size == (48, 48)
    cropped = Preprocess((224, 224), "crop", resized=256).at(448)
    assert (cropped.size, cropped.resized) == ((448, 448), 512)
    squashed = Preprocess((224, 224), "crop", resized=(256, 256)).at((112, 224))
    assert (squashed.size, squashed.resized) == ((112, 224), (128, 256))
    assert Preprocess((800, 1333), "edges").at(400).size == (400, 666)


def test_edges_are_detr_rule():
    ours = Preprocess((800, 1333), "edges")
    assert ours.target_size(480, 640) == (800, 1066)
    assert ours.target_size(500, 2000) == (333, 1333)
    assert ours.target_size(2000, 500) == (1333, 333)
    assert ours.target_size(800, 900) == (800, 900)


def test_smaller_pictures_are_filled_up():
    image = picture(8, 8)
    ours = Preprocess((12, 11), "crop", (0.0,) * 3, (1.0,) * 3, resized=(8, 8))(image)
    assert ours.shape == (3, 12, 11)
    inside = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    torch.testing.assert_close(ours[:, 2:10, 1:9], inside, rtol=0, atol=1e-6)
    assert math.isclose(float(ours.sum()), float(inside.sum()), rel_tol=1e-5)


def test_bad_preprocess():
    with pytest.raises(ValueError, match="resized=40"):
        Preprocess((32, 32), "squash", resized=40)


@pytest.mark.parametrize(
    "kind", ["ConvNextImageProcessor", "Siglip2ImageProcessorFast", "OurProcessor"]
)
def test_a_class_with_rules_of_its_own_is_named(tmp_path, caplog, kind):
    fields = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    for known, said in (
        ("ViTImageProcessorFast", None),
        ("ViTFeatureExtractor", None),
        (kind, kind),
    ):
        content = json.dumps({**fields, "image_processor_type": known})
        (tmp_path / "preprocessor_config.json").write_text(content)
        found = read_preprocess(tmp_path)
        assert (found is None) == bool(said)
    assert kind.removesuffix("Fast") in caplog.text and "not supported" in caplog.text
