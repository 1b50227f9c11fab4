"""Phi-3: files as the hub has them, what is refused, and texts that grow past its first context."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family
from family.core.rotary import RotaryScaling

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import causal, llamas
from folders import REMOVED, change, config_of, refuses, rewrite, same, write

CONTEXT = 6
"""Of pre-training: the first row of the prompts is longer, the others are not."""
PARTIAL = {**llamas.LONG, "partial_rotary_factor": 0.75}
FACTORS = {"short_factor": [1.0, 1.05, 1.3, 2.0], "long_factor": [1.1, 2.0, 7.5, 9.0]}


def phi3(rope=PARTIAL, context=CONTEXT, **options):
    config = {"original_max_position_embeddings": context, **options}
    return llamas.of("Phi3", causal.LLAMA, rope_parameters=dict(rope), **config)()


def alone(theirs, row):
    """Their logits of one row of the prompts, with nothing beside it."""
    batch = causal.batch()
    tokens = batch["input_ids"][row][batch["mask"][row]]
    with torch.no_grad():
        return theirs(tokens[None]).logits[0]


def test_each_row_has_the_frequencies_of_its_own_length(tmp_path):
    """They give all rows those of the longest; a row by itself has its own there too."""
    theirs = write(phi3(), tmp_path)
    ours, batch = family.from_pretrained(tmp_path), causal.batch()
    lengths = batch["mask"].sum(1)
    assert lengths[0] > CONTEXT >= lengths[2]
    with torch.no_grad():
        logits = ours(batch["input_ids"], batch["mask"])
        together = causal.theirs(theirs, batch)[-int(lengths[2]) :]
    for row in range(3):
        got, expected = logits[row][batch["mask"][row]], alone(theirs, row)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert (together - alone(theirs, 2)).abs().max() > 1e-3  # it does make a difference


def test_exactly_the_first_context_is_short(tmp_path):
    """So many tokens, of which the last has the number ``CONTEXT - 1``."""
    theirs = write(phi3(), tmp_path)
    ours = family.from_pretrained(tmp_path)
    for count in (CONTEXT, CONTEXT + 1):
        ids = causal.batch()["input_ids"][:1, :count]
        with torch.no_grad():
            torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("compiled", [False, True])
def test_rows_that_grow_past_the_context_one_after_the_other(tmp_path, compiled, window):
    """Each generates what it does alone, where every step reads all of its text."""
    write(phi3(context=14, sliding_window=window), tmp_path)
    ours, batch = family.from_pretrained(tmp_path), causal.batch()
    if compiled:
        ours.compiled = True  # the step itself as it is: compiling takes long
    tokens = ours.generate(batch["input_ids"], batch["mask"], max_new_tokens=16)
    for row in range(3):
        text = batch["input_ids"][row][batch["mask"][row]]
        for token in tokens[row]:
            with torch.no_grad():
                assert ours(text[None])[0, -1].argmax() == token
            text = torch.cat([text, token[None]])


def test_beams_past_the_context_are_refused(tmp_path):
    write(phi3(context=14), tmp_path)
    ours, ids = family.from_pretrained(tmp_path), causal.batch()["input_ids"]
    ours.generate(ids, beams=2, max_new_tokens=3)
    with pytest.raises(ValueError, match="14 tokens.*longrope"):
        ours.generate(ids, beams=2, max_new_tokens=8)
    longer = torch.cat([ids, ids], dim=1)  # all of it beyond
    assert ours.generate(longer, beams=2, max_new_tokens=3).shape == (3, 3)


@pytest.mark.parametrize("kind", ["longrope", "su", "yarn"])
def test_layout_of_version_4(tmp_path, kind):
    """The context and the share of a head that turns stand beside an object of three fields."""
    theirs = write(phi3(), tmp_path)
    three = {name: PARTIAL[name] for name in ("short_factor", "long_factor")}
    change(tmp_path, rope_parameters=REMOVED, rope_theta=500.0, partial_rotary_factor=0.75)
    change(tmp_path, rope_scaling={"type": kind, **three})
    config = family.from_pretrained(tmp_path).config
    assert (config.rotary_dim, config.rotary_scaling.tokens) == (6, CONTEXT)
    change(tmp_path, original_max_position_embeddings=2)  # all rows beyond it
    theirs.config.rope_parameters["original_max_position_embeddings"] = 2
    theirs.config.original_max_position_embeddings = 2
    again = type(theirs)(theirs.config).eval()
    again.load_state_dict(theirs.state_dict())
    same(causal, tmp_path, again)


def test_defaults(tmp_path):
    theirs = write(phi3({"rope_type": "default", "rope_theta": 10_000.0}), tmp_path)
    for name in ("rope_parameters", "rms_norm_eps", "sliding_window", "resid_pdrop"):
        change(tmp_path, **{name: REMOVED})
    config = same(causal, tmp_path, theirs).config
    assert (config.norm_eps, config.rotary_dim) == (1e-5, 8)


def test_context_of_4096_unless_said_otherwise(tmp_path):
    write(phi3({**llamas.LONG, **FACTORS}, 4096, max_position_embeddings=131_072), tmp_path)
    change(tmp_path, original_max_position_embeddings=REMOVED)
    scaling = family.from_pretrained(tmp_path).config.rotary_scaling
    assert scaling.tokens == 4096 and round(scaling.magnitude, 3) == 1.19


def test_bare_stack(tmp_path):
    theirs = write(phi3(context=2, tie_word_embeddings=True), tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("model."))
    change(tmp_path, architectures=["Phi3Model"])
    same(causal, tmp_path, theirs)


def test_written_in_three_fields_where_these_say_all(tmp_path):
    """Version 4 takes no more of them."""
    ours = family.from_pretrained(phi3())
    family.save_pretrained(ours, tmp_path / "ours", format="phi3")
    config = config_of(tmp_path / "ours")
    assert config["rope_scaling"].keys() == {"type", "short_factor", "long_factor"}
    assert config["partial_rotary_factor"] == 0.75
    assert config["original_max_position_embeddings"] == CONTEXT


def test_magnitude_of_its_own_is_written(tmp_path):
    theirs = write(phi3({**PARTIAL, "attention_factor": 1.5}, context=2), tmp_path / "theirs")
    ours = family.from_pretrained(tmp_path / "theirs")
    family.save_pretrained(ours, tmp_path / "ours", format="phi3")
    again = type(theirs).from_pretrained(tmp_path / "ours")
    assert again.model.rotary_emb.attention_scaling == 1.5
    same(causal, tmp_path / "ours", theirs)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ["linear", "longrope"]),
        ({"rope_scaling": {"type": "su", "factor": 2.0}}, ["rope_scaling", "short_factor"]),
        ({"rope_scaling": {"type": "su", "short_factor": [1], "long_factor": [1]}}, ["short", "3"]),
        ({"rope_scaling": "su"}, ["config.json"]),
        ({"rope_parameters": {**PARTIAL, "partial_rotary_factor": 0.4}}, ["rotary_dim", "3"]),
        ({"num_key_value_heads": 4}, ["self_attn.qkv_proj", "shape"]),
        ({"architectures": ["Phi3ForSequenceClassification"]}, ["Phi3ForSequence"]),
    ],
    ids=str,
)
def test_refused(tmp_path, fields, words):
    write(phi3(), tmp_path)
    change(tmp_path, partial_rotary_factor=0.75, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rotary_scaling": 2.0}, ["linear"]),
        ({"rotary_scaling": RotaryScaling("yarn", 2.0, 64, 1.0, 32.0)}, ["short_factor"]),
        ({"qk_norm": True}, ["norm"]),
        ({"qkv_bias": True}, ["qkv_bias=True"]),
    ],
    ids=str,
)
def test_models_that_the_format_cannot_express(tmp_path, options, words):
    model = family.llama(97, dim=32, depth=2, heads=4, ffn_dim=80, **options)
    with pytest.raises(ValueError) as caught:
        family.save_pretrained(model, tmp_path / "model", format="phi3")
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "model").exists()
