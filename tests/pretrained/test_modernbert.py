"""ModernBERT: configs of versions 4 and 5, its heads, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import text_encoders
from folders import REMOVED, change, close, config_of, refuses, rewrite, weights_of, write

SIZES = {**text_encoders.SIZES["ModernBert"], "local_attention": 20}
IDS = torch.randint(2, 97, (2, 70), generator=torch.Generator().manual_seed(0))
# As the first ones were published; some of it is read by no version.
VERSION_4 = {
    "layer_types": REMOVED,
    "rope_parameters": REMOVED,
    "global_attn_every_n_layers": 2,
    "global_rope_theta": 5000.0,
    "local_rope_theta": 300.0,
    "position_embedding_type": "absolute",
    "layer_norm_eps": 1e-5,
    "reference_compile": False,
    "repad_logits_with_grad": False,
    "sparse_prediction": False,
}


def folder_of(folder, name="ModernBertForMaskedLM", **options):
    return write(text_encoders.build(name, **{**SIZES, **options}), folder)


def equal(folder, theirs=None):
    """Ours computes what theirs does, which is read from the folder if need be; a text longer than
    the window."""
    if theirs is None:
        config = config_of(folder)
        theirs = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()
    ours = family.from_pretrained(folder)
    close(ours(IDS), theirs(IDS)[0])
    return ours


def test_config_of_version_4(tmp_path):
    theirs = folder_of(
        tmp_path,
        layer_types=["full_attention", "sliding_attention"] * 2 + ["full_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    )
    change(tmp_path, **VERSION_4)
    ours = equal(tmp_path, theirs)
    layers = [ours.config.at(i) for i in range(5)]
    assert [layer.window for layer in layers] == [None, 11, None, 11, None]
    assert [layer.rotary_base for layer in layers] == [5000.0, 300.0, 5000.0, 300.0, 5000.0]
    assert [layer.mixer_norm for layer in layers] == [False, True, True, True, True]


def test_no_base_of_their_own_in_version_4(tmp_path):
    """Then layers that see their neighbourhood have that of the others."""
    base = {"rope_type": "default", "rope_theta": 5000.0}
    both = {"full_attention": base, "sliding_attention": base}
    theirs = folder_of(tmp_path, global_attn_every_n_layers=2, rope_parameters=both)
    change(tmp_path, **{**VERSION_4, "local_rope_theta": None})
    assert equal(tmp_path, theirs).config.at(1).rotary_base == 5000.0


def test_defaults_of_what_a_config_leaves_out(tmp_path):
    defaults = transformers.ModernBertConfig()
    folder_of(tmp_path, local_attention=128)
    sizes = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"}
    kept = {"model_type", "architectures", "intermediate_size", "pad_token_id", *sizes}
    change(tmp_path, **dict.fromkeys(config_of(tmp_path).keys() - kept, REMOVED))
    ours = equal(tmp_path)
    assert ours.config.at(1).window == defaults.local_attention // 2 + 1
    assert ours.config.max_tokens == defaults.max_position_embeddings
    assert ours.config.rotary_base == 160_000 and ours.config.at(1).rotary_base == 10_000


@pytest.mark.parametrize("every", [1, 2, 4, 9])
def test_written_for_both_versions(tmp_path, every):
    folder_of(tmp_path / "theirs", global_attn_every_n_layers=every)
    ours = equal(tmp_path / "theirs")
    family.save_pretrained(ours, tmp_path / "again", format="modernbert")
    written = config_of(tmp_path / "again")
    assert written["global_attn_every_n_layers"] == min(every, 5)
    assert written["local_attention"] == (128 if every == 1 else 20)
    assert written["global_rope_theta"] == 160_000 and written["local_rope_theta"] == 10_000
    assert equal(tmp_path / "again").arguments == ours.arguments
    change(tmp_path / "again", layer_types=REMOVED, rope_parameters=REMOVED)
    assert equal(tmp_path / "again").arguments == ours.arguments


def test_an_order_that_version_4_has_no_word_for(tmp_path):
    kinds = [*text_encoders.MIXED, "sliding_attention"]
    folder_of(tmp_path / "theirs", layer_types=kinds)
    family.save_pretrained(equal(tmp_path / "theirs"), tmp_path / "again", format="modernbert")
    written = config_of(tmp_path / "again")
    assert written["global_attn_every_n_layers"] is None and written["layer_types"] == kinds
    equal(tmp_path / "again")


def test_scaled_rotary_positions_in_layers_that_see_all(tmp_path):
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
    }
    folder_of(tmp_path / "theirs", rope_parameters=rope)
    ours = equal(tmp_path / "theirs")
    assert ours.config.rotary_scaling == 4 and ours.config.at(1).rotary_scaling is None
    family.save_pretrained(ours, tmp_path / "again", format="modernbert")
    equal(tmp_path / "again")
    family.save_pretrained(ours, tmp_path / "own")
    assert torch.equal(family.from_pretrained(tmp_path / "own")(IDS), ours(IDS))


def test_bare_stack_with_and_without_prefix(tmp_path):
    theirs = folder_of(tmp_path, "ModernBertModel")
    ours = equal(tmp_path, theirs)
    assert ours.masked_head is None and ours.pooler is None
    rewrite(tmp_path, lambda name: f"model.{name}")
    equal(tmp_path, theirs)


def test_copy_of_the_table(tmp_path):
    theirs = folder_of(tmp_path)
    table = weights_of(tmp_path)["model.embeddings.tok_embeddings.weight"]
    rewrite(tmp_path, **{"decoder.weight": table})
    equal(tmp_path, theirs)
    rewrite(tmp_path, **{"decoder.weight": table + 1})
    refuses(tmp_path, "differ")


def test_classes_there_and_back(tmp_path):
    labels = dict(enumerate(["bad", "poor", "fair", "good", "best"]))
    name = "ModernBertForSequenceClassification"
    theirs = folder_of(
        tmp_path / "theirs",
        name,
        id2label=labels,
        classifier_pooling="mean",
        classifier_dropout=0.3,
        classifier_bias=True,
        classifier_activation="silu",
    )
    ours = equal(tmp_path / "theirs", theirs)
    assert ours.labels == list(labels.values()) and ours.head_dropout.p == 0.3
    kept = family.from_pretrained(tmp_path / "theirs", num_classes=5)
    assert torch.equal(kept(IDS), ours(IDS))
    family.save_pretrained(ours, tmp_path / "again", format="modernbert")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert again.config.id2label == labels and again.config.classifier_dropout == 0.3
    close(ours(IDS), again.eval()(IDS).logits)


@pytest.mark.parametrize("name", ["ModernBertForMaskedLM", "ModernBertModel"])
def test_classes_start_afresh_behind_the_head_that_there_is(tmp_path, name):
    folder_of(tmp_path, name, classifier_pooling="mean")
    before, model = (
        family.from_pretrained(tmp_path),
        family.from_pretrained(tmp_path, num_classes=4),
    )
    assert model(IDS).tolist() == [[0.0] * 4] * 2 and model.pooling == "mean"
    assert torch.equal(before.encode(IDS), model.encode(IDS))
    if name.endswith("MaskedLM"):  # as transformers has it, by the same names
        assert torch.equal(model.pooler.dense.weight, before.masked_head.dense.weight)
        assert torch.equal(model.pooler.norm.weight, before.masked_head.norm.weight)
    family.save_pretrained(model, tmp_path / "again", format="modernbert")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert not theirs.eval()(IDS).logits.any()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"decoder_bias": False}, "decoder_bias=False is not supported"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ({"hidden_activation": "mish"}, "hidden_activation='mish' is not supported"),
        ({"classifier_activation": "mish"}, "classifier_activation='mish' is not supported"),
        ({"classifier_pooling": "max"}, "classifier_pooling='max' is not supported"),
        ({"layer_types": ["full_attention"] * 4}, "must have a name for each of 5 layers"),
        ({"layer_types": ["chunked_attention"] * 5}, "layer_types: 'chunked_attention' is not"),
        ({"layer_types": None, "global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0"),
        ({"local_attention": "x"}, "wrong type"),
        ({"sliding_window": 4}, "sliding_window=4 is not supported"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling={"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters has the field 'rope_theta'"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0}}},
            "rope_type='dynamic' is not supported",
        ),
        (
            {"rope_parameters": {"sliding_attention": {"partial_rotary_factor": 0.5}}},
            "partial_rotary_factor=0.5 is not supported",
        ),
        ({"hidden_size": REMOVED}, "no field 'hidden_size'"),
        ({"num_hidden_layers": 10**9, "layer_types": None}, "too few for config.depth=1000000000"),
        ({"architectures": ["ModernBertForMultipleChoice"]}, "'ModernBertForMultipleChoice"),
        ({"norm_bias": True}, "has no weight model.embeddings.norm.bias"),
    ],
)
def test_refused_in_one_sentence(tmp_path, fields, said):
    folder_of(tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, said)


def test_what_a_bare_stack_does_not_read_is_not_refused(tmp_path):
    theirs = folder_of(tmp_path, "ModernBertModel")
    change(tmp_path, decoder_bias=False, tie_word_embeddings=False)
    equal(tmp_path, theirs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_classes": 3}, "masked tokens or classes, not both"),
        ({"num_classes": 3, "masked_head": False, "pooler": "tanh"}, "pooler='tanh'"),
        ({"masked_head": False, "pooling": "max"}, "pooling='max'"),
        ({"token_types": 2}, "token_types"),
        ({"gated": False}, "gated=False"),
        ({"out_bias": True}, "qkv_bias=False"),
        ({"window": 9}, "window"),
        ({"layers": [{"mixer_norm": False}, {"window": 5}, {"window": 6}]}, "window"),
        ({"position": "none", "layers": [{"mixer_norm": False}, {}, {}]}, "position"),
        ({"embedding_dim": 24}, "embedding.projection"),
    ],
)
def test_models_that_the_format_has_no_place_for(tmp_path, options, said):
    sizes = {"dim": 32, "depth": 3, "heads": 4, "ffn_dim": 48}
    model = family.modernbert_base(97, **{**sizes, **options})
    with pytest.raises(ValueError) as raised:
        family.save_pretrained(model, tmp_path / "model", format="modernbert")
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "model").exists()


def test_the_published_size(tmp_path):
    """Its arguments are those that a published folder has."""
    small = {"dim": 32, "heads": 4, "ffn_dim": 48}
    model = family.modernbert_base(97, **small).eval()
    family.save_pretrained(model, tmp_path / "model", format="modernbert")
    theirs = config_of(tmp_path / "model")
    published = transformers.ModernBertConfig()
    for name in ("layer_types", "local_attention", "max_position_embeddings", "norm_eps"):
        assert theirs[name] == json.loads(json.dumps(getattr(published, name))), name
    assert theirs["rope_parameters"] == published.rope_parameters
    equal(tmp_path / "model")
