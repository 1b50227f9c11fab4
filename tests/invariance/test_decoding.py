"""What is written does not depend on how it is decoded: with a cache or without, by a search of one beam, in a
batch or alone."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import alone, batch_of, generates, model_of, of_those, same

from family.generation import Sampling, beam_search

NEW = 6


def prompts(model, batch):
    """Those inputs that ``generate`` takes."""
    takes = inspect.signature(model.generate).parameters
    return {name: value for name, value in batch.items() if name in takes}


def written(model, batch, **options):
    options = {"max_new_tokens": NEW, "stop_ids": (), **options}
    return model.generate(**prompts(model, batch), **options)


def read_anew(model, one, tokens):
    """Logits of all new tokens of a row, all of it read at once."""
    if "target" in one:
        one = {**one, "target": torch.cat([torch.tensor([model.bos_id]), tokens[:-1]])[None]}
    else:
        one = {**one, "input_ids": torch.cat([one["input_ids"], tokens[None, :-1]], 1)}
    with torch.no_grad():
        return model(**one)[0, -len(tokens) :]


@of_those(generates)
def test_cached_is_uncached(name):
    """Rows of unequal length, each read anew by itself and without padding."""
    model, batch, steps = model_of(name), batch_of(name), []

    def keep(logits, tokens):
        steps.append(logits.clone())
        return logits

    tokens = written(model, batch, hook=keep)
    assert tokens.shape[1] == NEW
    logits = torch.stack(steps, 1)
    for i in range(3):
        expected = read_anew(model, alone(batch, i), tokens[i])
        same({"logits": logits[i]}, {"logits": expected})
        assert torch.equal(expected.argmax(-1), tokens[i])


@of_those(generates)
def test_one_beam_is_greedy(name, monkeypatch):
    model, batch = model_of(name), batch_of(name)
    greedy = written(model, batch)

    def searched(model, inputs, *, sampling, generator, **options):
        return beam_search(model, inputs, beams=1, **options)[0]

    monkeypatch.setattr("family.generation.choose.generate", searched)
    assert torch.equal(written(model, batch), greedy)


@of_those(generates)
def test_branches_of_a_batch_are_those_of_a_row(name):
    model, batch = model_of(name), batch_of(name)
    found = written(model, batch, beams=3, num=3).unflatten(0, (-1, 3))
    assert not torch.equal(found[0, 0], found[0, 1])
    for i in range(3):
        assert torch.equal(found[i], written(model, alone(batch, i), beams=3, num=3))


def draws_codes(case):
    return hasattr(case.cls, "draw_ids")


@of_those(draws_codes)
def test_codes_drawn_by_a_cache_are_the_likeliest_read_anew(name):
    model, batch = model_of(name), batch_of(name)
    words = {name: value for name, value in batch.items() if name != "image_ids"}
    ids = model.draw_ids(**words, sampling=Sampling())
    with torch.no_grad():
        assert torch.equal(model(ids, **words)["codes"].argmax(-1), ids)
        one = {name: value for name, value in alone(batch, 1).items() if name != "image_ids"}
        assert torch.equal(model.draw_ids(**one, sampling=Sampling()), ids[1:2])
