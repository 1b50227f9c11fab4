"""BART, mBART and M2M100: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import family
from family.inputs.position import sinusoidal

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import seq2seq
from folders import REMOVED, change, config_of, refuses, rewrite, same, weights_of, write

COPIES = ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"]
BUILD = {"bart": seq2seq.bart, "mbart": seq2seq.mbart, "m2m_100": seq2seq.m2m100}
NORMS = {
    "bart": {"normalize_before": False, "add_final_layer_norm": False},
    "mbart": {"normalize_before": True, "add_final_layer_norm": True},
}
formats = pytest.mark.parametrize("name", BUILD)
barts = pytest.mark.parametrize("name", NORMS)


def stack(**fields):
    return family.TransformerConfig(dim=16, depth=1, heads=2, **fields)


@formats
def test_as_published(tmp_path, name):
    """Copies of the one table, and the configs of that time."""
    theirs = write(BUILD[name](), tmp_path)
    table = weights_of(tmp_path)["model.shared.weight"]
    more = dict.fromkeys([*COPIES, "lm_head.weight"], table)
    more["model.encoder.version"] = torch.tensor([3.0])
    if name == "m2m_100":  # sines of that time
        for side in ("encoder", "decoder"):
            more[f"model.{side}.embed_positions.weights"] = torch.zeros(130, 32)
    rewrite(tmp_path, **more)
    old = NORMS.get(name)
    if old is not None:
        old = {
            **old,
            "normalize_embedding": True,
            "static_position_embeddings": False,
            "extra_pos_embeddings": 2,
            "add_bias_logits": False,
            "forced_bos_token_id": 0,
        }
    optional = ("tie_word_embeddings", "is_decoder", "attention_dropout", "activation_dropout")
    change(tmp_path, **old or {}, **dict.fromkeys(optional, REMOVED), num_hidden_layers=3)
    ours = same(seq2seq, tmp_path, theirs)
    assert ours.bos_id == 2 and ours.decoder_depth == 2 and ours.decoder_config.heads == 2
    assert ours.target_embedding.tokens.weight is ours.source_embedding.tokens.weight
    assert ours.head.weight is ours.source_embedding.tokens.weight


@formats
def test_what_absence_means(tmp_path, name):
    """Of each field what their config's class says."""
    build = BUILD[name]
    kind = type(build().config)
    usual = kind(vocab_size=97, d_model=32, encoder_layers=1, decoder_layers=1)
    for side in ("encoder", "decoder"):
        setattr(usual, f"{side}_attention_heads", 4)
        setattr(usual, f"{side}_ffn_dim", 24)
    theirs = write(type(build())(usual), tmp_path)
    sizes = {"vocab_size", "d_model", "model_type", "architectures"}
    kept = sizes | {f"{side}_{n}" for side in ("encoder", "decoder")
                    for n in ("layers", "attention_heads", "ffn_dim")}  # fmt: skip
    change(tmp_path, **{n: REMOVED for n in config_of(tmp_path) if n not in kept})
    ours = same(seq2seq, tmp_path, theirs)
    assert ours.config.max_tokens == 1024
    assert ours.config.activation == ("relu" if name == "m2m_100" else "gelu")
    assert ours.source_embedding.factor == (32**0.5 if name == "m2m_100" else 1)
    # mBART names no token to start from, and theirs then takes the first of a text.
    assert ours.bos_id == (0 if name == "mbart" else 2)


@formats
def test_the_model_without_its_head(tmp_path, name):
    """Weights without prefix; the head is the table of tokens."""
    theirs = write(BUILD[name](), tmp_path / "whole")
    if name != "m2m_100":
        with torch.no_grad():
            theirs.final_logits_bias.zero_()
    theirs.model.save_pretrained(tmp_path / "model")
    assert "shared.weight" in weights_of(tmp_path / "model")
    ours = same(seq2seq, tmp_path / "model", theirs)
    assert ours.head.bias is None
    family.save_pretrained(ours, tmp_path / "ours", format=name)
    again = type(theirs).from_pretrained(tmp_path / "ours")
    same(seq2seq, tmp_path / "ours", again)


