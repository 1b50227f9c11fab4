"""Sums of log-probabilities: those of each text by itself, whatever stands beside it in a batch."""

from __future__ import annotations

import pytest
import torch

import family
from family import TransformerConfig
from family.generation.defaults import Generation
from family.inference.likelihood import encode_pairs, log_likelihoods, score
from tasks.data.tokenizers import train_tokenizer

WORDS = ["a red circle", "two blue squares", "the star is small", "three large crosses"]
PAIRS = [
    ("a red", " circle"),
    ("the star is small and two blue squares are", " large"),
    ("", "three large crosses above the star"),
    ("two ", "blue squares, a red circle"),
    ("a", " star"),
    ("", "x"),
]
STACK = {"dim": 32, "depth": 2, "heads": 4, "causal": True, "max_tokens": 64}
KINDS = {
    "learned": {"position": "learned"},
    "rotary": {"position": "rotary", "norm": "rmsnorm", "kv_heads": 2, "qk_norm": True},
    "windows": {"position": "rotary", "layers": [{"window": 4}, {}]},
    "alibi": {"position": "alibi"},
}


def language_model(kind, dtype=torch.float32, **changes):
    torch.manual_seed(0)
    tokenizer = train_tokenizer("bpe", WORDS * 3, 300)
    if kind == "lstm":
        model = family.LSTMLanguageModel(tokenizer.vocab_size, dim=16)
    else:
        config = TransformerConfig(**{**STACK, **KINDS[kind], **changes})
        model = family.GPT(tokenizer.vocab_size, config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.tokenizer = tokenizer
    return model.eval().to(dtype)


def alone(model, context, continuation):
    """The sum by the definition, of one row without padding."""
    ids = torch.tensor([context + continuation])
    with torch.no_grad():
        chances = model(ids[:, :-1]).log_softmax(-1)[0, -len(continuation) :]
    likeliest = chances.argmax(1).tolist() == continuation
    return chances.gather(1, ids[0, -len(continuation) :, None]).sum().item(), likeliest


@pytest.mark.parametrize("kind", [*KINDS, "lstm"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_no_batch_size_moves_them(kind, dtype, near):
    model = language_model(kind, dtype)
    rows = encode_pairs(model.tokenizer, PAIRS)
    expected = [alone(model, *row) for row in rows]
    for batch_size in (1, 2, 4, 100):
        found = log_likelihoods(model, PAIRS, batch_size)
        assert [one.total for one in found] == pytest.approx([t for t, _ in expected], rel=near)
        assert [one.greedy for one in found] == [greedy for _, greedy in expected]
        assert [one.tokens for one in found] == [len(continuation) for _, continuation in rows]
        assert not any(one.cut for one in found)


def test_greedy_is_what_the_model_writes():
    model = language_model("rotary")
    prompt = model.tokenizer.encode("a red")
    new = model.generate(torch.tensor([prompt]), max_new_tokens=4, stop_ids=())[0].tolist()
    rows = [(prompt, new), (prompt, [*new[:-1], (new[-1] + 1) % model.vocab_size])]
    assert [one.greedy for one in score(model, rows)] == [True, False]


def test_a_context_is_cut_from_the_left_and_said_so():
    model = language_model("learned", max_tokens=8)
    ids = [5 + i % 40 for i in range(20)]
    long, fits = score(model, [(ids[:17], ids[17:]), (ids[:6], ids[6:9])])
    assert (long.cut, fits.cut) == (True, False)  # the last token is not read: 9 are read as 8
    assert long.total == pytest.approx(alone(model, ids[11:17], ids[17:])[0], rel=1e-5)


@pytest.mark.parametrize("length", [7, 8, 9, 16, 21])
def test_a_long_text_is_judged_in_windows(length):
    """Each token once, in as few windows, the last with as much before it as fits."""
    model = language_model("learned", torch.float64, max_tokens=8)
    ids = [5 + i % 40 for i in range(length)]
    whole, expected = [1, *ids], 0.0
    for start in range(0, length, 8):
        end = min(start + 8, length)
        expected += alone(model, whole[max(0, end - 8) : start + 1], ids[start:end])[0]
    (found,) = score(model, [([1], ids)])
    assert found.total == pytest.approx(expected, rel=1e-12)
    assert (found.tokens, found.cut) == (length, length > 8)


def test_no_more_is_read_than_was_trained_on():
    model = language_model("rotary")
    model.generation = Generation(trained_tokens=4)
    ids = model.tokenizer.encode("two blue squares above the star")
    (found,) = score(model, [(ids[:-2], ids[-2:])])
    assert found.cut
    assert found.total == pytest.approx(alone(model, ids[-5:-2], ids[-2:])[0], rel=1e-5)


def test_contexts_and_continuations():
    tokenizer = train_tokenizer("char", WORDS, specials=False)
    code = tokenizer.encode
    # Space at a context's end goes over; no token begins a text here, so the first is not judged.
    assert encode_pairs(tokenizer, [("a ", "red")]) == [(code("a"), code(" red"))]
    assert encode_pairs(tokenizer, [("", "red")]) == [(code("r"), code("ed"))]
    assert encode_pairs(tokenizer, [(" ", "red")]) == [(code(" "), code("red"))]
    with pytest.raises(ValueError, match="the continuation 'r' has no token"):
        encode_pairs(tokenizer, [("", "r")])
    with pytest.raises(ValueError, match="does not know the character 'Z'"):
        encode_pairs(tokenizer, [("a", "Z")])
    begun = train_tokenizer("bpe", WORDS, 300)
    assert encode_pairs(begun, [("", "red")]) == [([begun.bos_id], begun.encode("red"))]
