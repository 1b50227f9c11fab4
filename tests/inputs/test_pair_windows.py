"""Pairs of texts in windows, as transformers makes them, and places that are those of the text."""

from __future__ import annotations

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from family.inputs.pair_windows import NOWHERE, PairWindow, pair_windows
from family.inputs.tokenizer import Tokenizer
from tasks.data.tokenizers import make_tokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The Panthers defense gave up just 308 points, ranking sixth  in the league: Über-all [SEP]."
PAIRS = [
    ("How many points?", TEXT),
    ("Who?", "Ann"),
    ("What is it that stands there?", TEXT * 3),
]


def word_piece():
    words = [
        *"abcdefghijklmnopqrstuvwxyz0123456789?.,:-[]",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"),
    ]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "points", "##ers"]
    inner = tokenizers.Tokenizer(
        models.WordPiece({w: i for i, w in enumerate([*names, *words])}, unk_token="[UNK]")
    )
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    inner.add_special_tokens(names[:5])
    return inner, {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}


def roberta():
    ours = make_tokenizer("bpe", [TEXT], 300, False)
    inner = ours.inner
    inner.post_processor = processors.RobertaProcessing(
        ("<eos>", inner.token_to_id("<eos>")), ("<bos>", inner.token_to_id("<bos>"))
    )
    return inner, {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}


@pytest.mark.parametrize("make", [word_piece, roberta])
def test_windows_are_those_of_transformers(make):
    inner, names = make()
    copy = tokenizers.Tokenizer.from_str(inner.to_str())
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=copy,
        split_special_tokens=True,  # the text says [SEP]
        **{f"{name}_token": token for name, token in names.items()},
    )
    found = list(pair_windows(Tokenizer(inner, **names), PAIRS, 60, 7))
    assert [len(windows) for windows in found][1] == 1 and len(found[2]) > len(found[0]) > 1
    for (asked, text), windows in zip(PAIRS, found, strict=True):
        expected = theirs(
            asked,
            text,
            truncation="only_second",
            max_length=60,
            stride=7,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        assert [window.ids for window in windows] == expected["input_ids"]
        assert [window.token_types for window in windows] == expected["token_type_ids"]
        for i, window in enumerate(windows):
            inside = expected.sequence_ids(i)
            for place, part, (a, b) in zip(
                window.places, inside, expected["offset_mapping"][i], strict=True
            ):
                assert place == NOWHERE if part != 1 else text[slice(*place)] == text[a:b].strip()


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_tokenizers_of_our_own_end_each_text(kind):
    ours = make_tokenizer(kind, [TEXT], 300 if kind == "bpe" else 70, False)
    (windows,) = pair_windows(ours, [("How, sixth?", TEXT)], 40, 5)
    seen = set()
    for window in windows:
        assert window.ids[0] == ours.bos_id and window.ids.count(ours.eos_id) == 2
        first = window.ids.index(ours.eos_id)
        types = [0] * (first + 1) + [1] * (len(window.ids) - first - 1)
        assert window.token_types == types
        seen |= {c for a, b in window.places if a >= 0 for c in range(a, b)}
    assert seen == {i for i, c in enumerate(TEXT) if not c.isspace()}
    # One that was saved before pairs were known.
    again = Tokenizer.from_json(ours.to_json())
    again.inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", ours.bos_id), ("<eos>", ours.eos_id)]
    )
    assert list(pair_windows(again, [("How, sixth?", TEXT)], 40, 5)) == [windows]


def test_the_tokens_of_an_answer():
    window = PairWindow([0] * 6, [0] * 6, [NOWHERE, NOWHERE, (4, 7), (8, 9), (9, 13), NOWHERE])
    assert window.tokens_of(8, 13) == (3, 4)
    assert window.tokens_of(10, 12) == (4, 4)  # a part of a token
    assert window.tokens_of(4, 7) == (2, 2)
    assert window.tokens_of(0, 7) is None and window.tokens_of(9, 14) is None


def test_a_question_without_room_for_its_text():
    inner, names = word_piece()
    with pytest.raises(
        ValueError,
        match=r"'what is it.*' has 29 tokens, which leaves 8 of max_tokens=40 .* stride=8",
    ):
        list(
            pair_windows(
                Tokenizer(inner, **names), [("what is it that stands there and where", TEXT)], 40, 8
            )
        )
