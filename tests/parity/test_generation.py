"""What a model's ``generation`` says, and the rules of a call, as transformers' own ``generate`` has it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("transformers")
import transformers
from cases import causal, seq2seq
from harness import enliven, randomise

from family.generation import TokenRules

PAD, NEW, EOS, SECOND = 1, 20, 5, 3
RULES = {
    "penalty": ({"repetition_penalty": 1.7}, {"sampling": family.Sampling(1.7)}),
    "n-grams": ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram": 2}),
    "single tokens": ({"no_repeat_ngram_size": 1}, {"no_repeat_ngram": 1}),
    "least": ({"min_new_tokens": 9}, {"min_new_tokens": 9}),
    "length": ({"length_penalty": 2.0}, {"length_penalty": 2.0}),
}


def drawn(build):
    """A model of theirs in float64, so drawn that many tokens follow each other."""
    theirs = build(pad_token_id=PAD, bos_token_id=0).eval()
    randomise(theirs, keep=("encoder.embed_positions",))
    enliven(theirs)
    return theirs.double()


def rows(tokens, eos):
    cut = [row[: row.index(eos)] if eos in row else row for row in ended(tokens)]
    return [[token for token in row if token != PAD] for row in cut]


def ended(tokens):
    """Rows of ids; the second of two end tokens as padding, which is left out."""
    return [[PAD if token == SECOND else token for token in row] for row in tokens.tolist()]


def soon(model, inputs):
    """A token that the first row comes to after two others."""
    first = model.generate(*inputs, max_new_tokens=NEW, stop_ids=())[0].tolist()
    assert first[2] not in first[:2]
    return first[2]


def both(name):
    """Theirs, its inputs and the columns to leave out, and ours as positions."""
    torch.manual_seed(0)
    if name == "bart":
        batch = seq2seq.batch()
        theirs = drawn(seq2seq.bart)
        named = {"attention_mask": batch["mask"].long()}
        return theirs, batch["source"], named, (batch["source"], batch["mask"]), 1
    theirs = drawn(lambda **o: causal.llama(**o)())
    ids = torch.randint(6, 90, (3, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, 11, dtype=torch.bool)
    mask[1, :4] = mask[2, :8] = False
    ids[~mask] = PAD
    return theirs, ids, {"attention_mask": mask.long()}, (ids, mask), 11


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["llama", "bart"])
def test_rules(name, rule, beams):
    theirs, first, named, inputs, cut = both(name)
    ours = family.from_pretrained(theirs)
    eos = soon(ours, inputs)
    search = {"num_beams": beams, "early_stopping": True} if beams > 1 else {}
    if rule == "length" and beams == 1:
        return
    expected = theirs.generate(
        first, **named, max_new_tokens=NEW, do_sample=False, eos_token_id=eos, pad_token_id=PAD,
        forced_eos_token_id=None, suppress_tokens=[PAD], **search, **RULES[rule][0],
    )[:, cut:]  # fmt: skip
    options = {"max_new_tokens": NEW, "stop_ids": (eos,), "pad_id": PAD, "beams": beams}
    # Never as a token: theirs counts the padding of a prompt as its text, for repetitions.
    options["hook"] = TokenRules(suppressed=(PAD,))
    got = ours.generate(*inputs, **options, **RULES[rule][1])
    assert rows(got, eos) == rows(expected, eos)
    if beams == 1:
        assert rows(ours.generate(*inputs, **options), eos) != rows(got, eos)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_several_of_the_beams(name):
    theirs, first, named, inputs, cut = both(name)
    ours = family.from_pretrained(theirs)
    eos = soon(ours, inputs)
    expected = theirs.generate(
        first, **named, max_new_tokens=NEW, do_sample=False, eos_token_id=eos, pad_token_id=PAD,
        forced_eos_token_id=None, num_beams=4, num_return_sequences=3, early_stopping=True,
    )[:, cut:]  # fmt: skip
    got = ours.generate(*inputs, max_new_tokens=NEW, stop_ids=(eos,), pad_id=PAD, beams=4, num=3)
    assert len(got) == 3 * len(first)
    assert rows(got, eos) == rows(expected, eos)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_a_generation_config_says_what_is_done(name, tmp_path):
    """Nothing is told: stop tokens, lengths, beams and penalties are those of the file."""
    theirs, first, named, inputs, cut = both(name)
    eos = soon(family.from_pretrained(theirs), inputs)
    theirs.generation_config = transformers.GenerationConfig(
        eos_token_id=[eos, SECOND], pad_token_id=PAD, num_beams=3, no_repeat_ngram_size=3,
        repetition_penalty=1.2, length_penalty=0.5, max_length=18, min_length=cut + 3,
        early_stopping=True, suppress_tokens=[17, 40], decoder_start_token_id=ours_start(theirs),
        **({"forced_bos_token_id": 7} if name == "bart" else {}),
    )  # fmt: skip
    expected = theirs.generate(first, **named, do_sample=False)[:, cut:]
    theirs.save_pretrained(tmp_path / "theirs")
    ours = family.from_pretrained(tmp_path / "theirs")
    assert ours.generation.stop_ids == (eos, 3) and ours.generation.beams == 3
    got = ours.generate(*inputs)
    assert rows(got, eos) == rows(expected, eos)
    # Written again, in both layouts.
    layout = "bart" if name == "bart" else "llama"
    for folder, format in (("ours", None), ("again", layout)):
        family.save_pretrained(ours, tmp_path / folder, format=format)
        again = family.from_pretrained(tmp_path / folder)
        assert again.generation == ours.generation
        assert torch.equal(again.generate(*inputs), got)
    read = transformers.GenerationConfig.from_pretrained(tmp_path / "again")
    assert read.eos_token_id == [eos, 3] and read.no_repeat_ngram_size == 3


def ours_start(theirs):
    return getattr(theirs.config, "decoder_start_token_id", None)


def test_what_draws_is_kept_but_used_on_demand(tmp_path):
    theirs = drawn(lambda **o: causal.llama(**o)())
    theirs.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=EOS
    )
    theirs.save_pretrained(tmp_path)
    ours = family.from_pretrained(tmp_path)
    assert ours.generation.sampling == family.Sampling(1.0, 0.6, 50, 0.9)
    ids = torch.tensor([[7, 8, 9]])
    first = ours.generate(ids, max_new_tokens=8)
    assert torch.equal(first, ours.generate(ids, max_new_tokens=8))
    assert torch.equal(first, ours.generate(ids, max_new_tokens=8, sampling=family.Sampling()))


def test_an_older_folder_has_it_in_its_config(tmp_path):
    theirs = drawn(lambda **o: causal.llama(**o)())
    theirs.config.eos_token_id = EOS
    theirs.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    assert family.from_pretrained(tmp_path).generation.stop_ids == (EOS,)


def test_a_length_that_was_nobodys_choice_is_none(tmp_path):
    """Transformers once wrote its own default into every model's config."""
    theirs = drawn(lambda **o: causal.llama(**o)())
    theirs.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for length, read in ((20, None), (30, 30)):
        file.write_text(json.dumps({**config, "eos_token_id": EOS, "max_length": length}))
        assert family.from_pretrained(tmp_path).generation.max_length == read
