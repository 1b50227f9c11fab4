"""Segmenter: weights and options as its authors store them, and what is refused."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import family
from family.inputs.preprocess import IMAGENET_MEAN, Preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import vision
from folders import close, message_of
from harness import randomise

HALF = (0.5, 0.5, 0.5)
MASKS = partial(vision.segmenter, masks=True, distilled=False)
LINEAR = partial(vision.segmenter, masks=False, distilled=True)
VARIANT = """
algorithm_kwargs: {batch_size: 8, num_epochs: 64}
log_dir: !!python/object/apply:pathlib.PosixPath [runs]
net_kwargs:
  backbone: vit_tiny_patch16_384
  d_model: 128
  decoder: {drop_path_rate: 0.0, dropout: 0.1, n_layers: 2, name: mask_transformer}
  distilled: false
  drop_path_rate: 0.1
  dropout: 0.0
  image_size: !!python/tuple [32, 32]
  n_cls: 6
  n_heads: 2
  n_layers: 2
  normalization: deit
  patch_size: 8
"""


@pytest.fixture
def folder(tmp_path):
    """A run of the authors' code."""
    theirs = made(MASKS)
    torch.save({"model": theirs.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    (tmp_path / "variant.yml").write_text(VARIANT)
    return tmp_path


def made(build):
    torch.manual_seed(0)
    model = build().eval()
    randomise(model, keep=("cls_emb",))
    return model


def test_a_run_of_the_authors(folder):
    theirs = made(MASKS)
    x = vision.pictures()["pixel_values"]
    for source in (folder, folder / "checkpoint.pth"):
        ours = family.from_pretrained(source)
        close(ours(x), theirs(x))
        assert ours.preprocess == Preprocess((32, 32), "squash")
        assert ours.config.drop_path == 0.1


@pytest.mark.parametrize("build", [MASKS, LINEAR])
def test_state_alone(build):
    """Its shapes tell all but the norms of pictures."""
    theirs = made(build)
    ours = family.from_pretrained(theirs.state_dict())
    for size in [(32, 32), (40, 24), (29, 33)]:  # positions follow as the authors' do
        x = vision.pictures(*size)["pixel_values"]
        close(ours(x), theirs(x))
    assert ours.preprocess is None and ours.config.heads == 2


@pytest.mark.parametrize("build", [MASKS, LINEAR])
def test_what_we_write(build, tmp_path):
    ours = family.from_pretrained(made(build).state_dict())
    ours.preprocess = Preprocess((32, 32), "squash", HALF, HALF)
    family.save_pretrained(ours, tmp_path / "a", format="segmenter")
    options = yaml.safe_load((tmp_path / "a" / "variant.yml").read_text())
    assert options["net_kwargs"]["normalization"] == "vit"
    assert options["dataset_kwargs"]["normalization"] == "vit"
    assert ("n_layers" in options["net_kwargs"]["decoder"]) == (build is MASKS)
    again = family.from_pretrained(tmp_path / "a")
    assert again.preprocess == ours.preprocess
    x = vision.pictures()["pixel_values"]
    assert torch.equal(again(x), ours(x))


@pytest.mark.parametrize("build", [MASKS, LINEAR])
def test_other_classes_and_sizes(build, caplog):
    state = made(build).state_dict()
    kept, ours = family.from_pretrained(state), family.from_pretrained(state, num_classes=4)
    x = vision.pictures()["pixel_values"]
    assert ours(x).shape == (3, 4, 32, 32)
    assert "starts afresh" in caplog.text
    larger = family.from_pretrained(state, image_size=(48, 40))
    assert larger.image_size == (48, 40) and larger.encoder.embedding.table_grid == (6, 5)
    x = vision.pictures(48, 40)["pixel_values"]
    close(larger(x), kept(x))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("n_heads: 2", "n_heads: 4", "n_heads=4"),
        ("name: mask_transformer", "name: deeplab_dec", "deeplab_dec"),
        ("n_cls: 6", "n_cls: 5", "decoder.cls_emb"),
        ("d_model: 128", "dim: 128", "d_model"),
        ("net_kwargs:", "kwargs:", "net_kwargs"),
        ("n_layers: 2,", "n_layers: 3,", "decoder.blocks.2"),
        ("distilled: false", "distilled: true", "encoder.dist_token"),
        ("n_cls: 6", "n_cls: [", "variant.yml"),
    ],
)
def test_options_that_are_refused(folder, before, after, words):
    assert before in VARIANT
    (folder / "variant.yml").write_text(VARIANT.replace(before, after))
    assert words in message_of(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm_eps": 1e-6}, "norm_eps"),
        ({"norm_eps": 1e-5, "heads": 8}, "n_heads=8"),
        ({"norm_eps": 1e-5, "position": "rotary"}, "position"),
        ({"norm_eps": 1e-5, "stem": "conv"}, "stem"),
        ({"norm_eps": 1e-5, "class_token": False}, "class_token"),
    ],
)
def test_what_the_format_cannot_say(options, words, tmp_path):
    model = family.segmenter_tiny(4, 8, 32, **{"dim": 128, "depth": 1, "heads": 2, **options})
    with pytest.raises(ValueError, match=words):
        family.save_pretrained(model, tmp_path / "a", format="segmenter")


def test_normalisation_of_deit(folder):
    assert family.from_pretrained(folder).preprocess.mean == IMAGENET_MEAN
    (folder / "variant.yml").write_text(VARIANT.replace("deit", "unheard of"))
    assert family.from_pretrained(folder).preprocess is None


def test_folders_that_are_none(tmp_path):
    assert "config.json" in message_of(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    assert "config.json" in message_of(tmp_path)
