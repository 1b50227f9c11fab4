"""Logistic regression on n-grams: what it counts, that it is scikit-learn's, and its tokenizer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import family
from tasks.data.masking import vocabulary_of, words_of
from tasks.data.tokenizers import MASK, SPECIALS, train_tokenizer
from tasks.errors import UserError

TEXTS = ["A red circle, a blue one.", "It isn't far away", "red and blue", "the circle"] * 5


def random_texts(seed=0, texts=40, longest=12, vocab=15):
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (texts,), generator=random)
    mask = torch.arange(longest) < lengths[:, None]
    ids = torch.randint(vocab, mask.shape, generator=random)
    return ids, mask


def randomised(**options):
    torch.manual_seed(0)
    model = family.BagOfWords(15, **{"num_classes": 3, "buckets": 5000, **options}).double()
    torch.nn.init.normal_(model.weight)
    torch.nn.init.normal_(model.bias)
    return model


def test_each_n_gram_counts_as_often_as_it_is_there():
    ids, mask = random_texts()
    model = randomised(ngrams=3)
    assert model.weight.shape == (15 + 5000, 3)
    rows = {}
    for (i, k), row in zip([(ids, mask)], [model(ids, mask)], strict=True):
        assert row.shape == (len(i), 3)
        for text, real, logits in zip(i, k, row, strict=True):
            alone = text[real][None]
            expected = model.bias.clone()
            for length, (places, whole) in enumerate(model.counted(alone), 1):
                assert whole.all() and places.shape == (1, max(0, alone.shape[1] - length + 1))
                for start, place in enumerate(places[0].tolist()):
                    gram = tuple(alone[0, start : start + length].tolist())
                    assert rows.setdefault(gram, place) == place
                    assert place < 15 if length == 1 else 15 <= place < 5015
                    expected = expected + model.weight[place]
            torch.testing.assert_close(logits, expected)
    pairs = {gram: row for gram, row in rows.items() if len(gram) == 2}
    assert len(pairs) > 80 and len({*pairs.values()}) > 0.95 * len(pairs)  # they hardly collide
    swapped = [gram for gram in pairs if gram[::-1] in pairs and gram != gram[::-1]]
    assert any(pairs[gram] != pairs[gram[::-1]] for gram in swapped)


def test_padding_on_either_side_counts_nothing():
    ids, mask = random_texts()
    model = randomised()
    left = [F.pad(i[k], (12 - int(k.sum()), 0), value=7) for i, k in zip(ids, mask, strict=True)]
    torch.testing.assert_close(model(ids, mask), model(torch.stack(left), mask.flip(1)))
    one = model(torch.tensor([[3]]))
    torch.testing.assert_close(one, (model.weight[3] + model.bias)[None])
    torch.testing.assert_close(randomised(ngrams=1)(ids).shape, (40, 3))


def test_it_comes_to_what_scikit_learn_finds():
    linear = pytest.importorskip("sklearn.linear_model")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    ids, mask = random_texts(texts=80)
    labels = (ids * mask).sum(1) % 2
    written = [" ".join(f"t{i}" for i in row[k].tolist()) for row, k in zip(ids, mask, strict=True)]
    counts = text.CountVectorizer(ngram_range=(1, 2)).fit(written)
    found = linear.LogisticRegression(C=0.5, tol=1e-8, max_iter=500)
    found.fit(counts.transform(written), labels.numpy())
    model = family.BagOfWords(15, buckets=30_011).double()
    pairs = model.counted(ids, mask)[1]
    assert len(pairs[0][pairs[1]].unique()) == len(counts.vocabulary_) - 15  # each has a bucket
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids, mask), labels, reduction="sum")
        # The weights of two classes are plus and minus half of theirs.
        loss = 0.5 * loss + model.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    ours = model(ids, mask).softmax(-1)
    theirs = found.predict_proba(counts.transform(written))
    np.testing.assert_allclose(ours.detach(), theirs, atol=1e-4)


def test_words_and_punctuation():
    tokenizer = train_tokenizer("word", TEXTS, 1000, lowercase=True)
    ids = tokenizer.encode("A red, far Zebra!")
    said = [tokenizer.inner.id_to_token(i) for i in ids]
    assert said == ["a", "red", ",", "far", "<unk>", "<unk>"]
    assert tokenizer.decode(tokenizer.encode("the red circle")) == "the red circle"
    assert tokenizer.vocab_size == 4 + len(
        {
            *[
                "a",
                "red",
                "circle",
                ",",
                "blue",
                "one",
                ".",
                "it",
                "isn",
                "'",
                "t",
                "far",
                "away",
                "and",
                "the",
            ]
        }
    )
    cased = train_tokenizer("word", TEXTS, 1000)
    assert cased.encode("A") != cased.encode("a")
    # The most frequent ones alone, where there is not room for all.
    few = train_tokenizer("word", TEXTS, 6)
    assert few.vocab_size == 6 and few.encode("the red circle").count(few.unk_id) == 2
    with pytest.raises(
        UserError, match="vocab_size=4 is too small for word: it must hold 4 special"
    ):
        train_tokenizer("word", TEXTS, 4)


def test_a_word_is_hidden_by_itself():
    tokenizer = train_tokenizer("word", TEXTS, 1000, specials=(*SPECIALS, MASK))
    ids = np.array(tokenizer.encode("the red circle"))
    words = words_of(ids, np.zeros_like(ids), vocabulary_of(tokenizer), True)
    assert all(a != b for a, b in pairwise(words))


@pytest.mark.parametrize("options", [{"ngrams": 0}, {"buckets": 0}, {"ngrams": 1.5}])
def test_what_it_refuses(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        family.BagOfWords(15, **options)
