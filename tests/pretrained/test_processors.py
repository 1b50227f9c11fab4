"""What pictures need where a file leaves it to the class, or to the kind of the model: as transformers."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

import family
from family.pretrained.formats import find_format
from family.pretrained.images import read_preprocess
from family.pretrained.processors import USUAL, class_name, complete

transformers = pytest.importorskip("transformers")
MODELS = (
    ("vit", {}),
    ("deit", {}),
    ("dinov2", {}),
    ("dinov3_vit", {}),
    ("clip", {}),
    ("siglip", {}),
    ("videomae", {}),
    ("vilt", {}),
    ("detr", {"size": 60}),
    # As the hub has them.
    ("clip", {"size": 48, "crop_size": 32, "do_center_crop": True}),
    ("clip", {"size": 48, "crop_size": 32}),
    ("clip", {"size": 48, "crop_size": [32, 30], "resample": 2}),
    ("clip", {"feature_extractor_type": "CLIPFeatureExtractor", "size": 230}),
    ("vit", {"size": 32}),
    ("vit", {"size": [32, 24], "image_std": [0.2, 0.3, 0.4]}),
    ("vit", {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 3}),
    ("vit", {"image_processor_type": "ViTImageProcessorFast", "do_normalize": False}),
    ("vit", {"image_processor_type": "DeiTImageProcessor", "size": {"height": 40, "width": 40}}),
    ("vit", {"image_processor_type": "BeitImageProcessor", "do_center_crop": True, "size": 256}),
    ("vit", {"size": 40, "do_center_crop": True, "crop_size": 32}),
    ("dinov2", {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}}),
    ("videomae", {"size": {"shortest_edge": 240}}),
    ("detr", {"size": {"shortest_edge": 50, "longest_edge": 70}}),
    ("detr", {"size": 50, "max_size": 70}),
    ("vilt", {"size": 64}),
)


def picture(height, width):
    """Noise, smoothed a little: neither backend is then a level off by chance."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)


def written(folder, model_type, fields):
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return find_format({"model_type": model_type}, str(folder)).image_processor


@pytest.mark.parametrize(("model_type", "fields"), MODELS)
def test_the_same_pixels(tmp_path, model_type, fields):
    # AutoImageProcessor takes a file without a field for one of no picture.
    usual = written(tmp_path, model_type, {"do_rescale": True, **fields})
    ours = read_preprocess(tmp_path, usual)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for shape in ((120, 80), (64, 100)):
        image = picture(*shape)
        theirs = processor(image, return_tensors="pt").pixel_values[0]
        theirs = theirs[0] if theirs.dim() == 4 else theirs  # a frame of a clip
        found = ours(image)
        assert found.shape == theirs.shape
        # Where transformers has no Pillow, it scales before it resizes, and rounds to no level.
        levels = 0.01 if "Pil" in type(processor).__name__ else 1.01
        assert float((found - theirs).abs().max()) < levels / 255 / min(ours.std)


@pytest.mark.parametrize("kind", USUAL)
def test_the_defaults_of_each_class(kind):
    theirs = getattr(transformers, kind)().to_dict()
    ours = complete({}, kind)
    for name in ("image_mean", "image_std", "resample", "size_divisor"):
        if name in ours:
            assert ours[name] == pytest.approx(theirs[name]), name
    for name in ("do_center_crop", "do_resize", "do_rescale", "do_normalize"):
        usual = name != "do_center_crop"
        assert ours.get(name, usual) == bool(theirs.get(name, False)), name
    assert theirs["rescale_factor"] == pytest.approx(1 / 255)
    again = getattr(transformers, kind)(**{n: ours[n] for n in ("size", "crop_size") if n in ours})
    assert again.to_dict() == theirs
    squared = getattr(getattr(transformers, kind), "default_to_square", True)
    assert ours.get("default_to_square", True) == squared


def test_names_of_a_class():
    for name in ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor"):
        assert class_name({"image_processor_type": name}) == "CLIPImageProcessor"
    assert class_name({}, "CLIPImageProcessor") == "CLIPImageProcessor"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"image_processor_type": "ConvNextImageProcessor", "size": 224}, "ConvNextImageProcessor"),
        ({"do_center_crop": False}, "shortest_edge"),
        ({"do_center_crop": None}, "shortest_edge"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "longest_edge"),
    ],
)
def test_what_we_cannot_do_is_named(tmp_path, caplog, fields, word):
    usual = written(tmp_path, "clip", {"image_mean": [0.5] * 3, **fields})
    with caplog.at_level(logging.WARNING):
        assert read_preprocess(tmp_path, usual) is None
    assert "model.preprocess is None" in caplog.text and word in caplog.text


def test_the_part_of_a_processor_goes_first(tmp_path):
    """As in transformers; a file of before says there nothing of pictures."""
    usual = written(tmp_path, "clip", {"size": 48, "crop_size": 48})
    file = tmp_path / "processor_config.json"
    file.write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert read_preprocess(tmp_path, usual).size == (48, 48)
    file.write_text(json.dumps({"image_processor": {"size": 40, "crop_size": 32}}))
    ours = read_preprocess(tmp_path, usual)
    assert (ours.size, ours.resized, ours.interpolation) == ((32, 32), 40, "bicubic")


def test_a_folder_is_read_by_the_kind_of_its_model(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32}))
    model = family.from_pretrained(tmp_path)
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image = picture(50, 70)
    expected = theirs(image, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(model.preprocess(image), expected, rtol=0, atol=1e-5)
    assert math.isclose(model.preprocess.std[0], 0.5)
