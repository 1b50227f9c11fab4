"""Spans of tags as conlleval reads them, and the spans of texts."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import family
from family.inference.spans import mark_spans, spans_of
from family.inference.tagging import tag_texts, tag_words
from family.inputs.words import encode_words
from tasks.data.tokenizers import train_tokenizer


def conlleval(tags):
    """Spans by the rules of conlleval, written as its two questions: does one end before a word, does
    one begin with it?"""
    found, start = [], None
    before = "O", ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        (was, were), changed = before, before[1] != kind
        ends = was in ("E", "S") or (was in ("B", "I") and prefix in ("B", "S", "O"))
        ends = ends or (was != "O" and changed)
        begins = prefix in ("B", "S") or (was in ("E", "S", "O") and prefix in ("E", "I"))
        begins = begins or (prefix != "O" and changed)
        if ends and start is not None:
            found.append((were, start, i))
            start = None
        if begins:
            start = i
        before = prefix, kind
    return found


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "I", "ES"])
def test_spans_are_those_of_conlleval(prefixes):
    draw = random.Random(0)
    known = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("x", "y-z"))]
    rows = [[draw.choice(known) for _ in range(draw.randint(0, 12))] for _ in range(400)]
    for tags in rows:
        assert spans_of(tags) == conlleval(tags)
    try:
        from seqeval.metrics.sequence_labeling import get_entities
    except ImportError:
        return
    for tags in rows:
        assert spans_of(tags) == [(kind, a, b + 1) for kind, a, b in get_entities(tags)]


def test_schemes():
    spans = [("a", 0, 2), ("a", 2, 3), ("b", 4, 6)]
    assert spans_of(["I-a", "I-a", "B-a", "O", "I-b", "I-b"]) == spans
    assert spans_of(["B-a", "I-a", "B-a", "O", "B-b", "I-b"]) == spans
    assert spans_of(["B-a", "E-a", "S-a", "O", "B-b", "E-b"]) == spans
    assert spans_of(["B", "I", "O"]) == [("_", 0, 2)]
    assert spans_of(["NOUN", "O"], marked=False) == [("NOUN", 0, 1), ("O", 1, 2)]
    assert mark_spans(["O", "B-a", "I-a-b", "S"])
    assert not any(mark_spans([tag]) for tag in ("NOUN", "b-x", "B-", "X-a", "Ba", "U-a", ""))


class Lookup(nn.Module):
    """Tags of each token by a table alone."""

    def __init__(self, tokenizer, labels, **named):
        super().__init__()
        self.tokenizer, self.labels = tokenizer, labels
        self.table = nn.Embedding(tokenizer.vocab_size, len(labels))
        nn.init.zeros_(self.table.weight)
        with torch.no_grad():
            for word, label in named.items():
                first = encode_words(tokenizer, [word])[0][0]
                self.table.weight[first, labels.index(label.replace("_", "-"))] = 4.0
            self.table.weight[:, 0] += 1.0

    def forward(self, input_ids, mask):
        return self.table(input_ids)


@pytest.fixture
def model():
    text = "the red star stands on the blue square of London town"
    tokenizer = train_tokenizer("bpe", [text] * 30, 400)
    return Lookup(tokenizer, ["O", "B-thing", "I-thing"], red="B_thing", star="I_thing")


def test_spans_of_a_text_with_their_characters(model):
    texts = ["The red star, (red) stands.", "", "nothing"]
    first, none, nothing = tag_texts(model, texts)
    assert [(s["word"], s["label"], s["start"], s["end"]) for s in first] == [
        ("red star", "thing", 4, 12),
        ("red", "thing", 15, 18),
    ]
    for span in first:
        assert texts[0][span["start"] : span["end"]] == span["word"]
    assert first[0]["score"] == pytest.approx(float(torch.tensor([4.0, 1, 0]).softmax(0)[0]))
    assert none == nothing == []
    assert family.load(model, task="Tagging").predict(texts) == [first, [], []]


def test_parts_of_speech_are_spans_of_one_word():
    tokenizer = train_tokenizer("bpe", ["a red star"] * 30, 300)
    model = Lookup(tokenizer, ["NOUN", "ADJ"], red="ADJ")
    found = tag_texts(model, ["red star"])[0]
    assert [(s["word"], s["label"]) for s in found] == [("red", "ADJ"), ("star", "NOUN")]


def test_no_word_of_a_long_text_is_lost(model):
    model.tokenizer.max_tokens = 9
    words = ["star" if i % 7 else "red" for i in range(100)]
    for batch_size in (1, 3, 64):
        chances = tag_words(model, [words, [], words[:3]], batch_size)
        assert [len(rows) for rows in chances] == [100, 0, 3]
        made = [model.labels[int(i)] for i in chances[0].argmax(-1)]
        assert made == ["I-thing" if i % 7 else "B-thing" for i in range(100)]
    spans = tag_texts(model, [" ".join(words)])[0]
    assert len(spans) == 15 and spans[0]["word"] == "red" + " star" * 6
