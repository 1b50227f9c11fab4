"""DETR and Segmenter: files as their authors and the hub have them, and what is refused."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import family
from family.inputs.backbone import CNNBackbone
from family.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import vision
from folders import REMOVED, change, close, message_of, refuses, same, write
from harness import randomise

BUILD = partial(vision.detr, backbone="test_resnet")
SCENES = SimpleNamespace(batch=vision.scenes, ours=vision.objects, theirs=vision.their_objects)


def made(model):
    model.eval()
    randomise(model)
    return model


def test_first_configs(tmp_path):
    """facebook/detr-resnet-50 names its backbone beside the other options."""
    theirs = write(BUILD(), tmp_path)
    older = {
        "backbone": "test_resnet",
        "backbone_config": None,
        "backbone_kwargs": {"in_chans": 3, "out_indices": [1, 2, 3, 4]},
        "use_timm_backbone": True,
        "use_pretrained_backbone": True,
        "num_hidden_layers": 2,
        "scale_embedding": False,
        "max_position_embeddings": 1024,
    }
    change(tmp_path, **older)
    ours = same(SCENES, tmp_path, theirs)
    assert ours.arguments["pretrained"] is False
    assert ours.decoder_depth == 3


def test_labels_with_gaps(tmp_path):
    """COCO numbers 80 classes up to 90; ids that it leaves out have no name of their own."""
    write(BUILD(), tmp_path)
    change(
        tmp_path, id2label={"0": "N/A", "1": "person", "5": "bus", "2": "car", "3": "x", "4": "y"}
    )
    assert family.from_pretrained(tmp_path).labels == ["N/A", "person", "car", "x", "y", "bus"]
    change(tmp_path, id2label={str(i): f"n{i}" for i in (0, 2, 3, 5, 6, 8)})
    labels = family.from_pretrained(tmp_path).labels
    assert labels == ["n0", "LABEL_1", "n2", "n3", "LABEL_4", "n5"]


def test_preprocessing_and_labels_go_back(tmp_path):
    write(BUILD(), tmp_path / "a")
    change(tmp_path / "a", id2label={str(i): f"n{i}" for i in range(6)}, label2id=REMOVED)
    transformers.DetrImageProcessor().save_pretrained(tmp_path / "a")
    ours = family.from_pretrained(tmp_path / "a")
    assert ours.preprocess == Preprocess((800, 1333), "edges", IMAGENET_MEAN, IMAGENET_STD)
    family.save_pretrained(ours, tmp_path / "b", format="detr")
    theirs = transformers.DetrForObjectDetection.from_pretrained(tmp_path / "b")
    assert theirs.config.id2label[5] == "n5"
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "b")
    assert processor.size["longest_edge"] == 1333


def test_dilation_and_another_stage(tmp_path):
    """The map is twice as large; with a backbone of three stages as well."""
    for name, options in {
        "dilated": {"backbone": "resnet18", "dilation": True},
        "stage": {
            "use_timm_backbone": True,
            "backbone": "test_resnet",
            "backbone_kwargs": {"out_indices": [1, 2, 3]},
            "backbone_config": transformers.TimmBackboneConfig(
                backbone="test_resnet", out_indices=[1, 2, 3], use_pretrained_backbone=False
            ),
        },
    }.items():
        theirs = made(vision.detr(**options))
        ours = family.from_pretrained(theirs)
        batch = vision.scenes()
        assert ours.encode(batch["pixel_values"], batch["mask"]).cells.shape[1:] == (6, 9)
        close(vision.objects(ours, batch), vision.their_objects(theirs, batch))
        family.save_pretrained(ours, tmp_path / name, format="detr")
        again = transformers.DetrForObjectDetection.from_pretrained(tmp_path / name).eval()
        close(vision.their_objects(again, batch), vision.their_objects(theirs, batch))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"position_embedding_type": "learned"}, ["position_embedding_type", "sine"]),
        ({"architectures": ["DetrForSegmentation"]}, ["DetrForSegmentation"]),
        ({"decoder_ffn_dim": 64}, ["decoder_ffn_dim=64", "encoder_ffn_dim=48"]),
        ({"decoder_attention_heads": 8}, ["decoder_attention_heads=8"]),
        ({"num_channels": 1}, ["num_channels"]),
        ({"num_queries": 10}, ["query_position_embeddings", "(9, 32)"]),
        ({"id2label": {"0": "one"}}, ["class_labels_classifier", "(7, 32)"]),
        ({"backbone_config": {"model_type": "swin"}}, ["swin"]),
        ({"backbone_config": {"model_type": "resnet", "depths": [1, 1, 1, 1]}}, ["depths"]),
        ({"backbone_config": {"model_type": "resnet", "embedding_size": 8}}, ["embedding_size=8"]),
        ({"backbone_config": None, "use_timm_backbone": False}, ["resnet50"]),
        ({"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet5"}}, ["resnet5"]),
        ({"decoder_layers": 4}, ["model.decoder.layers.3"]),
    ],
)
def test_what_a_config_cannot_say(fields, words, tmp_path):
    write(BUILD(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"anchors": True}, "queries"),
        ({"backbone": "patch"}, "backbone"),
        ({"classification": "focal"}, "classification"),
        ({"norm_order": "pre"}, "norm_order|encoder.norm"),
    ],
)
def test_what_the_formats_cannot_say(options, words, tmp_path):
    sizes = {"dim": 32, "depth": 1, "heads": 4, "ffn_dim": 48, "backbone": "test_resnet"}
    model = family.detr_resnet50(4, **{**sizes, **options})
    with pytest.raises(ValueError, match=words):
        family.save_pretrained(model, tmp_path / "a", format="detr")
    with pytest.raises(ValueError, match=r"heads=|backbone|queries|classification"):
        family.save_pretrained(model, tmp_path / "a", format="detr_original")
    assert not (tmp_path / "a").exists()


def test_a_backbone_handed_in_has_no_name(tmp_path):
    backbone = CNNBackbone("test_resnet")
    model = family.detr_resnet50(4, dim=32, depth=1, heads=4, backbone=backbone)
    for format in ("detr", "detr_original"):
        with pytest.raises(ValueError, match="CNNBackbone") as caught:
            family.save_pretrained(model, tmp_path / "a", format=format)
        assert "\n" not in str(caught.value)


def test_other_classes_and_sizes(tmp_path, caplog):
    write(BUILD(), tmp_path)
    transformers.DetrImageProcessor().save_pretrained(tmp_path)
    kept = family.from_pretrained(tmp_path)
    ours = family.from_pretrained(tmp_path, num_classes=3, image_size=400)
    batch = vision.scenes()
    output, expected = (model(batch["pixel_values"], batch["mask"]) for model in (ours, kept))
    assert output["logits"].shape == (2, vision.QUERIES, 4)
    close(output["boxes"], expected["boxes"])
    assert ours.preprocess.size == (400, 666) and kept.preprocess.size == (800, 1333)
    assert "starts afresh" in caplog.text


def test_our_own_folder_fetches_nothing(tmp_path, monkeypatch):
    import timm

    create = timm.create_model

    def fetched(name, pretrained=False, **options):
        assert not pretrained or tmp_path.joinpath("first").exists() is False
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", fetched)
    model = family.detr_resnet50(
        4, dim=32, depth=1, heads=4, ffn_dim=48, backbone="test_resnet", pretrained=True
    ).eval()
    family.save_pretrained(model, tmp_path / "first")
    again = family.from_pretrained(tmp_path / "first")
    batch = vision.scenes()
    assert torch.equal(vision.objects(again, batch), vision.objects(model, batch))


def test_state_of_the_authors(tmp_path):
    """In memory, as a pickled file of either age, and as safetensors."""
    theirs = made(vision.original_detr(pre=False))
    batch, state = vision.scenes(), theirs.state_dict()
    torch.save({"model": state}, tmp_path / "detr-r18.pth")
    torch.save({"model": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "detr.safetensors")
    expected = vision.objects(theirs, batch)
    for source in (state, *sorted(tmp_path.iterdir())):
        ours = family.from_pretrained(source)
        close(vision.objects(ours, batch), expected)
        assert ours.arguments["backbone"] == "resnet18"
    # What no weight tells, the name of the file does.
    torch.save(state, tmp_path / "detr-r18-dc5.pth")
    assert family.from_pretrained(tmp_path / "detr-r18-dc5.pth").arguments["dilation"] is True


def test_states_that_are_refused(tmp_path):
    state = vision.original_detr(pre=False).state_dict()
    panoptic = {f"detr.{name}": value for name, value in state.items()}
    assert "has no config beside it" in message_of(panoptic)
    assert "bbox_attention.q_linear.weight" in message_of(
        {**state, "bbox_attention.q_linear.weight": torch.zeros(3)}
    )
    missing = {n: v for n, v in state.items() if n != "transformer.decoder.norm.bias"}
    assert "transformer.decoder.norm.bias" in message_of(missing)
    shallow = {n: v for n, v in state.items() if "layer3.1" not in n}
    assert "(2, 2, 1, 2)" in message_of(shallow)
    assert "epoch" in message_of({**state, "epoch": 3})
    (tmp_path / "weights.npz").write_bytes(b"x")
    assert ".safetensors" in message_of(tmp_path / "weights.npz")
    (tmp_path / "weights.pth").write_bytes(b"not a pickle")
    assert "weights.pth" in message_of(tmp_path / "weights.pth")
    torch.save({"model": state, "args": SimpleNamespace(a=1)}, tmp_path / "training.pth")
    assert "cannot be read as plain weights" in message_of(tmp_path / "training.pth")
    torch.save({"linear.weight": torch.zeros(3)}, tmp_path / "other.pt")
    assert "DETR, Segmenter or CLIP" in message_of(tmp_path / "other.pt")