@barts
def test_a_bias_of_the_logits_that_is_missing(tmp_path, name):
    theirs = write(BUILD[name](), tmp_path)
    rewrite(tmp_path, lambda n: "" if n == "final_logits_bias" else n)
    with torch.no_grad():
        theirs.final_logits_bias.zero_()
    assert not same(seq2seq, tmp_path, theirs).output_bias


def test_positions_that_no_token_reads_come_back_as_zeros(tmp_path):
    write(seq2seq.bart(), tmp_path / "theirs")
    ours = family.from_pretrained(tmp_path / "theirs")
    assert ours.source_embedding.position.weight.shape == (128, 32)
    family.save_pretrained(ours, tmp_path / "ours", format="bart")
    for side in ("encoder", "decoder"):
        table = weights_of(tmp_path / "ours")[f"model.{side}.embed_positions.weight"]
        assert table.shape == (130, 32) and not table[:2].any()


@formats
def test_a_head_of_its_own(tmp_path, name):
    """Written with copies of the table, as their loader then ties nothing."""
    write(BUILD[name](), tmp_path / "theirs")
    arguments = family.from_pretrained(tmp_path / "theirs").arguments
    model = family.Seq2Seq(**{**arguments, "tie_embeddings": False}).eval()
    family.save_pretrained(model, tmp_path / "ours", format=name)
    theirs = type(BUILD[name]()).from_pretrained(tmp_path / "ours").eval()
    ours = same(seq2seq, tmp_path / "ours", theirs)
    assert ours.head.weight is not ours.target_embedding.tokens.weight


@pytest.mark.parametrize("other", [*COPIES, "lm_head.weight"])
@formats
def test_copies_that_differ(tmp_path, name, other):
    write(BUILD[name](), tmp_path)
    rewrite(tmp_path, **{other: weights_of(tmp_path)["model.shared.weight"] + 1})
    refuses(tmp_path, other, "differ")


def test_where_decoding_starts(tmp_path):
    write(seq2seq.mbart(), tmp_path)
    change(tmp_path, decoder_start_token_id=None, bos_token_id=5)
    assert family.from_pretrained(tmp_path).bos_id == 5
    change(tmp_path, decoder_start_token_id=7)
    assert family.from_pretrained(tmp_path).bos_id == 7
    change(tmp_path, decoder_start_token_id=None, bos_token_id=None)
    refuses(tmp_path, "decoder_start_token_id", "bos_token_id")


