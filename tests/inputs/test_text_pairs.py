"""Pairs of texts as rows of tokens: equal to what transformers makes of them."""

from __future__ import annotations

import random

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, processors

import family
from family.inputs.text_pairs import encode_pairs, segments, with_pairs
from family.inputs.tokenizer import Tokenizer
from tasks.data.tokenizers import train_tokenizer

transformers = pytest.importorskip("transformers")

WORDS = [f"w{i}" for i in range(30)]
CUT = [7, 8, 13, 40]


def bert():
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    vocabulary = {name: i for i, name in enumerate(names)}
    inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return inner, {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}


def roberta():
    names = ["<s>", "<pad>", "</s>", "<unk>", *pre_tokenizers.ByteLevel.alphabet()]
    vocabulary = {name: i for i, name in enumerate(names)}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    specials = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
    return inner, {**specials, "cls": "<s>", "sep": "</s>"}


def texts(count):
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("limit", CUT)
@pytest.mark.parametrize("kind", [bert, roberta])
def test_as_transformers(kind, limit):
    inner, specials = kind()
    inner.add_special_tokens(list(specials.values()))
    copy = tokenizers.Tokenizer.from_str(inner.to_str())
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=copy, **{f"{name}_token": token for name, token in specials.items()}
    )
    first, second = texts(40)[:20], texts(40)[20:]
    found = encode_pairs(Tokenizer(inner, **specials), first, second, limit)
    wanted = theirs(
        first, second, truncation=True, max_length=limit, padding=True, return_tensors="pt",
        return_token_type_ids=True, return_attention_mask=True,
    )  # fmt: skip
    assert torch.equal(found.input_ids, wanted["input_ids"])
    assert torch.equal(found.mask, wanted["attention_mask"].bool())
    assert torch.equal(found.token_types, wanted["token_type_ids"])
    assert (found.token_types.max() == 1) == (kind is bert)
    assert found.mask.sum(1).max() == min(limit, found.mask.shape[1])


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_tokenizers_of_our_own_part_texts_by_their_end(kind):
    tokenizer = train_tokenizer(kind, ["ab cd", "b"] * 9, 270 if kind == "bpe" else 20)
    a, b = tokenizer.encode("ab"), tokenizer.encode("cd b")
    for _ in range(2):  # added once
        ids, mask, types = encode_pairs(tokenizer, ["ab"], ["cd b"], 99)
        assert ids.tolist() == [[1, *a, 2, *b, 2]] and mask.all()
        assert types.tolist() == [[0] * (len(a) + 2) + [1] * (len(b) + 1)]
    again = Tokenizer.from_json(tokenizer.to_json())
    assert torch.equal(encode_pairs(again, ["ab"], ["cd b"], 99).input_ids, ids)
    assert again.encode("ab", special_tokens=True) == [1, *a, 2]


def test_what_spells_a_special_token_is_text():
    tokenizer = with_pairs(train_tokenizer("bpe", ["ab"], 270))
    ids, _, types = encode_pairs(tokenizer, ["a<eos>b"], ["<bos>"], 99)
    count = len(tokenizer.encode("a<eos>b"))
    assert ids[0].tolist().count(2) == 2 and ids[0, count + 1] == 2
    assert types[0].sum() == len(tokenizer.encode("<bos>")) + 1
    short = encode_pairs(tokenizer, ["a<eos>b"], ["<bos>"], 6).input_ids
    assert short.shape == (1, 6) and short[0].tolist().count(2) == 2


def test_refusals():
    tokenizer = train_tokenizer("char", ["ab"])
    with pytest.raises(ValueError, match="max_tokens=4 has no room for a pair of texts: 3 special"):
        encode_pairs(tokenizer, ["a"], ["b"], 4)
    with pytest.raises(ValueError, match="1 texts but 2 second ones"):
        encode_pairs(tokenizer, ["a"], ["b", "a"], 9)
    bare = train_tokenizer("char", ["ab"], specials=False)
    with pytest.raises(ValueError, match="no special token to stand between"):
        with_pairs(bare)


def test_models_that_tell_no_segments_apart_get_none():
    types = torch.ones(1, 3, dtype=torch.long)
    for count in (0, 1, 2):
        model = family.bert_tiny(9, dim=8, heads=2, token_types=count)
        assert len(segments(model, types)) == (count == 2)
    assert segments(model, None) == () == segments(torch.nn.Linear(1, 1), types)
