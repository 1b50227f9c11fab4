"""timm's VisionTransformer: in memory, by name and in folders, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import family
from family.models.member import build
from family.pretrained import libraries
from family.pretrained.configs import to_config
from family.pretrained.convert import stored
from family.pretrained.formats.timm_vit import FORMAT
from family.pretrained.table import place

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import timm
from cases import vision
from folders import close, config_of, message_of, refuses
from harness import randomise

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def tiny_timm(name="vit_tiny_patch16_224", **options):
    model = timm.create_model(name, **{**TINY, "num_classes": 6, **options}).eval()
    randomise(model)
    return model


def test_another_size_is_saved(tmp_path):
    theirs = tiny_timm(dynamic_img_size=True)
    ours = family.from_pretrained(theirs, image_size=48)
    x = vision.pictures(48, 48)["pixel_values"]
    close(ours(x), theirs(x))
    family.save_pretrained(ours, tmp_path / "timm", format="timm")
    close(vision.local_timm(tmp_path / "timm").eval()(x), theirs(x))
    family.save_pretrained(ours, tmp_path / "ours")
    assert torch.equal(family.from_pretrained(tmp_path / "ours")(x), ours(x))
    assert "5 x 5" not in message_of(theirs, image_size=36)
    assert "36 x 36" in message_of(theirs, image_size=36)


def test_rest_of_a_picture(tmp_path):
    """SigLIP's pictures of 384 pixels hold 27 patches of 14 and 6 pixels more."""
    theirs = tiny_timm(img_size=35)
    ours = family.from_pretrained(theirs)
    x = vision.pictures(35, 35)["pixel_values"]
    close(ours(x), theirs(x))
    family.save_pretrained(ours, tmp_path / "a", format="timm")
    close(vision.local_timm(tmp_path / "a").eval()(x), theirs(x))
    with pytest.raises(ValueError, match="drop_rest"):
        family.vit_tiny(5, 8, 32, dim=24, depth=1, stem="conv", drop_rest=True)


def test_timm_folder(tmp_path):
    """As timm itself writes it, and as we do: pictures, labels and all."""
    theirs = tiny_timm(pretrained_cfg_overlay={"crop_pct": 0.9})
    timm.models.save_for_hf(
        theirs,
        tmp_path / "theirs",
        {"label_names": list("ABCDEF"), "label_descriptions": {"A": "a", "B": "b"}},
        safe_serialization=True,
    )
    ours = family.from_pretrained(tmp_path / "theirs")
    x = vision.pictures()["pixel_values"]
    close(ours(x), theirs(x))
    assert ours.labels == list("abCDEF")
    assert ours.preprocess.mode == "crop" and ours.preprocess.resized == 35
    family.save_pretrained(ours, tmp_path / "ours", format="timm")
    again = family.from_pretrained(tmp_path / "ours")
    assert torch.equal(again(x), ours(x))
    assert (again.labels, again.preprocess) == (ours.labels, ours.preprocess)
    loaded = vision.local_timm(tmp_path / "ours")
    assert timm.data.resolve_model_data_config(loaded)["crop_pct"] == pytest.approx(0.9, abs=0.02)
    config = config_of(tmp_path / "ours")
    (tmp_path / "ours" / "config.json").write_text(json.dumps({**config, "architecture": "vit_x"}))
    refuses(tmp_path / "ours", "vit_x")


