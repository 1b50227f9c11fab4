"""OPT: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import causal
from folders import REMOVED, change, refuses, rewrite, same, weights_of, write

POSITIONS = "model.decoder.embed_positions.weight"


def test_names_without_prefix_and_a_copy_of_the_table(tmp_path):
    theirs = write(causal.opt()(), tmp_path)
    table = weights_of(tmp_path)["model.decoder.embed_tokens.weight"]
    rewrite(tmp_path, lambda name: name.removeprefix("model."), **{"lm_head.weight": table})
    change(tmp_path, tie_word_embeddings=REMOVED, word_embed_proj_dim=REMOVED)
    same(causal, tmp_path, theirs)


def test_the_first_two_positions(tmp_path):
    """Cut where they are read; zeros, which no token reads, where they are written."""
    write(causal.opt()(), tmp_path / "theirs")
    theirs = weights_of(tmp_path / "theirs")[POSITIONS]
    ours = family.from_pretrained(tmp_path / "theirs")
    family.save_pretrained(ours, tmp_path / "ours", format="opt")
    again = weights_of(tmp_path / "ours")[POSITIONS]
    assert torch.equal(ours.embedding.position.weight, theirs[2:])
    assert torch.equal(again[2:], theirs[2:]) and not again[:2].any()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"word_embed_proj_dim": 16}, ["word_embed_proj_dim=16", "32"]),
        ({"_remove_final_layer_norm": True}, ["_remove_final_layer_norm=True"]),
        ({"layer_norm_elementwise_affine": False}, ["layer_norm_elementwise_affine=False"]),
        ({"do_layer_norm_before": False}, ["final_layer_norm", "no place"]),
        ({"do_layer_norm_before": "no"}, ["do_layer_norm_before='no'"]),
        ({"enable_bias": False}, ["bias", "no place"]),
        ({"max_position_embeddings": 64}, ["embed_positions", "shape"]),
        ({"ffn_dim": REMOVED}, ["ffn_dim"]),
    ],
)
def test_refused(tmp_path, fields, words):
    write(causal.opt()(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def test_rotary_positions_are_not_expressed(tmp_path):
    model = family.gpt2(97, dim=32, depth=2, heads=4, position="rotary")
    with pytest.raises(ValueError, match="position"):
        family.save_pretrained(model, tmp_path / "model", format="opt")
