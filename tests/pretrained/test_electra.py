"""ELECTRA: generator and discriminator as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import encoders, text_encoders
from folders import REMOVED, change, close, config_of, refuses, rewrite, weights_of, write

GENERATOR, DISCRIMINATOR = "ElectraForMaskedLM", "ElectraForPreTraining"
IDS = torch.randint(2, 97, (3, 9), generator=torch.Generator().manual_seed(0))
TYPES = (IDS > 40).long()


def folder_of(folder, name=DISCRIMINATOR, **options):
    return write(text_encoders.build(name, **{**text_encoders.SIZES["Electra"], **options}), folder)


def equal(folder, theirs):
    ours = family.from_pretrained(folder)
    close(ours(IDS, token_types=TYPES), theirs(IDS, token_type_ids=TYPES)[0])
    return ours


def test_names_of_tensorflow_and_a_copy_of_the_table(tmp_path):
    theirs = folder_of(tmp_path, GENERATOR)
    table = weights_of(tmp_path)["electra.embeddings.word_embeddings.weight"]
    more = {"generator_lm_head.weight": table, "electra.embeddings.position_ids": IDS[:1]}
    rewrite(tmp_path, lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma"), **more)
    change(tmp_path, summary_type="first", tie_word_embeddings=REMOVED)
    assert equal(tmp_path, theirs).masked_head.output.bias.abs().sum() > 0


def test_embedding_as_wide_as_the_stack(tmp_path):
    """ELECTRA base; nothing leads from one to the other."""
    theirs = folder_of(tmp_path, embedding_size=32)
    assert not any("embeddings_project" in name for name in weights_of(tmp_path))
    ours = equal(tmp_path, theirs)
    assert isinstance(ours.embedding.projection, torch.nn.Identity)


def test_an_embedding_of_128_where_none_is_said(tmp_path):
    theirs = folder_of(tmp_path, embedding_size=128)
    change(tmp_path, embedding_size=REMOVED)
    assert equal(tmp_path, theirs).embedding_dim == 128


def test_bare_stack_with_and_without_prefix(tmp_path):
    theirs = folder_of(tmp_path, "ElectraModel")
    ours = equal(tmp_path, theirs)
    assert ours.masked_head is ours.replaced_head is ours.pooler is None
    rewrite(tmp_path, lambda name: f"electra.{name}")
    equal(tmp_path, theirs)


@pytest.mark.parametrize("name", [GENERATOR, DISCRIMINATOR, "ElectraModel"])
def test_classes_start_afresh(tmp_path, name):
    folder_of(tmp_path, name)
    before, model = (
        family.from_pretrained(tmp_path),
        family.from_pretrained(tmp_path, num_classes=4),
    )
    assert model(IDS).tolist() == [[0.0] * 4] * 3 and model.replaced_head is None
    assert torch.equal(before.encode(IDS), model.encode(IDS))
    family.save_pretrained(model, tmp_path / "again", format="electra")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert config_of(tmp_path / "again")["embedding_size"] == 24
    assert not theirs.eval()(IDS).logits.any()


def test_as_many_classes_as_there_are_are_kept(tmp_path):
    folder_of(tmp_path, "ElectraForSequenceClassification")
    model = family.from_pretrained(tmp_path, num_classes=encoders.CLASSES)
    assert model(IDS).abs().sum() > 0
    family.save_pretrained(model, tmp_path / "ours")
    assert torch.equal(family.from_pretrained(tmp_path / "ours", num_classes=5)(IDS), model(IDS))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"is_decoder": True}, "is_decoder=True is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ({"embedding_size": 32}, "embeddings.word_embeddings.weight has the shape (97, 24)"),
        ({"embedding_size": "24"}, "embedding_dim must be a whole number"),
        ({"hidden_size": REMOVED}, "no field 'hidden_size'"),
        ({"architectures": ["ElectraForCausalLM"]}, "'ElectraForCausalLM' is not supported"),
    ],
)
def test_refused_in_one_sentence(tmp_path, fields, said):
    folder_of(tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"masked_head": True}, "not two of these"),
        ({"replaced_head": True, "num_classes": 2}, "not two of these"),
        ({"num_classes": 2, "pooler": None}, "classes with a pooler"),
        ({"num_classes": 2, "pooler": "tanh"}, "pooler='tanh'"),
        ({"num_classes": 2, "pooling": "mean"}, "pooling='mean'"),
        ({"activation": "relu"}, "cannot express config.activation='relu'"),
        ({"token_types": 0}, "token_types"),
    ],
)
def test_models_that_the_format_has_no_place_for(tmp_path, options, said):
    sizes = {"dim": 32, "depth": 1, "heads": 4, "max_tokens": 16, "embedding_dim": 24}
    model = family.electra_small(97, **{**sizes, **options})
    with pytest.raises(ValueError) as raised:
        family.save_pretrained(model, tmp_path / "model", format="electra")
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "model").exists()


def test_a_narrow_embedding_has_no_place_in_bert(tmp_path):
    model = family.bert_tiny(97, dim=32, heads=4, embedding_dim=24)
    with pytest.raises(ValueError, match="embedding"):
        family.save_pretrained(model, tmp_path / "model", format="bert")
