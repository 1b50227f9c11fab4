"""BERT, RoBERTa, DistilBERT: files as the hub has them, and what is refused."""

from __future__ import annotations

import json
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
from harness import randomise


def folder_of(name, folder, **options):
    """A folder that transformers wrote, random weights inside."""
    sizes = {"Bert": encoders.BERT, "Roberta": encoders.ROBERTA, "DistilBert": encoders.DISTILBERT}
    kind = next(kind for kind in ("DistilBert", "Roberta", "Bert") if name.startswith(kind))
    model = encoders.build(name, **{**sizes[kind], **options}).eval()
    randomise(model)
    model.save_pretrained(folder)
    return model


def change(folder, **fields):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: value for name, value in config.items() if value != "-"}))


def rename(folder, new, **more):
    """Rewrite the names of all weights, and add some."""
    file = folder / "model.safetensors"
    weights = {new(name): value for name, value in load_file(file).items()}
    save_file({name: value for name, value in (weights | more).items() if name}, file)


def same(folder, theirs, name):
    ours, batch = family.from_pretrained(folder), encoders.batch(name.startswith("Bert"))
    compared = {
        "ForMaskedLM": (encoders.masked, encoders.their_masked),
        "ForPreTraining": (encoders.both, encoders.their_both),
        "Model": (encoders.bare, encoders.their_bare),
    }
    classes = encoders.classes, encoders.their_classes
    our, their = next((c for end, c in compared.items() if name.endswith(end)), classes)
    torch.testing.assert_close(our(ours, batch), their(theirs, batch), rtol=1e-5, atol=1e-5)
    return ours


def test_bert_as_google_published_it(tmp_path):
    """Names of TensorFlow, a copy of the tied table, buffers, and the config of that time."""
    theirs = folder_of("BertForPreTraining", tmp_path)
    table = theirs.bert.embeddings.word_embeddings.weight.detach().clone()
    norms = ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")
    rename(
        tmp_path,
        lambda name: name.replace(*norms[0]).replace(*norms[1]),
        **{
            "bert.embeddings.position_ids": torch.arange(16)[None],
            "cls.predictions.decoder.weight": table,
            "cls.predictions.decoder.bias": theirs.cls.predictions.bias.detach().clone(),
        },
    )
    old = {"gradient_checkpointing": False, "position_embedding_type": "absolute"}
    change(tmp_path, architectures=["BertForMaskedLM"], tie_word_embeddings="-", **old)
    ours = same(tmp_path, theirs, "BertForPreTraining")
    assert ours.num_classes == 2 and not ours.training


def test_bias_under_its_other_name(tmp_path):
    theirs = folder_of("RobertaForMaskedLM", tmp_path)
    rename(tmp_path, lambda name: name.replace("lm_head.bias", "lm_head.decoder.bias"))
    same(tmp_path, theirs, "RobertaForMaskedLM")


@pytest.mark.parametrize("name", ["BertModel", "RobertaModel"])
def test_bare_stacks_with_and_without_prefix_and_pooler(tmp_path, name):
    theirs = folder_of(name, tmp_path)
    same(tmp_path, theirs, name)
    prefix = name.removesuffix("Model").lower()
    rename(tmp_path, lambda key: f"{prefix}.{key}")
    same(tmp_path, theirs, name)
    rename(tmp_path, lambda key: "" if "pooler" in key else key)
    assert family.from_pretrained(tmp_path).pooler is None


def test_pooler_that_older_files_of_classes_carry_along(tmp_path):
    theirs = folder_of("RobertaForSequenceClassification", tmp_path)
    zeros = {"roberta.pooler.dense.weight": torch.zeros(32, 32)}
    rename(tmp_path, str, **zeros, **{"roberta.pooler.dense.bias": torch.zeros(32)})
    same(tmp_path, theirs, "RobertaForSequenceClassification")


def test_distilbert_with_a_table_of_sines(tmp_path):
    theirs = folder_of("DistilBertForMaskedLM", tmp_path, sinusoidal_pos_embds=True)
    same(tmp_path, theirs, "DistilBertForMaskedLM")


