"""ViLT: files as the hub has them, pictures and texts of unequal sizes, what is refused."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import family
from family.inputs.preprocess import Preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import fusion
from folders import REMOVED, change, close, config_of, refuses, rewrite, same, weights_of, write
from transformers.models.vilt.image_processing_pil_vilt import get_resize_output_image_size

PADDED = SimpleNamespace(batch=fusion.padded, ours=fusion.ours, theirs=fusion.theirs)
TOKENS = SimpleNamespace(batch=fusion.padded, ours=fusion.tokens, theirs=fusion.their_tokens)
MODEL = partial(fusion.made, "ViltModel")
SMALL = {"dim": 24, "depth": 2, "heads": 2, "image_size": 32, "patch_size": 8}


def small(**options) -> family.Fusion:
    return family.vilt_base(97, **{"num_classes": 5, **SMALL, **options})


def test_published_size():
    theirs = transformers.ViltForQuestionAnswering(
        transformers.ViltConfig(num_labels=3129, num_hidden_layers=1)
    )
    ours = family.vilt_base(depth=1)
    counts = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
    assert counts[0] == counts[1]
    assert family.from_pretrained(theirs).arguments == ours.arguments


def test_files_of_version_4(tmp_path):
    """They hold a buffer, and name neither padding nor what is usual."""
    theirs = write(fusion.ANSWERS(), tmp_path)
    ids = {"vilt.embeddings.text_embeddings.position_ids": torch.arange(16)[None]}
    rewrite(tmp_path, **ids)
    optional = ("pad_token_id", "max_image_length", "modality_type_vocab_size", "qkv_bias")
    optional += ("type_vocab_size", "layer_norm_eps", "hidden_act", "num_images", "num_channels")
    change(tmp_path, **dict.fromkeys(optional, REMOVED))
    assert same(PADDED, tmp_path, theirs).num_classes == 7


def test_bare_model_under_either_name(tmp_path):
    theirs = write(MODEL(), tmp_path)
    assert "embeddings.cls_token" in weights_of(tmp_path)
    ours = same(TOKENS, tmp_path, theirs)
    assert ours.num_classes == 0
    rewrite(tmp_path, lambda name: f"vilt.{name}")
    same(TOKENS, tmp_path, theirs)
    rewrite(tmp_path, lambda name: "" if "pooler" in name else name)
    bare = family.from_pretrained(tmp_path)
    assert bare.pooler is None
    inputs = fusion.padded()
    words = fusion.tokens(ours, inputs)[: int(inputs["mask"].sum())]
    close(fusion.tokens(bare, inputs)[: len(words)], words)


def test_other_classes(tmp_path, caplog):
    write(fusion.ANSWERS(), tmp_path)
    ours = family.from_pretrained(tmp_path, num_classes=4)
    assert torch.equal(fusion.ours(ours, fusion.padded()), torch.zeros(3, 4))
    assert ours.labels is None and "starts afresh" in caplog.text


def test_answers_words_and_pictures_go_and_come(tmp_path):
    labels = [f"answer {i}" for i in range(7)]
    write(fusion.ANSWERS(id2label=dict(enumerate(labels))), tmp_path / "a")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "how", "many", "cats", "?"]
    (tmp_path / "a" / "vocab.txt").write_text("\n".join(words) + "\n")
    processor = transformers.ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=8)
    processor.save_pretrained(tmp_path / "a")
    ours = family.from_pretrained(tmp_path / "a")
    assert ours.labels == labels
    assert ours.tokenizer.encode("How many cats?", True) == [2, 5, 6, 7, 8, 3]
    half = (0.5,) * 3
    expected = Preprocess((32, 53), "edges", half, half, "bicubic", multiple=8)
    assert ours.preprocess == expected
    family.save_pretrained(ours, tmp_path / "b", format="vilt")
    again = transformers.ViltProcessor.from_pretrained(tmp_path / "b")
    found = again(Image.new("RGB", (60, 40)), "how many cats?", return_tensors="pt")
    assert found.pixel_values.shape[-2:] == ours.preprocess(Image.new("RGB", (60, 40))).shape[-2:]
    assert found.input_ids.tolist() == [[2, 5, 6, 7, 8, 3]]
    theirs = transformers.ViltForQuestionAnswering.from_pretrained(tmp_path / "b").eval()
    assert theirs.config.id2label == dict(enumerate(labels))
    logits = ours(found.pixel_values, found.input_ids)
    close(logits, theirs(**found).logits)
    family.save_pretrained(ours, tmp_path / "c")
    again = family.from_pretrained(tmp_path / "c")
    assert (again.labels, again.preprocess) == (labels, expected)
    assert torch.equal(again(found.pixel_values, found.input_ids), logits)


@pytest.mark.parametrize("shorter", [384, 200])
def test_sizes_of_pictures(shorter):
    preprocess = Preprocess((shorter, int(1333 / 800 * shorter)), "edges", multiple=32)
    for height in range(20, 900, 37):
        for width in range(20, 900, 41):
            picture = torch.empty(3, height, width).numpy()
            longer = preprocess.size[1]
            theirs = get_resize_output_image_size(
                picture, shorter, longer, 32, input_data_format="channels_first"
            )
            if min(theirs):  # a very long picture is nothing to them
                assert preprocess.target_size(height, width) == theirs
    assert preprocess.target_size(10, 900)[0] == 32


@pytest.mark.parametrize(
    "changes",
    [{"mode": "squash", "multiple": 1}, {"multiple": 1}, {"size": (384, 800)}],
)
def test_preprocessing_that_their_class_does_not_do(changes, tmp_path):
    model = small()
    fields = {"size": (384, 639), "mode": "edges", "multiple": 32}
    model.preprocess = Preprocess(**{**fields, **changes})
    with pytest.raises(ValueError, match="ViltImageProcessor cannot express"):
        family.save_pretrained(model, tmp_path / "a", format="vilt")
    vit = family.vit_tiny(5, 8, 32, dim=24, depth=1)
    vit.preprocess = Preprocess((384, 639), "edges", multiple=32)
    with pytest.raises(ValueError, match="ViTImageProcessor cannot express"):
        family.save_pretrained(vit, tmp_path / "a", format="vit")
    for wrong in ({"multiple": 0}, {"multiple": 32}):
        with pytest.raises(ValueError, match="multiple="):
            Preprocess((32, 32), **wrong)


@pytest.mark.parametrize("size", [48, (16, 40)])
def test_another_size_is_kept(size, tmp_path):
    """What is interpolated picture by picture stands in the table."""
    write(fusion.ANSWERS(), tmp_path)
    ours, x = family.from_pretrained(tmp_path), fusion.pairs(*((size,) * 2 if size == 48 else size))
    made = family.from_pretrained(tmp_path, image_size=size)
    close(fusion.ours(made, x), fusion.ours(ours, x))
    assert made.arguments["image_size"] == size
    if size != 48:
        with pytest.raises(ValueError, match=r"squares alone, not image_size=\(16, 40\)"):
            family.save_pretrained(made, tmp_path / "a", format="vilt")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architectures": ["ViltForImagesAndTextClassification"]}, ["ViltForImagesAndText"]),
        ({"architectures": ["ViltForMaskedLM"]}, ["ViltForMaskedLM", "ViltForQuestionAnswering"]),
        ({"max_image_length": 200}, ["max_image_length=200", "-1"]),
        ({"modality_type_vocab_size": 3}, ["modality_type_vocab_size=3", "2"]),
        ({"hidden_act": "mish"}, ["hidden_act", "mish"]),
        ({"image_size": 40}, ["position", "(17, 48)", "(26, 48)"]),
        ({"num_hidden_layers": 4}, ["vilt.encoder.layer.3."]),
    ],
)
def test_what_a_config_cannot_say(fields, words, tmp_path):
    write(fusion.ANSWERS(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooler": None}, "without a pooler"),
        ({"pooler": "relu"}, "pooler='relu'"),
        ({"token_types": 0}, "token_types=0"),
        ({"patch_size": (8, 16)}, "squares alone, not patch_size"),
        ({"position": "sinusoidal"}, "position='sinusoidal'"),
        ({"qk_norm": True}, "qk_norm|query_norm"),
    ],
)
def test_what_the_format_cannot_say(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        family.save_pretrained(small(**options), tmp_path / "a", format="vilt")


def test_the_config_that_is_written(tmp_path):
    family.save_pretrained(small(num_classes=0), tmp_path / "a", format="vilt")
    config = config_of(tmp_path / "a")
    assert config["architectures"] == ["ViltModel"] and config["max_image_length"] == -1
    assert json.loads(json.dumps(config)) == config
