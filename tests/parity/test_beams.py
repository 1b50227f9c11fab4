"""Generation with rules and beams as transformers' own ``generate`` does it, with the same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family
from family.generation import TokenRules

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("transformers")
from cases import seq2seq, speech
from harness import enliven, randomise

PAD, LANGUAGE, NEW = 1, 7, 20


def pair(build):
    """Ours and theirs in float64, so drawn that many tokens follow each other."""
    theirs = build(pad_token_id=PAD, bos_token_id=0).eval()
    randomise(theirs, keep=("encoder.embed_positions",))
    enliven(theirs)
    return family.from_pretrained(theirs.double()), theirs


def usual(tokens):
    """The tokens that a model likes best: one to do without, and one to end with."""
    first, second = tokens.flatten().bincount().argsort(descending=True)[:2].tolist()
    return first, second


def rows(tokens, eos):
    """What stands before the end."""
    cut = [row[: row.index(eos)] if eos in row else row for row in tokens.tolist()]
    return [[token for token in row if token != PAD] for row in cut]


def searching(beams):
    return {"num_beams": 4, "early_stopping": True, "length_penalty": 1.0} if beams > 1 else {}


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("name", ["bart", "mbart", "m2m100"])
def test_translation(name, beams):
    """A language comes first, and an end last, where configs say so."""
    ours, theirs = pair(getattr(seq2seq, name))
    batch = seq2seq.batch()
    inputs = batch["source"], batch["mask"]
    unused, eos = usual(ours.generate(*inputs, max_new_tokens=NEW))
    forced = {"forced_bos_token_id": LANGUAGE}
    rules = {0: LANGUAGE}
    if name != "m2m100":
        forced["forced_eos_token_id"] = rules[NEW - 1] = eos
    expected = theirs.generate(
        inputs[0],
        attention_mask=inputs[1].long(),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=eos,
        suppress_tokens=[unused],
        **forced,
        **searching(beams),
    )
    options = {"max_new_tokens": NEW, "beams": beams, "stop_ids": (eos,), "pad_id": PAD}
    got = ours.generate(*inputs, hook=TokenRules(forced=rules, suppressed=[unused]), **options)
    assert rows(got, eos) == rows(expected[:, 1:], eos)
    assert rows(got, eos)[0][0] == LANGUAGE
    assert rows(ours.generate(*inputs, **options), eos) != rows(got, eos)


@pytest.mark.parametrize("beams", [1, 4])
def test_speech(beams):
    """A prompt of several tokens, some that never come, and some that come not first."""
    ours, theirs = pair(speech.whisper)
    source = speech.batch()["source"].double()
    prompt = torch.tensor([[speech.START, 11, 12, 14]] * len(source))
    unused, eos = usual(ours.generate(source, prompt=prompt, max_new_tokens=NEW))
    config = theirs.generation_config
    config.forced_decoder_ids = [[i, token] for i, token in enumerate(prompt[0].tolist()) if i]
    config.suppress_tokens, config.begin_suppress_tokens = [unused, 5], [9, eos]
    expected = theirs.generate(
        source, max_new_tokens=NEW, do_sample=False, eos_token_id=eos, **searching(beams)
    )
    options = {"max_new_tokens": NEW, "beams": beams, "stop_ids": (eos,), "pad_id": PAD}
    hook = TokenRules(suppressed=[unused, 5], suppressed_first=[9, eos])
    got = rows(ours.generate(source, prompt=prompt, hook=hook, **options), eos)
    assert got == rows(expected, eos)
    # Each of the two counts.
    assert rows(ours.generate(source, prompt=prompt, **options), eos) != got
    assert rows(ours.generate(source, hook=hook, **options), eos) != got