def test_timm_name(monkeypatch):
    """What the network would bring is made here."""
    theirs, asked = tiny_timm(), []
    create = timm.create_model

    def fetched(name, pretrained=False, **options):
        asked.append(pretrained)
        return theirs if pretrained else create(name, **options)

    monkeypatch.setattr(timm, "create_model", fetched)
    x = vision.pictures()["pixel_values"]
    close(family.from_pretrained("timm:vit_tiny_patch16_224")(x), theirs(x))
    assert asked == [False, True]
    # Nothing is fetched for a model that would be refused.
    assert "ResNet" in message_of("timm:resnet18")
    assert True not in asked[2:]

    def unreachable(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network\nhere")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    assert "could not be had: no network" in message_of("timm:vit_tiny_patch16_224")


def test_timm_name_unknown():
    assert "'vit_tiny_patch16_224" in message_of("timm:vit_tiny_patch16_225")


def test_norms_of_queries_are_those_of_the_blocks(tmp_path):
    theirs = tiny_timm(qk_norm=True)
    assert family.from_pretrained(theirs).config.qk_norm == "layernorm"
    for other in (timm.layers.RmsNorm(16), timm.layers.LayerNorm(16, eps=1e-3)):
        theirs.blocks[1].attn.k_norm = other
        assert "qk_norm by another norm" in message_of(theirs)
    ours = family.vit_tiny(5, 8, 32, dim=24, depth=1, qk_norm="rmsnorm")
    with pytest.raises(ValueError, match="qk_norm='rmsnorm'.*'layernorm'"):
        family.save_pretrained(ours, tmp_path / "a", format="timm")
    ours = family.vit_tiny(5, 8, 32, dim=24, depth=1, norm="offset_rmsnorm")
    with pytest.raises(ValueError, match="norm='offset_rmsnorm'"):
        family.save_pretrained(ours, tmp_path / "a", format="timm")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 0}, "depth=0"),
        ({"global_pool": "max"}, "global_pool='max'"),
        ({"global_pool": "avg", "pool_include_prefix": True}, "pool_include_prefix"),
        ({"scale_attn_norm": True}, "scale_attn_norm"),
        ({"scale_mlp_norm": True}, "scale_mlp_norm"),
        ({"act_layer": "mish"}, "act_layer=Mish"),
        ({"dynamic_img_pad": True, "dynamic_img_size": True}, "padding"),
        ({"embed_norm_layer": "layernorm"}, "norms on it"),
        ({"attn_layer": "diff"}, "attn_layer"),
        ({"block_fn": timm.models.vision_transformer.ResPostBlock}, "block_fn"),
        ({"mlp_layer": timm.layers.GluMlp}, "mlp_layer"),
        ({"global_pool": "prr"}, "global_pool='prr'"),
    ],
)
def test_options_of_timm_that_we_do_not_have(options, words):
    theirs = timm.create_model("vit_tiny_patch16_224", **{**TINY, **options})
    message = message_of(theirs)
    assert words in message and message.endswith("is not supported.")


@pytest.mark.parametrize(
    "name", ["resnet18", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224"]
)
def test_classes_of_timm_that_we_do_not_have(name):
    theirs = timm.create_model(name, device="meta")
    assert type(theirs).__name__ in message_of(theirs)


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_224", "vit_large_patch16_384", "vit_huge_patch14_224",
        "vit_giant_patch14_224", "vit_so400m_patch14_siglip_gap_384", "vit_base_patch16_siglip_512",
        "vit_medium_patch16_gap_256", "vit_little_patch16_reg1_gap_256", "flexivit_base",
        "vit_large_patch14_clip_336", "vit_bigG_patch14_clip_224", "vit_small_patch14_dinov2",
        "vit_giant_patch14_reg4_dinov2", "deit_base_distilled_patch16_384",
        "deit3_huge_patch14_224", "eva_large_patch14_336", "vit_base_patch16_224_miil",
    ],
)  # fmt: skip
def test_published_sizes_of_timm(name):
    """Their options are ours, every weight has its place and its shape, and all goes back."""
    name = name.replace("bigG", "gigantic")
    theirs = timm.create_model(name, device="meta")
    found = libraries.timm_module(theirs)
    with torch.device("meta"):
        ours = build(found.layout.member, found.arguments)
    table, expected = FORMAT.table(ours), theirs.state_dict()
    used = set()
    for key, value in stored(ours).items():
        row = place(table, key)
        used |= set(row.theirs)
        assert value.numel() == sum(expected[part].numel() for part in row.theirs), key
    assert used == expected.keys()
    config = to_config(FORMAT, ours)
    again = timm.create_model(config["architecture"], device="meta", **config["model_args"])
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in expected.items()
    }


@pytest.mark.parametrize(
    "fields",
    [{"norm_eps": 1e-4}, {"gated": True, "norm_eps": 1e-5}, {"norm": "rmsnorm", "norm_eps": 1e-5}],
)
def test_norms_that_timm_cannot_say(fields, tmp_path):
    model = family.vit_tiny(5, 8, 32, **{"dim": 24, "depth": 1, **fields})
    with pytest.raises(ValueError, match="norm_eps"):
        family.save_pretrained(model, tmp_path / "a", format="timm")


def test_from_transformers_to_timm(tmp_path):
    theirs = vision.made("ViT", "ViTForImageClassification", layer_norm_eps=1e-6).eval()
    randomise(theirs)
    family.save_pretrained(family.from_pretrained(theirs), tmp_path / "a", format="timm")
    x = vision.pictures()["pixel_values"]
    close(vision.local_timm(tmp_path / "a").eval()(x), theirs(x).logits)
