"""T5: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import seq2seq
from folders import REMOVED, change, close, config_of, refuses, rewrite, same, weights_of, write

COPIES = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]


def test_t5_as_first_published(tmp_path):
    """Four copies of one table, a bias between texts that means nothing, and the config of that time."""
    theirs = write(seq2seq.t5(), tmp_path)
    table = weights_of(tmp_path)["shared.weight"]
    bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    rewrite(tmp_path, **dict.fromkeys([*COPIES, "lm_head.weight"], table), **{bias: table[:8, :3]})
    new = ("tie_word_embeddings", "scale_decoder_outputs", "relative_attention_max_distance")
    change(
        tmp_path,
        **dict.fromkeys([*new, "feed_forward_proj", "is_decoder"], REMOVED),
        n_positions=512,
        architectures=["T5WithLMHeadModel"],
    )
    change(tmp_path, relative_attention_max_distance=12)
    ours = same(seq2seq, tmp_path, theirs)
    assert ours.tie_embeddings and ours.decoder_depth == 2


@pytest.mark.parametrize("kept", [*COPIES, "lm_head.weight"])
def test_one_of_the_copies_is_enough(tmp_path, kept):
    theirs = write(seq2seq.t5(), tmp_path)
    table = weights_of(tmp_path)["shared.weight"]
    rewrite(tmp_path, lambda name: "" if name == "shared.weight" else name, **{kept: table})
    same(seq2seq, tmp_path, theirs)


@pytest.mark.parametrize("other", [*COPIES, "lm_head.weight"])
def test_copies_that_differ(tmp_path, other):
    write(seq2seq.t5(), tmp_path)
    rewrite(tmp_path, **{other: weights_of(tmp_path)["shared.weight"] + 1})
    refuses(tmp_path, other, "differ")


def test_v1_1_as_version_4_writes_it(tmp_path):
    theirs = write(seq2seq.t5_v1_1(), tmp_path)
    change(tmp_path, tie_word_embeddings=False, scale_decoder_outputs=REMOVED)
    ours = same(seq2seq, tmp_path, theirs)
    assert not ours.tie_embeddings and ours.output_factor == 1 and ours.config.gated


@pytest.mark.parametrize("version", ["t5", "t5_v1_1"])
def test_what_is_written_says_whether_outputs_are_scaled(tmp_path, version):
    write(getattr(seq2seq, version)(), tmp_path / "theirs")
    ours = family.from_pretrained(tmp_path / "theirs")
    family.save_pretrained(ours, tmp_path / "ours", format="t5")
    config = config_of(tmp_path / "ours")
    first = version == "t5"
    assert config["tie_word_embeddings"] is config["scale_decoder_outputs"] is first
    assert config["feed_forward_proj"] == ("relu" if first else "gated-gelu")
    assert ("lm_head.weight" in weights_of(tmp_path / "ours")) is not first


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"feed_forward_proj": "gated-swish-x"}, ["gated-swish-x", "gated-gelu"]),
        ({"feed_forward_proj": ["relu"]}, ["config.json"]),
        ({"feed_forward_proj": "gated-gelu"}, ["wi_0"]),
        ({"tie_word_embeddings": False, "scale_decoder_outputs": True}, ["scale_decoder_outputs"]),
        ({"tie_word_embeddings": False, "scale_decoder_outputs": False}, ["lm_head.weight"]),
        ({"num_decoder_layers": 1}, ["decoder.block.1", "no place"]),
        ({"num_layers": 4}, ["encoder.block.3"]),
        ({"relative_attention_num_buckets": 32}, ["relative", "32"]),
        ({"is_decoder": True}, ["is_decoder=True"]),
        ({"d_kv": "12"}, ["head_dim", "'12'"]),
        ({"architectures": ["T5EncoderModel"]}, ["T5EncoderModel"]),
        ({"model_type": "mt5"}, ["model_type='mt5'"]),
    ],
    ids=str,
)
def test_refused(tmp_path, fields, words):
    write(seq2seq.t5(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def test_v1_1_as_version_5_builds_it(tmp_path):
    """One table for all, as its config always ties, and outputs as they are."""
    theirs = write(seq2seq.t5_tied(), tmp_path / "theirs")
    assert "lm_head.weight" not in weights_of(tmp_path / "theirs")
    ours = same(seq2seq, tmp_path / "theirs", theirs)
    assert ours.tie_embeddings and not ours.scale_outputs and ours.output_factor == 1
    family.save_pretrained(ours, tmp_path / "ours", format="t5")
    config = config_of(tmp_path / "ours")
    assert config["tie_word_embeddings"] and not config["scale_decoder_outputs"]
    same(seq2seq, tmp_path / "ours", type(theirs).from_pretrained(tmp_path / "ours").eval())


def test_a_head_of_its_own_that_reads_scaled_outputs_is_not_expressed(tmp_path):
    model = family.t5_small(97, dim=32, depth=1, heads=2, tie_embeddings=False, scale_outputs=True)
    with pytest.raises(ValueError, match="tie_word_embeddings=True"):
        family.save_pretrained(model, tmp_path / "model", format="t5")


def test_no_text_is_too_long(tmp_path):
    """Files of version 4 name a number of positions, which T5 does not have."""
    theirs = write(seq2seq.t5(), tmp_path)
    change(tmp_path, n_positions=512)
    ours = family.from_pretrained(tmp_path)
    assert ours.config.longest == ours.longest_target == float("inf")
    source, target = torch.randint(2, 97, (2, 1, 700))
    target[:, 0] = 0
    with torch.no_grad():
        close(ours(source, target), theirs(input_ids=source, decoder_input_ids=target).logits)
        tokens = ours.generate(source, prompt=target, max_new_tokens=3)
        expected = theirs.generate(
            source, decoder_input_ids=target, max_new_tokens=3, min_new_tokens=3, do_sample=False
        )
    assert torch.equal(tokens, expected[:, 700:])


def test_exact_gelu_with_a_gate_is_not_expressed(tmp_path):
    model = family.t5_v1_1_small(97, dim=32, depth=2, heads=2, activation="gelu")
    with pytest.raises(ValueError, match="'gelu'"):
        family.save_pretrained(model, tmp_path / "model", format="t5")


def test_float64_stays_float64(tmp_path):
    write(seq2seq.t5().to(torch.float64), tmp_path)
    assert family.from_pretrained(tmp_path).head.weight.dtype == torch.float64
