"""SentencePiece models (Kudo and Richardson 2018): their files read without their library, and the
same tokenizer by the ``tokenizers`` library."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a space in pieces."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
"""Of a piece's ``type``; the others are unused pieces."""
UNIGRAM, BPE = 1, 2
"""Of ``trainer_spec.model_type``; the others are whole words and single characters."""
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Of what a protobuf's field holds."""
BROKEN = "it is no SentencePiece model, or one that is cut off"


class Piece(NamedTuple):
    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePiece:
    """What a model's file says (``sentencepiece_model.proto``).

    Args:
        pieces: in the order of their ids.
        model_type: UNIGRAM or BPE.
        byte_fallback: an unknown character is written as its bytes, not as one unknown token.
        charsmap: the normalisation, compiled; empty where texts stay as they are.
        dummy_prefix: a text begins with a space, given or not.
        single_spaces: those at both ends and those after another go.
    """

    pieces: list[Piece]
    model_type: int
    byte_fallback: bool
    charsmap: bytes
    dummy_prefix: bool
    single_spaces: bool


# --- The file --------------------------------------------------------------------------------


def read_sentencepiece(file: Path) -> SentencePiece:
    """A model's file.

    Raises:
        ValueError: it is cut off, of another kind, or asks for what is not supported.
    """
    content = list(fields(file.read_bytes()))
    specs = {number: dict(fields(value)) for number, value in content if number in (2, 3)}
    pieces = [piece(value) for number, value in content if number == 1]
    if len(specs) < 2 or not pieces:
        raise ValueError(BROKEN)
    trainer, normalizer = specs[2], specs[3]
    model_type = trainer.get(3, UNIGRAM)
    if model_type not in (UNIGRAM, BPE):
        raise ValueError(
            f"model_type={model_type} is not supported; known are 1 (unigram), 2 (BPE)"
        )
    if trainer.get(24, False) or not normalizer.get(5, True):
        raise ValueError(
            "treat_whitespace_as_suffix=True and escape_whitespaces=False are not supported"
        )
    return SentencePiece(
        pieces=pieces,
        model_type=model_type,
        byte_fallback=bool(trainer.get(35, False)),
        charsmap=normalizer.get(2, b""),
        dummy_prefix=bool(normalizer.get(3, True)),
        single_spaces=bool(normalizer.get(4, True)),
    )


def piece(message: bytes) -> Piece:
    found = dict(fields(message))
    if not isinstance(found.get(1), bytes):
        raise ValueError(BROKEN)
    return Piece(
        text=found[1].decode(),
        score=struct.unpack("<f", found.get(2, bytes(4)))[0],
        type=found.get(3, NORMAL),
    )


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf: a whole number, or bytes that hold the rest.

    Raises:
        ValueError: it ends too early, or is none.
    """
    place = 0
    if not isinstance(message, bytes):
        raise ValueError(BROKEN)
    while place < len(message):
        key, place = varint(message, place)
        kind = key & 7
        if kind == VARINT:
            value, place = varint(message, place)
            yield key >> 3, value
            continue
        if kind == LENGTH:
            size, place = varint(message, place)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(BROKEN)
        if place + size > len(message):
            raise ValueError(BROKEN)
        yield key >> 3, message[place : place + size]
        place += size


def varint(message: bytes, place: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, the lowest first, ten at most; and where the next field begins."""
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise ValueError(BROKEN)


# --- The tokenizer ---------------------------------------------------------------------------


def pipeline(model: SentencePiece, prepend: str | None = None) -> tokenizers.Tokenizer:
    """The same tokenizer by the ``tokenizers`` library, but for special tokens.

    Args:
        prepend: "always", "first" or "never": whether a space goes in front of what stands between
            special tokens, where it begins with none; "each": where it does too, as SentencePiece
            has it; None is what the file says.
    """
    if prepend is None:
        prepend = "always" if model.dummy_prefix else "never"
    inner = tokenizers.Tokenizer(segmentation(model))
    steps: list[Any] = []
    if model.charsmap:
        mapped = normalizers.Precompiled(model.charsmap)
        # The library looks characters up singly where they make a long one; composed, they are one.
        composes = mapped.normalize_str("e\u0301") == "\u00e9"
        steps += [normalizers.NFC(), mapped] if composes else [mapped]
    if model.single_spaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z|(?<= ) +"), ""))
    if prepend == "each":
        steps.append(normalizers.Prepend(" "))
    if steps:
        inner.normalizer = normalizers.Sequence(steps)
    # Word by word, which is faster, unless pieces reach over a space.
    split = not any(SPACE in piece.text[1:] for piece in model.pieces)
    scheme = "never" if prepend == "each" else prepend
    inner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split)
    if model.byte_fallback or prepend == "each":
        strip = [] if prepend == "never" else [decoders.Strip(" ", 1, 0)]
        inner.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
    else:
        inner.decoder = decoders.Metaspace(SPACE, prepend, split)
    return inner


def segmentation(model: SentencePiece) -> Any:
    """What cuts a text into pieces."""
    unknown = next((i for i, piece in enumerate(model.pieces) if piece.type == UNKNOWN), None)
    if unknown is None:
        raise ValueError("it has no unknown piece")
    if model.model_type == UNIGRAM:
        scored = [(piece.text, piece.score) for piece in model.pieces]
        return models.Unigram(scored, unknown, model.byte_fallback)
    return models.BPE(
        {piece.text: i for i, piece in enumerate(model.pieces)},
        merges(model.pieces),
        unk_token=model.pieces[unknown].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """The pairs that make a piece, best first: any two pieces next to each other that spell a third
    are merged, of several the pair whose piece has the best score."""
    ids = {piece.text: i for i, piece in enumerate(pieces) if piece.type in (NORMAL, USER_DEFINED)}
    found = []
    for text, i in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-pieces[i].score, i, cut, (left, right)))
    return [pair for *_, pair in sorted(found)]


def mark_specials(inner: tokenizers.Tokenizer, pieces: list[Piece]) -> None:
    """Control symbols, those that a user defined and the unknown one stay whole in a text."""
    special = [piece.text for piece in pieces if piece.type in (CONTROL, UNKNOWN)]
    defined = [piece.text for piece in pieces if piece.type == USER_DEFINED]
    inner.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    inner.add_tokens([AddedToken(text, normalized=False) for text in defined])
