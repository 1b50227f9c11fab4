"""Heads that answer questions: known by what the file says, made afresh, written as theirs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import encoders
from cases.text_encoders import saved

KINDS = ("Bert", "DistilBert", "ModernBert")


@pytest.mark.parametrize("kind", KINDS)
def test_two_tags_and_spans_are_told_apart(tmp_path, kind):
    """Weights of the same shapes: what a model is for stands in the file, and in ours."""
    for ending, task in (("Token", "Tagging"), ("Question", "QuestionAnswering")):
        name = f"{kind}For{ending}{'Classification' if ending == 'Token' else 'Answering'}"
        saved(name, tmp_path / task, num_labels=2)
        ours = family.from_pretrained(tmp_path / task)
        assert ours.facts.task == task
        family.save_pretrained(ours, tmp_path / f"{task} ours")
        assert family.from_pretrained(tmp_path / f"{task} ours").facts.task == task
        family.save_pretrained(ours, tmp_path / f"{task} theirs", format=kind.lower())
        config = transformers.AutoConfig.from_pretrained(tmp_path / f"{task} theirs")
        assert config.architectures == [name]


def test_a_fresh_head_on_a_masked_model_and_on_a_tagger(tmp_path):
    saved("BertForMaskedLM", tmp_path / "masked")
    saved("BertForTokenClassification", tmp_path / "tagger", num_labels=2)
    ids = torch.randint(2, 90, (2, 7))
    for name in ("masked", "tagger"):
        ours = family.from_pretrained(tmp_path / name, num_classes=2, task="QuestionAnswering")
        assert ours.facts.task == "QuestionAnswering" and ours.pooler is None
        assert ours(ids).shape == (2, 7, 2) and ours(ids).abs().max() == 0


def test_a_pooler_that_older_files_carry_along(tmp_path):
    theirs = saved("BertForQuestionAnswering", tmp_path, num_labels=2)
    file = tmp_path / "model.safetensors"
    pooler = {"weight": torch.ones(32, 32), "bias": torch.ones(32)}
    old = {f"bert.pooler.dense.{name}": value for name, value in pooler.items()}
    save_file({**load_file(file), **old}, file)
    ours, batch = family.from_pretrained(tmp_path), encoders.batch(True)
    torch.testing.assert_close(
        encoders.spans(ours, batch), encoders.their_spans(theirs, batch), rtol=1e-4, atol=1e-5
    )


def test_spans_have_a_begin_and_an_end():
    with pytest.raises(ValueError, match="pooling='spans' has a begin and an end: num_classes"):
        family.bert_tiny(97, dim=16, heads=2, num_classes=3, masked_head=False, pooling="spans")
