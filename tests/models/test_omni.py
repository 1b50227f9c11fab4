"""One vocabulary of words and codes of pictures."""

import pytest
import torch

import family
from family.inference.unified import boxes_of, make
from family.models.member import build
from tasks.data.unified import UnifiedData


@pytest.fixture(scope="module")
def data():
    return UnifiedData(image_size=(16, 16), slots=4, examples=60)


@pytest.fixture
def model(data):
    torch.manual_seed(0)
    example = {**family.Omni.facts.example, **data.model_arguments}
    example["config"] = example["config"].replace(max_tokens=96)
    made = build(family.Omni, example).eval()
    made.tokenizer = data.tokenizer
    return made


def test_codes_stand_in_the_places_that_are_kept_for_them(model):
    codes = model.codes(torch.rand(2, 3, 16, 16) * 2 - 1)
    assert codes.shape == (2, 4) and int(codes.min()) >= model.words
    row = [1, *[model.picture_id] * 4, 9]
    filled = model.with_codes(torch.tensor([row, row]), codes)
    assert torch.equal(filled[:, 1:5], codes) and filled[:, 0].tolist() == [1, 1]
    with pytest.raises(ValueError, match="1 pictures of 4 tokens need 4 places, not 8"):
        model.with_codes(torch.tensor([row, row]), codes[:1])


def test_the_image_tokenizer_learns_nothing(model):
    model.train()
    assert not model.image_tokenizer.training
    before = {n: p.clone() for n, p in model.image_tokenizer.state_dict().items()}
    model.codes(torch.rand(2, 3, 16, 16))
    assert all(torch.equal(before[n], p) for n, p in model.image_tokenizer.state_dict().items())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and not any(name.startswith("image_tokenizer") for name in trained)


def test_a_drawing_is_codes_alone_and_a_sentence_words_alone(model):
    drawn = make(model, "draw", ["a red circle", "a star"])
    assert [len(row) for row in drawn] == [4, 4]
    assert min(min(row) for row in drawn) >= model.words
    assert model.drawn(torch.tensor(drawn)).shape == (2, 3, 16, 16)
    pixels = torch.rand(2, 3, 16, 16)
    said = make(model, "answer", ["is there a star?", "how many red shapes are there?"], pixels)
    assert all(token < model.words for row in said for token in row)
    alone = make(model, "answer", ["is there a star?"], pixels[:1])
    assert alone[0] == said[0]  # whatever stands beside it
    with pytest.raises(ValueError, match="knows no task 'sing'"):
        make(model, "sing", [""])


def test_objects_of_what_was_written(model, data):
    named = data.tokenizer.inner.token_to_id
    words = "<2> <3> <20> <24> circle star <5> <5> <4> <9> square <1> <0> <9> <8> cross <7>"
    found = boxes_of(model, [named(word) for word in words.split()], 48)
    assert [one["label"] for one in found] == ["circle", "cross"]
    assert found[0]["box"] == [3 / 48, 2 / 48, 24 / 48, 20 / 48]


def test_without_an_image_tokenizer_it_is_refused():
    example = dict(family.Omni.facts.example)
    del example["image_tokenizer"]
    with pytest.raises(ValueError, match="give image_tokenizer"):
        family.Omni(**example)


def test_a_sentence_is_not_cut_for_a_longer_neighbour(model, monkeypatch):
    """Of 96 tokens the long row leaves 2, the short one more than are made at most."""
    model.generation = family.Generation(stop_ids=())
    monkeypatch.setattr("family.inference.unified.MOST", 20)
    never = type("NoEnd", (), {"eos_id": -1, "pad_id": -1})
    tokenizer = model.tokenizer
    for name in ("inner", "bos_id", "encode"):
        setattr(never, name, staticmethod(getattr(tokenizer, name)))
    model.tokenizer = never
    rows = ["a star", " ".join(["star"] * 91), "a red star"]
    found = make(model, "translate", rows)
    assert [len(row) for row in found] == [20, 2, 20]
    assert [found[0], found[2]] == make(model, "translate", rows[::2])
