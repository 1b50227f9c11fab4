"""What no model can be built from is refused in one sentence, before memory fills."""

from __future__ import annotations

import numpy as np
import pytest

import family
from family.models import arguments
from family.models.member import build

STACK = {"dim": 16, "depth": 1, "heads": 2, "max_tokens": 8}
BERT = {"vocab_size": 40, "config": STACK, "num_classes": 3}
VIT = {
    "num_classes": 3,
    "config": {**STACK, "position": "learned"},
    "image_size": 16,
    "patch_size": 8,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": None}, "vocab_size must be a whole number, not None"),
        ({"num_classes": 2.5}, "num_classes must be a whole number, not 2.5"),
        ({"num_classes": -1}, "num_classes must be at least 0, not -1"),
        ({"config": [3]}, r"config must be a TransformerConfig, not \[3\]"),
        ({"pooler": ["x"]}, "pooler must be a name or None"),
        ({"vocab_size": 10**12}, "a BERT of these sizes has more than 59,604.6 GiB of weights"),
        ({"vocab_size": 10**30}, "vocab_size must be at most 1099511627776"),
        ({"config": {**STACK, "dim": 10**30}}, "dim must be at most"),
        ({"config": {**STACK, "dim": 10**9}}, "no memory|GiB of weights"),
        ({"config": {**STACK, "depth": 10**9}}, "depth must be at most 1000"),
        ({"self": 1}, "self"),
    ],
)
def test_a_text_model_of_odd_arguments(change, said):
    with pytest.raises(ValueError, match=said) as caught:
        build(family.BERT, {**BERT, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patches": {"stem": ["x"]}}, "stem must be a name"),
        ({"patches": {"register_tokens": "x"}}, "register_tokens must be a whole number"),
        ({"patches": 3}, "patches must be a PatchConfig, not 3"),
        ({"image_size": "aa"}, "image_size must be a whole number or a list, not 'aa'"),
        ({"image_size": 10**12, "patch_size": 1}, "no ViT can be of these sizes|GiB of weights"),
        ({"patch_size": None}, "patch_size must be"),
    ],
)
def test_a_picture_model_of_odd_arguments(change, said):
    with pytest.raises(ValueError, match=said):
        build(family.ViT, {**VIT, **change})


def test_every_depth_has_its_limit():
    with pytest.raises(ValueError, match="depth must be at most 1000, not 1000000000"):
        family.ImageTokenizer(image_size=16, downsampling=4, width=8, depth=10**9)


def test_weights_that_fill_the_memory_are_refused_while_they_are_counted(monkeypatch):
    monkeypatch.setattr(arguments, "memory", lambda: 10_000)
    with pytest.raises(ValueError, match="a BERT of these sizes has more than 0.0 GiB of weights"):
        build(family.BERT, BERT)


def test_numbers_of_numpy_are_numbers():
    stack = family.TransformerConfig(**STACK)
    assert family.BERT(np.int64(40), stack, num_classes=np.int64(3)).num_classes == 3


def test_what_is_handed_on_is_known_to_another():
    with pytest.raises(ValueError, match="RewardModel: got an unexpected keyword argument 'poler'"):
        build(family.RewardModel, {**family.RewardModel.facts.example, "poler": 1})


def test_a_width_of_nothing():
    with pytest.raises(ValueError, match="no LSTMClassifier can be of these sizes"):
        build(family.LSTMClassifier, {"vocab_size": 40, "num_classes": 3, "dim": 0})
