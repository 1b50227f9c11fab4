"""What a model does where it is not told otherwise, and what a call may ask for."""

from __future__ import annotations

import json

import pytest
import torch

import family
from family import Generation, Sampling
from family.generation import TokenRules
from tasks.data.tokenizers import train_tokenizer

TEXTS = ["a red circle", "two blue squares."]
SMALL = {"dim": 16, "depth": 2, "heads": 2, "max_tokens": 32}
WARM = Sampling(temperature=1.5)


POSITIONS = ("learned", "sinusoidal", "timing", "rotary", "alibi", "relative", "none")


def model_of(kind="gpt", **options):
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", TEXTS)
    build = family.gpt_nano if kind == "gpt" else family.transformer_tiny
    model = build(tokenizer.vocab_size, **{**SMALL, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.tokenizer = tokenizer
    return model, torch.randint(4, tokenizer.vocab_size, (2, 5))


@pytest.mark.parametrize("kind", ["gpt", "seq2seq"])
def test_a_text_ends_with_the_tokenizers_end_token(kind):
    model, ids = model_of(kind)
    free = model.generate(ids, max_new_tokens=20, stop_ids=())
    assert free.shape == (2, 20)
    stop = int(free[0, 3])
    model.tokenizer.stop_ids = lambda: {stop}
    for beams in (1, 2):
        told = model.generate(ids, max_new_tokens=20, stop_ids=(stop,), beams=beams, pad_id=0)
        assert torch.equal(model.generate(ids, max_new_tokens=20, beams=beams), told)
        assert stop not in told
    model.generation = Generation(stop_ids=())
    assert torch.equal(model.generate(ids, max_new_tokens=20), free)
    model.generation = Generation(stop_ids=(int(free[0, 2]),), pad_id=1)
    model.tokenizer = None
    ended = model.generate(ids[:1], max_new_tokens=20)
    assert torch.equal(ended, free[:1, : free[0].tolist().index(int(free[0, 2]))])


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["gpt", "seq2seq"])
def test_a_stop_string_ends_a_text_and_is_its_last(kind, beams):
    model, ids = model_of(kind)
    decode = model.tokenizer.decode
    free = model.generate(ids, max_new_tokens=12, stop_ids=(), beams=beams)
    text = decode(free[0].tolist())
    stop = text[4:6]
    got = model.generate(ids, max_new_tokens=12, stop_ids=(), stop_strings=stop, beams=beams)
    for row in got.tolist():
        made = decode(row)
        assert made.find(stop) in (-1, len(made) - len(stop))
    if beams == 1:
        assert decode(got[0].tolist()) == text[: text.index(stop) + 2]
    with pytest.raises(ValueError, match="an empty stop string"):
        model.generate(ids, stop_strings=[""])
    del model.tokenizer
    with pytest.raises(ValueError, match=r"set model\.tokenizer"):
        model.generate(ids, stop_strings=["a"])


@pytest.mark.parametrize("kind", ["gpt", "seq2seq"])
def test_several_texts_of_a_row_are_drawn(kind):
    model, ids = model_of(kind)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 3:] = False
    many = {"max_new_tokens": 9, "stop_ids": (), "sampling": WARM}
    found = model.generate(ids, mask, num=3, generator=torch.Generator().manual_seed(3), **many)
    alone = model.generate(
        ids.repeat_interleave(3, 0),
        mask.repeat_interleave(3, 0),
        generator=torch.Generator().manual_seed(3),
        **many,
    )
    assert torch.equal(found, alone)
    assert len({tuple(row) for row in found.tolist()}) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num": 3}, "num=3 greedy texts would be the same"),
        ({"num": 0}, "num=0 must be at least 1"),
        ({"num": 3, "beams": 2}, "num=3 is more than beams=2 find"),
        ({"beams": 2, "sampling": WARM}, "beams=2 search and draw nothing"),
        ({"max_new_tokens": -1, "beams": 2}, "max_new_tokens=-1 must be at least 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1 must be at least 0"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "from 0 to max_new_tokens=4"),
    ],
)
def test_what_does_not_go_together(options, said):
    model, ids = model_of()
    with pytest.raises(ValueError, match=said):
        model.generate(ids, **options)


def test_what_is_made_may_be_trained_on():
    for kind in ("gpt", "seq2seq"):
        model, ids = model_of(kind)
        made = [
            model.generate(ids, max_new_tokens=4, stop_ids=(), beams=1),
            model.generate(ids, max_new_tokens=4, stop_ids=(), beams=2),
            model.generate(ids, max_new_tokens=4, stop_ids=(), num=2, sampling=WARM)[::2],
        ]
        if kind == "gpt":
            made.append(torch.stack(list(model.stream(ids, max_new_tokens=4, stop_ids=())), 1))
        for tokens in made:
            assert not tokens.is_inference()
            logits = model(tokens) if kind == "gpt" else model(ids, tokens)
            weight = torch.ones(tokens.shape, requires_grad=True)
            # An index of such a product is saved for the gradient.
            loss = (logits.gather(2, tokens[..., None])[..., 0] * weight * tokens).sum()
            loss.backward()
            assert (
                all(p.grad is not None for p in model.embedding.parameters())
                if kind == "gpt"
                else True
            )


