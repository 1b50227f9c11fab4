"""Whisper: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family
from family.inputs.audio import LogMel

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import speech
from folders import REMOVED, change, config_of, refuses, rewrite, same, weights_of, write

TABLE = "model.encoder.embed_positions.weight"
SINES = ("encoder.embed_positions",)


def test_whisper_as_published(tmp_path):
    """The head beside the table that it is, and the config of that time."""
    theirs = write(speech.whisper(), tmp_path, SINES)
    rewrite(
        tmp_path, **{"proj_out.weight": weights_of(tmp_path)["model.decoder.embed_tokens.weight"]}
    )
    change(
        tmp_path,
        forced_decoder_ids=[[1, 5], [2, 6]],
        suppress_tokens=[1, 2, 7],
        begin_suppress_tokens=[4, 2],
        num_hidden_layers=3,
        max_length=448,
        scale_embedding=True,  # which their code does not heed
        **dict.fromkeys(["tie_word_embeddings", "is_decoder", "median_filter_width"], REMOVED),
    )  # fmt: skip
    sound = transformers.WhisperFeatureExtractor(feature_size=speech.MELS)
    sound.save_pretrained(tmp_path)
    ours = same(speech, tmp_path, theirs)
    assert ours.bos_id == speech.START and ours.mels == speech.MELS
    assert ours.config.max_tokens == 13 and ours.decoder_config.max_tokens == 80
    assert ours.head.weight is ours.target_embedding.tokens.weight
    assert ours.preprocess == LogMel(speech.MELS, 30)
    family.save_pretrained(ours, tmp_path / "ours", format="whisper")
    again = family.from_pretrained(tmp_path / "ours")
    assert again.preprocess == ours.preprocess
    assert config_of(tmp_path / "ours")["begin_suppress_tokens"] is None


def test_what_absence_means(tmp_path):
    """Of each field what their config's class says; OpenAI's vocabulary is too large for a test."""
    theirs = write(
        transformers.WhisperForConditionalGeneration(
            transformers.WhisperConfig(
                vocab_size=97, d_model=16, encoder_layers=1, decoder_layers=1, pad_token_id=1,
                encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
                decoder_ffn_dim=24,
            )
        ),
        tmp_path,
        SINES,
    )  # fmt: skip
    optional = ("max_source_positions", "max_target_positions", "num_mel_bins", "activation_function",
                "decoder_start_token_id", "dropout")  # fmt: skip
    change(tmp_path, **dict.fromkeys(optional, REMOVED))
    ours = family.from_pretrained(tmp_path)
    sound, text = torch.randn(1, 80, 3000), torch.tensor([[3, 7]])
    with torch.no_grad():
        expected = theirs(sound, decoder_input_ids=text).logits
        torch.testing.assert_close(ours(sound, text), expected, rtol=1e-5, atol=1e-5)
    assert ours.decoder_config.max_tokens == 448 and ours.bos_id == 50_257


def test_the_model_without_its_head(tmp_path):
    theirs = write(speech.whisper(), tmp_path / "whole", SINES)
    theirs.model.save_pretrained(tmp_path / "model")
    assert "decoder.embed_tokens.weight" in weights_of(tmp_path / "model")
    same(speech, tmp_path / "model", theirs)


def test_a_table_that_is_no_longer_of_sines_is_kept(tmp_path):
    theirs = write(speech.whisper(), tmp_path / "theirs")  # all of it at random
    ours = same(speech, tmp_path / "theirs", theirs)
    table = theirs.model.encoder.embed_positions.weight
    assert torch.equal(ours.source_embedding.position.table, table)
    family.save_pretrained(ours, tmp_path / "ours", format="whisper")
    assert torch.equal(weights_of(tmp_path / "ours")[TABLE], table)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architectures": ["WhisperForAudioClassification"]}, ["WhisperForAudioClassification"]),
        ({"architectures": ["WhisperForCausalLM"]}, ["WhisperForCausalLM"]),
        ({"tie_word_embeddings": False}, ["tie_word_embeddings=False"]),
        ({"is_encoder_decoder": False}, ["is_encoder_decoder=False"]),
        ({"activation_function": "mish"}, ["activation_function='mish'"]),
        ({"num_mel_bins": 80}, ["model.encoder.conv1", "80"]),
        ({"max_source_positions": 14}, [TABLE, "14"]),
        ({"max_target_positions": 448}, ["decoder.embed_positions", "448"]),
        ({"encoder_layers": 2}, ["model.encoder.layers.2", "no place"]),
        ({"d_model": REMOVED}, ["d_model"]),
        ({"decoder_start_token_id": None, "bos_token_id": None}, ["decoder_start_token_id"]),
    ],
)
def test_refused(tmp_path, fields, words):
    write(speech.whisper(), tmp_path, SINES)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def test_a_bias_of_keys_has_no_place(tmp_path):
    write(speech.whisper(), tmp_path, SINES)
    name = "model.decoder.layers.1.encoder_attn.k_proj.bias"
    rewrite(tmp_path, **{name: torch.zeros(32)})
    refuses(tmp_path, name, "no place")


def test_other_positions_are_not_expressed(tmp_path):
    sizes = {"dim": 16, "depth": 1, "heads": 2, "mels": 6, "max_tokens": 8}
    for position in ("learned", "rotary"):
        model = family.whisper_tiny(31, position=position, **sizes)
        with pytest.raises(ValueError, match="position"):
            family.save_pretrained(model, tmp_path / position, format="whisper")
    model = family.whisper_tiny(31, key_bias=True, **sizes)
    with pytest.raises(ValueError, match="key_bias|qkv.bias"):
        family.save_pretrained(model, tmp_path / "biased", format="whisper")
