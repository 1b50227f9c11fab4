"""A text that is shown while it is written is the text that is decoded whole."""

from __future__ import annotations

import pytest
import tokenizers
import torch
from tokenizers import decoders, models

import family
from family.inference.pieces import pieces, until
from family.inputs.tokenizer import Tokenizer
from tasks.data.tokenizers import train_tokenizer

TEXT = "There is a red circle,  and\n\n a blåer 🙂🙂 square.\nTwo   words: naïve œuvre 日本 it's.\n"


def word_piece():
    inner = tokenizers.Tokenizer(
        models.WordPiece(
            {t: i for i, t in enumerate(["[UNK]", "red", "##der", "circle", ",", "a"])}
        )
    )
    inner.decoder = decoders.WordPiece()
    return Tokenizer(inner, unk="[UNK]"), [1, 3, 2, 4, 5, 1, 2, 2, 4]


def with_bytes():
    """Llama's kind: pieces, and bytes for what has none."""
    tokens = ["<unk>", "<s>", "▁", "▁a", "is", "▁is", *(f"<0x{i:02X}>" for i in range(256))]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1),
        ]
    )
    inner.add_special_tokens(["<s>"])
    smile = [6 + byte for byte in "🙂".encode()]
    return Tokenizer(inner, bos="<s>"), [1, 3, 4, 2, 2, 5, *smile, *smile, 2, *smile, 1, 5, 4, 3]


def trained(kind):
    tokenizer = train_tokenizer(kind, [TEXT] * 9, 300 if kind == "bpe" else 60)
    ids = tokenizer.encode(TEXT)
    # A special token in the midst shows nothing.
    return tokenizer, [tokenizer.bos_id, *ids, tokenizer.eos_id, *ids]


KINDS = {
    **{kind: lambda kind=kind: trained(kind) for kind in ("char", "bpe", "unigram")},
    "word pieces": word_piece,
    "bytes": with_bytes,
}


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_after_any_prompt_are_what_the_whole_has_more(kind):
    tokenizer, ids = KINDS[kind]()
    whole, broken = tokenizer.decode(ids), 0
    for cut in range(len(ids)):
        before = tokenizer.decode(ids[:cut])
        if before.endswith("\ufffd"):  # no text ends in the midst of a character
            broken += 1
            continue
        shown = list(pieces(tokenizer, ids[cut:], ids[:cut]))
        assert before + "".join(shown) == whole
        assert not any("\ufffd" in piece for piece in shown)
    assert (broken > 0) == (kind in ("bpe", "bytes"))


class Counting:
    """A tokenizer that counts the ids that it decodes."""

    def __init__(self, tokenizer):
        self.tokenizer, self.count = tokenizer, 0

    def decode(self, ids):
        self.count += len(ids)
        return self.tokenizer.decode(ids)


@pytest.mark.parametrize("text", [TEXT, "\n", " ", "🙂"])
def test_twice_the_tokens_take_twice_the_time(text):
    tokenizer = train_tokenizer("bpe", [TEXT], 300)
    counts = []
    for times in (100, 200):
        counting = Counting(tokenizer)
        ids = (tokenizer.encode(text) * 400)[: 4 * times]
        assert "".join(pieces(counting, ids)) == tokenizer.decode(ids)
        counts.append(counting.count)
    assert counts[1] < 2.2 * counts[0]


def test_bytes_that_are_no_text_are_not_held_back_for_ever():
    tokenizer, _ = with_bytes()
    broken = [6 + 0x80] * 40
    shown = list(pieces(tokenizer, broken))
    assert "".join(shown) == tokenizer.decode(broken) and len(shown) > 4


@pytest.mark.parametrize(
    ("texts", "stops", "left"),
    [
        (["one\n", "\ntwo"], ["\n\n"], "one"),
        (["one", "\n", "x\n", "\n"], ["\n\n"], "one\nx"),
        (["one", "\n"], ["\n\n"], "one\n"),
        (["one END two"], ["two", "END"], "one "),
        (["aab", "aac"], ["abac", "aac"], "aab"),
        (["one"], [], "one"),
    ],
)
def test_a_text_ends_before_a_stop_string(texts, stops, left):
    assert "".join(until(iter(texts), stops)) == left


def test_a_prompt_and_what_follows_are_one_text(capsys, tmp_path):
    """With pieces that begin words, the first word after a prompt is not glued to it."""
    tokenizer = train_tokenizer("unigram", ["there is a red circle"] * 9, 40)
    torch.manual_seed(0)
    model = family.gpt_nano(tokenizer.vocab_size, dim=16, depth=1, heads=2).eval()
    wanted = tokenizer.encode("there is a red circle")
    start = len(tokenizer.encode("there"))
    model.stream = lambda ids, **given: (torch.tensor([i]) for i in wanted[start:])
    model.tokenizer = tokenizer
    assert family.load(model).predict(["there"]) == [" is a red circle"]


def test_a_prompt_spells_special_tokens_where_that_is_said():
    from family.inference.texts import continue_texts
    from tasks.data.tokenizers import train_tokenizer

    seen = []

    class Model(torch.nn.Module):
        tokenizer = train_tokenizer("char", ["ab<eos>"])

        def stream(self, ids, **options):
            seen.append(ids.tolist()[0])
            return iter(())

    model = Model()
    for given in ({}, {"parse_special": True}):
        continue_texts(model, ["a<eos>b"], 3, **given)
    plain, parsed = seen
    assert model.tokenizer.eos_id not in plain and len(plain) == 7
    assert parsed == [plain[0], model.tokenizer.eos_id, plain[-1]]
