"""ViT against timm and transformers, with the same random weights: outputs and gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

import family

sys.path.insert(0, str(Path(__file__).parent))
import peers

# name -> (options of timm's, what they are among ours)
TIMM = {
    "class": ({}, {}),
    "mean": ({"global_pool": "avg"}, {"pooling.kind": "mean"}),
    "mean, norm before": (
        {"global_pool": "avg", "fc_norm": False, "class_token": False},
        {"pooling.kind": "mean", "pooling.norm_after": False, "patches.class_token": False},
    ),
    "attention": (
        {"global_pool": "map", "class_token": False},
        {"pooling.kind": "attention", "patches.class_token": False},
    ),
    "attention with prefix": (
        {"global_pool": "map", "reg_tokens": 2},
        {"pooling.kind": "attention", "patches.register_tokens": 2},
    ),
    "registers": ({"reg_tokens": 4}, {"patches.register_tokens": 4}),
    "registers without positions": (
        {"reg_tokens": 4, "no_embed_class": True},
        {"patches.register_tokens": 4, "patches.prefix_positions": False},
    ),
    "registers, mean, no class": (
        {"reg_tokens": 4, "class_token": False, "global_pool": "avg", "no_embed_class": True},
        {
            "patches.register_tokens": 4,
            "patches.class_token": False,
            "pooling.kind": "mean",
            "patches.prefix_positions": False,
        },
    ),
    "layer scale": ({"init_values": 0.1}, {"config.layer_scale": 0.1}),
    "query and key norm": (
        {"qk_norm": True, "norm_layer": "rmsnorm"},
        {"config.qk_norm": "rmsnorm", "config.norm": "rmsnorm"},
    ),
    "query and key layer norm": ({"qk_norm": True}, {"config.qk_norm": "layernorm"}),
    "norm before": ({"pre_norm": True}, {"patches.norm": True, "patches.bias": False}),
    "no positions": ({"pos_embed": "none"}, {"config.position": "none"}),
}


def timm_pair(theirs_options, ours_options):
    theirs = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=(32, 24), patch_size=8, embed_dim=48,
        depth=2, num_heads=3, num_classes=10, **theirs_options,
    ).eval()  # fmt: skip
    peers.randomise(theirs)
    ours = family.from_pretrained(theirs)
    for name, value in ours_options.items():
        config, _, field = name.partition(".")
        assert getattr(ours.arguments[config], field) == value
    return ours, theirs


def pictures(height=32, width=24, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, channels, height, width, generator=generator)


def compare(ours, theirs, logits, expected):
    """Logits, then the gradients of a loss under our names."""
    peers.assert_close(logits, expected)
    labels = torch.tensor([1, 7, 3])
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    gradients = peers.gradients(theirs)
    for name, parameter in ours.named_parameters():
        peers.assert_close(parameter.grad, gradients[name])


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    ours, theirs = timm_pair(*TIMM[name])
    x = pictures()
    # Tokens too, not only what pooling leaves of them.
    peers.assert_close(ours.forward_features(x), theirs.forward_features(x))
    peers.assert_close(
        ours.forward_head(ours.forward_features(x), pre_logits=True),
        theirs.forward_head(theirs.forward_features(x), pre_logits=True),
    )
    compare(ours, theirs, ours(x), theirs(x))


@pytest.mark.parametrize("size", [(48, 40), (16, 24), (24, 32)])
@pytest.mark.parametrize("name", ["class", "registers without positions"])
def test_timm_another_resolution(name, size):
    theirs_options, ours_options = TIMM[name]
    ours, theirs = timm_pair({**theirs_options, "dynamic_img_size": True}, ours_options)
    x = pictures(*size)
    compare(ours, theirs, ours(x), theirs(x))


def test_timm_grey_pictures_and_oblong_patches():
    theirs = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=(32, 24), patch_size=(8, 4),
        embed_dim=48, depth=2, num_heads=3, num_classes=10, in_chans=1,
    ).eval()  # fmt: skip
    peers.randomise(theirs)
    ours = family.from_pretrained(theirs)
    assert ours.patch_size == (8, 4)
    x = pictures(channels=1)
    compare(ours, theirs, ours(x), theirs(x))


def test_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192,
        image_size=32, patch_size=8, num_labels=10, layer_norm_eps=1e-6,
    )  # fmt: skip
    theirs = transformers.ViTForImageClassification(config).eval()
    peers.randomise(theirs)
    ours = family.from_pretrained(theirs)
    x = pictures(32, 32)
    compare(ours, theirs, ours(x), theirs(x).logits)