def test_positions_of_m2m100_count_from_the_number_of_its_padding(tmp_path):
    theirs = write(seq2seq.m2m100(pad_token_id=4), tmp_path / "theirs")
    ours, inputs = family.from_pretrained(tmp_path / "theirs"), seq2seq.batch()
    table = ours.source_embedding.position.table
    assert torch.equal(table, sinusoidal(torch.arange(5, 133), 32, timing=True))
    for part in ("source", "target"):  # in their batch the padding's token stands nowhere else
        inputs[part] = inputs[part].masked_fill(inputs[part] == 4, 3)
    inputs["source"] = inputs["source"].masked_fill(~inputs["mask"], 4)
    with torch.no_grad():
        torch.testing.assert_close(
            seq2seq.ours(ours, inputs), seq2seq.theirs(theirs, inputs), rtol=1e-5, atol=1e-5
        )
    family.save_pretrained(ours, tmp_path / "ours", format="m2m_100")
    assert config_of(tmp_path / "ours")["pad_token_id"] == 4
    ours.tokenizer = SimpleNamespace(bos_id=0, eos_id=2, pad_id=1)
    with pytest.raises(ValueError, match="first_position=5 .*padding is 4, not 1"):
        family.save_pretrained(ours, tmp_path / "other", format="m2m_100")


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("bart", {"normalize_before": True}, ["normalize_before=True"]),
        ("bart", {"normalize_embedding": False}, ["normalize_embedding=False"]),
        ("bart", {"add_final_layer_norm": True}, ["add_final_layer_norm=True"]),
        ("bart", {"static_position_embeddings": True}, ["static_position_embeddings=True"]),
        ("bart", {"architectures": ["BartForSequenceClassification"]}, ["BartForSequence"]),
        ("bart", {"architectures": ["BartForCausalLM"]}, ["BartForCausalLM"]),
        ("bart", {"is_encoder_decoder": False}, ["is_encoder_decoder=False"]),
        ("bart", {"activation_function": "swiglu"}, ["activation_function='swiglu'"]),
        ("bart", {"max_position_embeddings": 64}, ["embed_positions", "(128, 32)", "(64, 32)"]),
        ("bart", {"decoder_layers": REMOVED}, ["decoder_layers"]),
        ("bart", {"decoder_layers": 3}, ["model.decoder.layers.2"]),
        ("bart", {"decoder_ffn_dim": 71}, ["decoder.layers.0.fc1", "71"]),
        ("bart", {"decoder_attention_heads": 3}, ["heads=3", "dim=32"]),
        ("bart", {"tie_word_embeddings": False}, ["lm_head.weight"]),
        ("bart", {"model_type": "mbart"}, ["BartForConditionalGeneration", "mbart"]),
        ("mbart", {"normalize_before": False}, ["normalize_before=False"]),
        ("mbart", {"add_final_layer_norm": False}, ["add_final_layer_norm=False"]),
        ("mbart", {"is_decoder": True}, ["is_decoder=True"]),
        ("m2m_100", {"pad_token_id": 2}, ["pad_token_id=2", "decoder_start_token_id=2"]),
        ("m2m_100", {"pad_token_id": None}, ["pad_token_id=None"]),
        ("m2m_100", {"model_type": "nllb-moe"}, ["model_type='nllb-moe'"]),
        ("m2m_100", {"d_model": 33}, ["heads=4", "33"]),
    ],
)
def test_refused(tmp_path, name, fields, words):
    write(BUILD[name](), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("bart", {"embedding_norm": False}, "embedding_norm=False"),
        ("bart", {"config": stack(norm_order="pre", position="learned")}, "norm_order='pre'"),
        ("bart", {"config": stack(norm_order="post", position="rotary")}, "position='rotary'"),
        ("bart", {"config": stack(norm_order="post", position="learned", norm_eps=1e-6)}, "norm_eps"),
        ("mbart", {"target_vocab_size": 31}, "target_vocab_size=31"),
        ("m2m_100", {"first_position": 0}, "first_position=0"),
        ("m2m_100", {"output_bias": True}, "output_bias=True"),
    ],
)  # fmt: skip
def test_not_expressed(tmp_path, name, arguments, words):
    order, position = ("post", "learned") if name == "bart" else ("pre", "learned")
    usual = {"embedding_norm": True, "config": stack(norm_order=order, position=position)}
    if name == "m2m_100":
        usual = {"first_position": 2, "bos_id": 2, "config": stack(position="timing")}
    model = family.Seq2Seq(31, **usual | arguments)
    with pytest.raises(ValueError, match=words):
        family.save_pretrained(model, tmp_path / "model", format=name)
    family.save_pretrained(family.Seq2Seq(31, **usual), tmp_path / "usual", format=name)


def test_what_is_written_ends_no_text_with_a_token_that_means_something_else(tmp_path):
    for name, build in BUILD.items():
        write(build(), tmp_path / name)
        family.save_pretrained(
            family.from_pretrained(tmp_path / name), tmp_path / f"our {name}", format=name
        )
        config = config_of(tmp_path / f"our {name}")
        assert config["eos_token_id"] is None
        if name == "m2m_100":
            assert config["encoder_layerdrop"] == config["decoder_layerdrop"] == 0
        else:
            assert config["forced_eos_token_id"] is None