@pytest.mark.parametrize("position", POSITIONS)
def test_training_goes_on_after_any_kind_of_position_has_generated(position):
    """Nothing that a model keeps for later was made in inference mode."""
    for kind in ("gpt", "seq2seq"):
        model, ids = model_of(kind, position=position)
        for beams in (1, 2):
            made = model.generate(ids, max_new_tokens=9, stop_ids=(), beams=beams)
            logits = model(torch.cat([ids, made], 1)) if kind == "gpt" else model(ids, made)
            logits.sum().backward()


@pytest.mark.parametrize("position", POSITIONS)
def test_past_the_decoder_there_is_one_sentence_whatever_the_position(position):
    model, ids = model_of("seq2seq", position=position)
    for options in ({}, {"beams": 2}):
        if position == "relative":  # all that are far share a bucket
            assert model.generate(ids, max_new_tokens=40, stop_ids=(), **options).shape == (2, 40)
            continue
        with pytest.raises(ValueError, match=r"do not fit the decoder's max_tokens=32"):
            model.generate(ids, max_new_tokens=33, **options)
        assert model.generate(ids, stop_ids=(), **options).shape == (2, 32)


def test_past_the_context_there_is_one_sentence():
    model, ids = model_of("seq2seq")
    for options in ({}, {"beams": 2}, {"sampling": WARM, "num": 2}, {"prompt": ids}):
        with pytest.raises(ValueError, match=r"do not fit the decoder's max_tokens=32"):
            model.generate(ids, max_new_tokens=40, **options)
    with pytest.raises(ValueError, match="a sequence of 40 tokens does not fit max_tokens=32"):
        model.generate(torch.ones(1, 40, dtype=torch.long), max_new_tokens=2)
    assert model.generate(ids, max_new_tokens=32, stop_ids=()).shape == (2, 32)
    assert model.generate(ids, stop_ids=()).shape == (2, 32)
    model, ids = model_of()
    with pytest.raises(ValueError, match="5 tokens and 28 new ones do not fit the context of 32"):
        model.generate(ids, max_new_tokens=28)
    assert model.generate(ids, stop_ids=()).shape == (2, 27)


def test_fields_of_a_file_come_back():
    whole = Generation(
        (3, 4), 1, 9, 30, 2, 5, 4, 0.5, 3, Sampling(1.2, 0.7, 0, 0.9, 0.1),
        TokenRules({0: 7, 2: 4}, (5,), (6, 8)), 64, {"num_beam_groups": 2},
    )  # fmt: skip
    assert Generation.from_fields(whole.to_fields()) == whole
    assert Generation.from_fields({}) == Generation() and Generation().to_fields() == {}
    late = Generation(rules=TokenRules({1: 7, 3: 4}))  # none at the first place
    assert Generation.from_fields(json.loads(json.dumps(late.to_fields()))) == late
    for wrong in ({"eos_token_id": "x"}, {"forced_tokens": [1, 7]}):
        with pytest.raises(ValueError, match="defaults of generation cannot be read"):
            Generation.from_fields(wrong)
    with pytest.raises(ValueError, match="top_p must be in"):
        Generation.from_fields({"do_sample": True, "top_p": 7})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_new_tokens": "many"}, "max_new_tokens='many' must be a whole number"),
        ({"max_new_tokens": -5}, "max_new_tokens=-5 must be at least 1"),
        ({"num_beams": 0}, "beams=0 must be at least 1"),
        ({"no_repeat_ngram_size": 2.5}, "no_repeat_ngram=2.5 must be a whole number"),
        ({"trained_tokens": 0}, "trained_tokens=0 must be at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_when_they_are_read(fields, said):
    with pytest.raises(ValueError, match=said):
        Generation.from_fields(fields)


def test_a_length_without_room_is_said_and_no_text_of_one_token():
    model, ids = model_of()
    model.generation = Generation(max_length=5)
    with pytest.raises(
        ValueError, match="5 tokens leaves no room for new ones in the max_length=5"
    ):
        model.generate(ids)
    assert model.generate(ids, max_new_tokens=3, stop_ids=()).shape == (2, 3)
    with pytest.raises(ValueError, match="leaves no room"):
        family.load(model).predict(["a red circle"])