def test_pickled_weights(tmp_path):
    theirs = folder_of("BertForMaskedLM", tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    same(tmp_path, theirs, "BertForMaskedLM")


def test_names_of_classes_there_and_back(tmp_path):
    labels = {0: "bad", 1: "fair", 2: "good"}
    name = "BertForSequenceClassification"
    folder_of(name, tmp_path / "theirs", num_labels=3, id2label=labels, classifier_dropout=0.3)
    ours = family.from_pretrained(tmp_path / "theirs")
    assert ours.labels == ["bad", "fair", "good"] and ours.head_dropout.p == 0.3
    family.save_pretrained(ours, tmp_path / "again", format="bert")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert again.config.id2label == labels and again.config.classifier_dropout == 0.3


@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize(
    "name",
    [
        "BertForPreTraining",
        "RobertaForMaskedLM",
        "DistilBertForSequenceClassification",
        "BertModel",
    ],
)
def test_other_classes_start_afresh(tmp_path, name, count):
    folder_of(name, tmp_path)
    before = family.from_pretrained(tmp_path)
    model = family.from_pretrained(tmp_path, num_classes=count)
    assert model(torch.ones(1, 3, dtype=torch.long)).tolist() == [[0.0] * count]
    assert model.masked_head is None and model.num_classes == count and model.labels is None
    encoded = [each.encode(torch.ones(1, 3, dtype=torch.long)) for each in (before, model)]
    assert torch.equal(*encoded)
    family.save_pretrained(before, tmp_path / "ours")
    again = family.from_pretrained(tmp_path / "ours", num_classes=count)
    assert again.masked_head is None and again.num_classes == count


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("BertModel", {"position_embedding_type": "relative_key"}, "position_embedding_type="),
        ("BertModel", {"is_decoder": True}, "is_decoder=True is not supported"),
        ("BertModel", {"add_cross_attention": True}, "add_cross_attention=True"),
        ("BertModel", {"hidden_act": "mish"}, "hidden_act='mish' is not supported"),
        ("BertModel", {"hidden_size": "-"}, "no field 'hidden_size'"),
        ("BertModel", {"hidden_size": "32"}, "dim must be a whole number"),
        ("BertModel", {"num_attention_heads": 5}, "heads=5 does not divide"),
        ("BertModel", {"num_hidden_layers": 4}, "has no weight bert.encoder.layer.3"),
        ("BertModel", {"num_hidden_layers": 2}, "has the weight encoder.layer.2"),
        ("BertModel", {"type_vocab_size": 3}, "has the shape (2, 32)"),
        (
            "BertModel",
            {"architectures": ["BertForMultipleChoice"]},
            "'BertForMultipleChoice'",
        ),
        ("BertForMaskedLM", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("RobertaForMaskedLM", {"pad_token_id": 0}, "pad_token_id=0"),
        ("RobertaForMaskedLM", {"hidden_act": "relu"}, "hidden_act='relu'"),
        ("RobertaForMaskedLM", {"max_position_embeddings": "x"}, "wrong type"),
        ("DistilBertForMaskedLM", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("DistilBertForMaskedLM", {"n_layers": "-"}, "no field 'n_layers'"),
    ],
)
def test_refused_in_one_sentence(tmp_path, name, fields, said):
    folder_of(name, tmp_path)
    change(tmp_path, **fields)
    with pytest.raises(ValueError) as raised:
        family.from_pretrained(tmp_path)
    message = str(raised.value)
    assert said in message and str(tmp_path) in message and "\n" not in message


def test_missing_unexpected_and_untied_weights(tmp_path):
    folder_of("BertForMaskedLM", tmp_path)
    complete = load_file(tmp_path / "model.safetensors")
    first = "bert.encoder.layer.1.output.dense.bias"
    changes = {
        f"has no weight {first}": {first: None},
        "has the weight bert.more": {"bert.more": torch.zeros(1)},
        "differs from": {"cls.predictions.decoder.weight": torch.zeros(97, 32)},
        "two names of one weight": {"cls.predictions.decoder.bias": torch.zeros(97)},
        "has the shape (31,)": {first: torch.zeros(31)},
    }
    for said, change_ in changes.items():
        weights = {n: v for n, v in (complete | change_).items() if v is not None}
        save_file(weights, tmp_path / "model.safetensors")
        with pytest.raises(ValueError) as raised:
            family.from_pretrained(tmp_path)
        assert said in str(raised.value), said


@pytest.mark.parametrize(
    ("format", "options", "said"),
    [
        ("bert", {"num_classes": 5}, "cannot express num_classes=5"),
        ("bert", {"num_classes": 2, "pooler": None}, "without a pooler"),
        ("bert", {"norm_order": "pre", "final_norm": False}, "norm_order"),
        ("bert", {"position": "none"}, "position"),
        ("bert", {"kv_heads": 2}, "kv_heads"),
        ("bert", {"pooler": "relu"}, "pooler"),
        ("bert", {"token_types": 0}, "token_types"),
        ("roberta", {"num_classes": 2}, "masked head"),
        ("roberta", {"token_types": 0}, "token_types=0"),
        ("roberta", {"activation": "relu"}, "activation"),
        ("distilbert", {"norm_eps": 1e-5, "pooler": None, "token_types": 0}, "norm_eps"),
        ("distilbert", {"pooler": None}, "embedding.token_types"),
        ("distilbert", {"token_types": 0, "pooler": "relu"}, "pooler"),
        ("gpt2", {}, "gpt2"),
    ],
)
def test_models_that_a_format_has_no_place_for(tmp_path, format, options, said):
    options = {"pooler": "tanh", **options} if "pooler" not in options else options
    model = family.bert_tiny(97, dim=32, depth=1, heads=4, max_tokens=16, **options)
    with pytest.raises(ValueError, match=said) as raised:
        family.save_pretrained(model, tmp_path / "model", format=format)
    assert "\n" not in str(raised.value) and not (tmp_path / "model").exists()
