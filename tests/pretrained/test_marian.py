"""Marian: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import seq2seq
from folders import REMOVED, change, config_of, refuses, rewrite, same, weights_of, write

OLD = {"normalize_before": False, "normalize_embedding": False, "add_final_layer_norm": False}
COPIES = ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"]


def test_opus_mt_as_published(tmp_path):
    """Tables of sines, copies of the one vocabulary, and the config of that time."""
    theirs = write(seq2seq.marian()(), tmp_path, seq2seq.SINES)
    state = theirs.state_dict()
    sines = [f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")]
    copies = dict.fromkeys([*COPIES, "lm_head.weight"], state["model.shared.weight"])
    rewrite(tmp_path, **copies, **{name: state[name] for name in sines})
    change(
        tmp_path,
        **OLD,
        static_position_embeddings=True,
        bad_words_ids=[[seq2seq.PADDING]],
        **dict.fromkeys(["share_encoder_decoder_embeddings", "tie_word_embeddings"], REMOVED),
    )
    ours = same(seq2seq, tmp_path, theirs)
    assert ours.bos_id == seq2seq.START and ours.forbidden_id == seq2seq.PADDING
    assert ours.source_embedding.factor == 32**0.5


def test_padding_is_never_generated(tmp_path):
    """In published files it is the start too, and its logit may well be the largest."""
    write(seq2seq.marian()(), tmp_path, seq2seq.SINES)
    change(tmp_path, decoder_start_token_id=seq2seq.PADDING)
    ours, inputs = family.from_pretrained(tmp_path), seq2seq.batch()
    with torch.no_grad():
        ours.head.bias[seq2seq.PADDING] = 1e4
    for beams in (1, 3):
        tokens = ours.generate(inputs["source"], inputs["mask"], max_new_tokens=8, beams=beams)
        assert not (tokens == seq2seq.PADDING).any()


def test_two_vocabularies(tmp_path):
    build = seq2seq.marian(share_encoder_decoder_embeddings=False, decoder_vocab_size=103)
    theirs = write(build(), tmp_path / "theirs", seq2seq.SINES)
    ours = same(seq2seq, tmp_path / "theirs", theirs)
    assert ours.target_vocab_size == 103
    assert ours.target_embedding.tokens.weight is ours.head.weight
    family.save_pretrained(ours, tmp_path / "ours", format="marian")
    config = config_of(tmp_path / "ours")
    assert config["share_encoder_decoder_embeddings"] is False
    assert config["eos_token_id"] is config["forced_eos_token_id"] is None
    assert "model.shared.weight" not in weights_of(tmp_path / "ours")


@pytest.mark.parametrize("other", [*COPIES, "lm_head.weight"])
def test_copies_that_differ(tmp_path, other):
    write(seq2seq.marian()(), tmp_path, seq2seq.SINES)
    rewrite(tmp_path, **{other: weights_of(tmp_path)["model.shared.weight"] + 1})
    refuses(tmp_path, other, "differ")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"decoder_attention_heads": 3}, ["heads=3", "32"]),
        ({"decoder_ffn_dim": 32}, ["model.decoder.layers.0.fc1", "32"]),
        ({"normalize_before": True}, ["normalize_before=True"]),
        ({"static_position_embeddings": False}, ["static_position_embeddings=False"]),
        ({"activation_function": "swiglu"}, ["activation_function='swiglu'"]),
        ({"decoder_layers": REMOVED}, ["decoder_layers"]),
        ({"encoder_layers": 2}, ["model.encoder.layers.2", "no place"]),
        ({"share_encoder_decoder_embeddings": False}, ["model.encoder.embed_tokens.weight"]),
        ({"architectures": ["MarianModel"]}, ["MarianModel"]),
        ({"d_model": 33}, ["heads=4", "33"]),
    ],
)
def test_refused(tmp_path, fields, words):
    write(seq2seq.marian()(), tmp_path, seq2seq.SINES)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize("separate", [False, True])
def test_a_head_of_its_own(tmp_path, separate):
    """Written with copies of the one table, as their loader then ties nothing."""
    options = {"share_encoder_decoder_embeddings": False} if separate else {}
    write(seq2seq.marian(**options)(), tmp_path / "theirs", seq2seq.SINES)
    arguments = family.from_pretrained(tmp_path / "theirs").arguments
    model = family.Seq2Seq(**{**arguments, "tie_embeddings": False}).eval()
    family.save_pretrained(model, tmp_path / "ours", format="marian")
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path / "ours").eval()
    same(seq2seq, tmp_path / "ours", theirs)


def test_missing_bias_of_the_logits(tmp_path):
    write(seq2seq.marian()(), tmp_path, seq2seq.SINES)
    rewrite(tmp_path, lambda name: "" if name == "final_logits_bias" else name)
    refuses(tmp_path, "final_logits_bias")


def test_no_bias_is_not_expressed(tmp_path):
    model = family.transformer_base(97, dim=32, depth=1, heads=4, activation="silu")
    with pytest.raises(ValueError, match="output_bias=False"):
        family.save_pretrained(model, tmp_path / "model", format="marian")
