"""A text that grows beyond what its model was trained on: the model reads the end of it alone."""

from __future__ import annotations

import pytest
import torch

import family
from family import Generation, Sampling
from family.generation import beam_search, pick
from family.generation.window import read_to

TRAINED, LONGEST, VOCAB, NEW = 8, 40, 17, 25
KINDS = ("learned", "rotary", "alibi", "sinusoidal", "none")


def gpt(position="learned"):
    torch.manual_seed(0)
    model = family.llama(
        VOCAB, dim=16, depth=2, heads=2, max_tokens=LONGEST, position=position, bias=False
    )
    with torch.no_grad():  # far from 0: many tokens follow each other
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    model = model.double().eval()
    model.generation = Generation(stop_ids=(), trained_tokens=TRAINED)
    return model


def prompt(tokens, rows=3):
    generator = torch.Generator().manual_seed(7)
    return torch.randint(VOCAB, (rows, tokens), generator=generator)


def by_hand(model, row, new, sampling=Sampling(), generator=None):
    """One row, cropped before each token; no cache, and none of the generation of the project."""
    text = list(row)
    with torch.no_grad():
        for _ in range(new):
            logits = model(torch.tensor([text[-TRAINED:]]))[:, -1]
            text.append(int(pick(logits, sampling, generator=generator)))
    return text[len(row) :]


@pytest.mark.parametrize("begun", [1, 5, TRAINED, TRAINED + 4])
@pytest.mark.parametrize("position", KINDS)
def test_it_is_as_cropped_by_hand(position, begun):
    model, ids = gpt(position), prompt(begun)
    expected = [by_hand(model, row, NEW) for row in ids.tolist()]
    assert model.generate(ids, max_new_tokens=NEW).tolist() == expected
    streamed = torch.stack(list(model.stream(ids, max_new_tokens=NEW)), dim=1)
    assert streamed.tolist() == expected
    model.generation = Generation(stop_ids=())
    assert model.generate(ids, max_new_tokens=NEW).tolist() != expected


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_of_unequal_length(side):
    model, ids = gpt(), prompt(11)
    counts = (11, 6, 2)
    mask = torch.zeros(3, 11, dtype=torch.bool)
    texts = []
    for row, count in enumerate(counts):
        part = slice(11 - count, 11) if side == "left" else slice(count)
        mask[row, part] = True
        texts.append(ids[row, part].tolist())
    expected = [by_hand(model, text, NEW) for text in texts]
    assert model.generate(ids, mask, max_new_tokens=NEW).tolist() == expected


def test_what_is_drawn():
    model, ids = gpt("rotary"), prompt(3, rows=1)
    warm = Sampling(temperature=1.5)
    got = model.generate(
        ids, max_new_tokens=NEW, sampling=warm, generator=torch.Generator().manual_seed(3)
    )
    generator = torch.Generator().manual_seed(3)
    assert got[0].tolist() == by_hand(model, ids[0].tolist(), NEW, warm, generator)


class Cropped:
    """What search asks of a model, by its forward alone."""

    def __init__(self, model):
        self.model = model

    def prefill(self, ids, mask=None, *, capacity, branches=1):
        self.text = ids[:, None]
        return self.read(), self

    def read(self):
        shape = self.text.shape[:2]
        return self.model(self.text.flatten(0, 1)[:, -TRAINED:])[:, -1].view(*shape, -1).squeeze(1)

    def branch(self, count):
        self.text = self.text.repeat(1, count, 1)

    def reorder(self, parents):
        self.text = torch.stack(
            [row[parent] for row, parent in zip(self.text, parents, strict=True)]
        )

    def decode(self, tokens, cache):
        self.text = torch.cat([self.text, tokens[..., None]], dim=2)
        return self.read()


@pytest.mark.parametrize("begun", [3, TRAINED - 1, TRAINED, TRAINED + 3])
@pytest.mark.parametrize("position", ["learned", "alibi"])
def test_beams(position, begun):
    model, ids = gpt(position), prompt(begun)
    got = model.generate(ids, max_new_tokens=NEW, beams=3, num=2)
    expected, _ = beam_search(Cropped(model), (ids, None), beams=3, max_new_tokens=NEW, num=2)
    assert torch.equal(got, expected)
    free = Generation(stop_ids=())
    model.generation = free
    assert not torch.equal(model.generate(ids, max_new_tokens=NEW, beams=3, num=2), expected)


def test_within_it_nothing_changes_and_the_context_stays_the_limit():
    model, ids = gpt(), prompt(5)
    assert read_to(model, TRAINED + 1) is None and read_to(model, TRAINED + 2) == TRAINED
    with pytest.raises(ValueError, match=r"5 tokens and 36 new ones do not fit the context of 40"):
        model.generate(ids, max_new_tokens=36)
    assert model.generate(ids).shape == (3, 35)


def test_a_compiled_model_is_cropped_too(monkeypatch):
    model, ids = gpt(), prompt(5)
    expected = model.generate(ids, max_new_tokens=NEW)
    monkeypatch.setattr("family.models.gpt.compile_step", lambda step: step)
    model.compile_decoding()
    assert torch.equal(model.generate(ids, max_new_tokens=NEW), expected)


def test_a_state_that_knows_no_positions_reads_on():
    torch.manual_seed(0)
    model = family.LSTMLanguageModel(VOCAB, dim=8, depth=1).eval()
    free = model.generate(prompt(5), max_new_tokens=NEW, stop_ids=())
    model.generation = Generation(stop_ids=(), trained_tokens=TRAINED)
    assert torch.equal(model.generate(prompt(5), max_new_tokens=NEW), free)
