"""Words of a text, their pieces, and windows over texts that are too long."""

from __future__ import annotations

import random

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from family.inputs.encode import with_ends
from family.inputs.tokenizer import Tokenizer
from family.inputs.words import encode_words, ends_of, find_words, windows
from tasks.data.tokenizers import train_tokenizer


@pytest.mark.parametrize("seed", range(200))
def test_each_word_counts_once_where_it_sees_most(seed):
    draw = random.Random(seed)
    lengths = [draw.randint(1, 6) for _ in range(draw.randint(1, 40))]
    most, stride = draw.randint(6, 15), draw.choice([None, 1, 3, 5, 100])
    found = windows(lengths, most, stride)
    assert [word for w in found for word in range(w.own, w.end)] == list(range(len(lengths)))

    def context(window, word):
        before, behind = lengths[window.first : word], lengths[word + 1 : window.last]
        return min(sum(before), sum(behind))

    for window in found:
        assert sum(lengths[window.first : window.last]) <= most
        for word in range(window.own, window.end):
            there = [w for w in found if w.first <= word < w.last]
            assert context(window, word) == max(context(w, word) for w in there)


def test_a_text_that_fits_is_one_window_and_an_endless_word_one_by_itself():
    assert windows([2, 3, 1], 6) == [(0, 3, 0, 3)] and windows([], 6) == []
    assert windows([1, 50, 1], 4) == [(0, 1, 0, 1), (1, 2, 1, 2), (2, 3, 2, 3)]
    # Half of it overlaps; the boundary is where both see as much.
    assert windows([1] * 12, 8) == [(0, 8, 0, 6), (4, 12, 6, 12)]


def test_words_are_found_with_their_places():
    text = "@ann, don't e-mail (U.S.) 東京: http://a.b/c!d"
    words = [text[a:b] for a, b in find_words(text)]
    assert words == [
        "@ann", ",", "don't", "e-mail", "(", "U.S", ".", ")", "東", "京", ":", "http://a.b/c!d",
    ]  # fmt: skip
    assert find_words("  \n") == []


def test_words_are_cut_as_inside_of_a_text():
    texts = ["red star on red", "a star"]
    for kind in ("bpe", "unigram"):
        tokenizer = train_tokenizer(kind, texts * 20, 280 if kind == "bpe" else 30)
        pieces = encode_words(tokenizer, ["on", "red", "star"])
        flat = [token for piece in pieces for token in piece]
        assert flat == tokenizer.encode("a on red star")[-len(flat) :]
    words = ["[UNK]", "[CLS]", "[SEP]", "a", "star", "##s"]
    inner = tokenizers.Tokenizer(
        models.WordPiece(dict(zip(words, range(6), strict=True)), unk_token="[UNK]")
    )
    inner.normalizer = tokenizers.normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    bert = Tokenizer(inner, unk="[UNK]", cls="[CLS]", sep="[SEP]")
    # Of a word that the normalizer makes nothing of, the unknown token is left.
    assert encode_words(bert, ["Stars", "\u200b", "a"]) == [[4, 5], [0], [3]]
    assert ends_of(bert) == ([1], [2])
    assert ends_of(with_ends(train_tokenizer("char", ["ab"]))) == ([1], [2])
    assert ends_of(train_tokenizer("char", ["ab"])) == ([], [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cafe\u0301 noir", ["cafe\u0301", "noir"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("مُحَمَّد هنا", ["مُحَمَّد", "هنا"]),
        ("❤\ufe0flove", ["❤", "\ufe0f", "love"]),
        ("ไม่", ["ไ", "ม", "่"]),
    ],
)
def test_marks_belong_to_the_letter_before_them(text, words):
    assert [text[first:last] for first, last in find_words(text)] == words
