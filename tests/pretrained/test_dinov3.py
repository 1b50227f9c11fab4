"""DINOv3: files as the hub has them, other sizes of pictures, what is refused."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import family
from family.inputs.preprocess import Preprocess
from family.pretrained.configs import all_arguments

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import vision
from folders import REMOVED, change, close, config_of, refuses, rewrite, same, weights_of, write
from harness import randomise

MODEL = partial(vision.made, "DINOv3ViT", "DINOv3ViTModel", num_register_tokens=2)
TOKENS = SimpleNamespace(batch=vision.pictures, ours=vision.tokens, theirs=vision.hidden)
OPTIONAL = (
    *("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias", "use_gated_mlp"),
    *("rope_theta", "layer_norm_eps", "layerscale_value", "hidden_act", "num_channels"),
    *("attention_dropout", "drop_path_rate", "pos_embed_rescale", "apply_layernorm"),
    *("out_features", "out_indices", "stage_names", "reshape_hidden_states"),
)


def test_published_size():
    """As facebook/dinov3-vits16, but for the token that only training reads."""
    theirs = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(num_register_tokens=4))
    ours = family.dinov3_vit_small()
    assert all_arguments(family.from_pretrained(theirs)) == all_arguments(ours)
    counts = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
    assert counts[0] - counts[1] == 384


def test_what_a_config_leaves_out_is_their_default(tmp_path):
    theirs = write(MODEL(), tmp_path)
    assert "layer.0.norm1.weight" in weights_of(tmp_path)
    change(tmp_path, **dict.fromkeys(OPTIONAL, REMOVED))
    same(TOKENS, tmp_path, theirs)


def test_names_of_a_model_in_memory(tmp_path):
    """transformers 5 has a stack of its own in between, which files of version 4 do not."""
    theirs = write(MODEL(), tmp_path)
    rewrite(tmp_path, lambda name: f"model.{name}" if name.startswith("layer") else name)
    same(TOKENS, tmp_path, theirs)


@pytest.mark.parametrize(
    "size",
    [(48, 32), (24, 64), (8, 8), pytest.param((37, 43), id="rest")],
)
def test_other_sizes(size):
    """Without a table of positions, nothing is interpolated."""
    theirs = MODEL(image_size=35).eval()
    randomise(theirs)
    x = vision.pictures(*size)["pixel_values"]
    ours = family.from_pretrained(theirs)  # 35 pixels are no multiple of a patch, as for theirs
    close(ours.forward_features(x), theirs(x).last_hidden_state)


def test_classes_are_added(tmp_path):
    theirs = write(MODEL(), tmp_path)
    ours, x = family.from_pretrained(tmp_path, num_classes=4), vision.pictures()["pixel_values"]
    assert torch.equal(ours(x), torch.zeros(3, 4))
    close(ours.forward_head(ours.forward_features(x), True), theirs(x).pooler_output)


def test_in_half_precision(tmp_path):
    """Angles stay exact."""
    theirs = write(MODEL(), tmp_path).bfloat16()
    x = vision.pictures(128, 128)["pixel_values"].bfloat16()
    with torch.no_grad():
        ours = family.from_pretrained(theirs).forward_features(x)
        torch.testing.assert_close(ours, theirs(x).last_hidden_state, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["DINOv3ViTImageProcessorFast", "DINOv3ViTImageProcessor"])
def test_preprocessing(name, tmp_path):
    write(MODEL(), tmp_path / "a")
    theirs = transformers.DINOv3ViTImageProcessor(size={"height": 32, "width": 24})
    theirs.save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "preprocessor_config.json"
    file.write_text(file.read_text().replace("DINOv3ViTImageProcessor", name))
    ours = family.from_pretrained(tmp_path / "a")
    assert ours.preprocess == Preprocess((32, 24))
    # Theirs is scaled to 0..1 before it is resized, and so not rounded to whole levels.
    rows, columns = np.mgrid[:57, :41]
    waves = np.stack([rows * 3, columns * 5, rows + columns], -1).astype(np.uint8)
    expected = theirs(Image.fromarray(waves), return_tensors="pt").pixel_values[0]
    level = 1 / 255 / min(ours.preprocess.std)
    assert float((ours.preprocess(Image.fromarray(waves)) - expected).abs().max()) < 1.01 * level
    family.save_pretrained(ours, tmp_path / "b", format="dinov3_vit")
    again = transformers.AutoImageProcessor.from_pretrained(tmp_path / "b")
    assert type(again) is type(theirs) and again.size == theirs.size


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architectures": ["DINOv3ViTBackbone"]}, ["DINOv3ViTBackbone", "DINOv3ViTModel"]),
        ({"query_bias": False}, ["value_bias=True", "query_bias=False"]),
        ({"query_bias": False, "value_bias": False, "key_bias": True}, ["key_bias=True"]),
        ({"hidden_act": "mish"}, ["hidden_act", "mish"]),
        ({"use_gated_mlp": True}, ["layer.0.mlp.gate_proj.weight"]),
        ({"key_bias": True}, ["layer.0.attention.k_proj.bias"]),
        ({"num_register_tokens": 3}, ["prefix", "(3, 48)", "(4, 48)"]),
        ({"num_attention_heads": 8}, ["rotary_axes=2", "6"]),
    ],
)
def test_what_a_config_cannot_say(fields, words, tmp_path):
    write(MODEL(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def test_a_model_of_another_kind_is_not_written(tmp_path):
    small = {"dim": 24, "depth": 1, "heads": 2, "image_size": 32}
    for model, words in (
        (family.dinov3_vit_small(5, **small), "num_classes=5"),
        (family.dinov3_vit_small(coordinates="index", **small), "coordinates='index'"),
        (family.dinov3_vit_small(rotary_scaling=2.0, **small), "rotary_scaling=2.0"),
        (family.vit_tiny(0, **small, layer_scale=1.0), "position"),
    ):
        with pytest.raises(ValueError, match=words):
            family.save_pretrained(model, tmp_path / "a", format="dinov3_vit")


def test_without_biases_there_and_back(tmp_path):
    ours = family.dinov3_vit_small(
        dim=24, depth=1, heads=2, image_size=32, qkv_bias=False, key_bias=True, out_bias=True
    ).eval()
    family.save_pretrained(ours, tmp_path / "a", format="dinov3_vit")
    assert not config_of(tmp_path / "a")["key_bias"]
    theirs = transformers.DINOv3ViTModel.from_pretrained(tmp_path / "a").eval()
    x = vision.pictures()["pixel_values"]
    close(ours.forward_features(x), theirs(x).last_hidden_state)
