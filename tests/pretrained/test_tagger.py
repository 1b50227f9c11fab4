"""Classes of each token: fresh heads on published encoders, older files, names there and back."""

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
from harness import randomise

TAGS = {0: "O", 1: "B-shape", 2: "I-shape"}
KINDS = ("Bert", "Roberta", "DistilBert", "Electra", "MPNet", "ModernBert")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_head_on_a_masked_model_is_saved_as_theirs(tmp_path, kind):
    theirs = saved(f"{kind}ForMaskedLM", tmp_path / "masked")
    ours = family.from_pretrained(tmp_path / "masked", num_classes=3, task="Tagging")
    assert ours.facts.task == "Tagging" and type(ours).facts.task == "TextClassification"
    assert (ours.pooler is not None) == (kind == "ModernBert") and ours.labels is None
    randomise(ours)
    ours.labels = list(TAGS.values())
    layout = {"Roberta": "roberta", "DistilBert": "distilbert"}.get(kind, kind.lower())
    family.save_pretrained(ours, tmp_path / "tagger", format=layout)
    again = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "tagger").eval()
    assert type(again).__name__ == f"{kind}ForTokenClassification" and again.config.id2label == TAGS
    batch = encoders.batch(False)
    torch.testing.assert_close(
        encoders.tagged(ours, batch), encoders.their_masked(again, batch), rtol=1e-4, atol=1e-5
    )
    back = family.from_pretrained(tmp_path / "tagger")
    assert back.labels == list(TAGS.values()) and back.facts.task == "Tagging"
    assert theirs.config.model_type == again.config.model_type


def test_a_pooler_that_older_files_carry_along(tmp_path):
    theirs = saved("BertForTokenClassification", tmp_path, num_labels=3, id2label=TAGS)
    file = tmp_path / "model.safetensors"
    pooler = {"weight": torch.ones(32, 32), "bias": torch.ones(32)}
    old = {f"bert.pooler.dense.{name}": value for name, value in pooler.items()}
    save_file({**load_file(file), **old}, file)
    ours, batch = family.from_pretrained(tmp_path), encoders.batch(True)
    torch.testing.assert_close(
        encoders.tagged(ours, batch), encoders.their_masked(theirs, batch), rtol=1e-4, atol=1e-5
    )


def test_other_tags_than_the_source_has(tmp_path):
    saved("BertForTokenClassification", tmp_path, num_labels=3, id2label=TAGS)
    same = family.from_pretrained(tmp_path, num_classes=3)
    assert same.labels == list(TAGS.values()) and same.pooling == "tokens"
    other = family.from_pretrained(tmp_path, num_classes=5)
    assert other.pooling == "tokens" and other.pooler is None and other.labels is None
    ids = torch.randint(2, 90, (2, 7))
    assert other(ids).shape == (2, 7, 5) and other(ids).abs().max() == 0
    with pytest.raises(
        ValueError, match="is a BERT, made for TextClassification, but this needs Det"
    ):
        family.from_pretrained(tmp_path, num_classes=3, task="Detection")
    with pytest.raises(ValueError, match="task='Tagging' says what classes are for"):
        family.from_pretrained(tmp_path, task="Tagging")


def test_a_folder_of_ours_stays_a_tagger(tmp_path):
    ours = family.bert_tiny(97, dim=16, heads=2, num_classes=3, masked_head=False, pooling="tokens")
    family.save_pretrained(ours, tmp_path)
    again = family.from_pretrained(tmp_path)
    ids = torch.randint(0, 97, (1, 5))
    assert again.facts.task == "Tagging" and torch.equal(again(ids), ours.eval()(ids))
    layer = family.bert_tiny(
        97, dim=16, heads=2, num_classes=3, masked_head=False, pooling="tokens", pooler="tanh"
    )
    with pytest.raises(ValueError, match="format='bert' has classes of tokens without a pooler"):
        family.save_pretrained(layer, tmp_path / "x", format="bert")
