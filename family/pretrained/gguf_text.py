"""The tokenizer that the metadata of a GGUF file describes.

What a file leaves open is as llama.cpp decides (``src/llama-vocab.cpp``)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from family.inputs.tokenizer import Tokenizer
from family.pretrained.byte_level import LLAMA3, QWEN2, gpt2, split_by
from family.pretrained.sentencepiece import (
    BPE,
    BYTE,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    Piece,
    SentencePiece,
    mark_specials,
    pipeline,
)
from family.pretrained.text_files import guarded, surround

LOG = logging.getLogger(__name__)
GGML = "tokenizer.ggml"
BYTE_LEVEL = "gpt2"
MODELS: dict[str, dict[str, int]] = {
    BYTE_LEVEL: {},
    "llama": {"bos": 1, "eos": 2, "unk": 0},
    "t5": {"eos": 1, "unk": 2, "pad": 0},
}
"""``tokenizer.ggml.model`` -> the ids of special tokens that no field gives. "llama" is SentencePiece
with pairs, "t5" SentencePiece with a unigram model."""
SPECIALS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Ours -> what GGUF calls the token."""
LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3")


def smollm() -> Any:
    """GPT-2's, each digit a word of its own."""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])


WORDS: dict[str, Callable[[], Any]] = {
    "gpt-2": gpt2,
    "smollm": smollm,
    **dict.fromkeys(LLAMA3_NAMES, lambda: split_by(LLAMA3)),
    "qwen2": lambda: split_by(QWEN2),
}
"""``tokenizer.ggml.pre`` -> how a text is split before pairs of bytes are merged."""


def read_gguf_tokenizer(metadata: dict[str, Any], file: Path) -> Tokenizer | None:
    """The tokenizer from the metadata of a file; None, with a warning, of a kind that we do not know.

    Raises:
        ValueError: metadata that contradict themselves, or lack what such a tokenizer needs.
    """
    known = {"model": list(MODELS)}
    if metadata.get(f"{GGML}.model") == BYTE_LEVEL:
        known["pre"] = list(WORDS)
    for name, names in known.items():
        value = metadata.get(f"{GGML}.{name}")
        if value not in names:
            LOG.warning(
                "%s: %s.%s=%r is not supported (known: %s), so the model comes without a tokenizer.",
                file, GGML, name, value, ", ".join(names),
            )  # fmt: skip
            return None
    return guarded(file, build_tokenizer, metadata)


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    start = f"{GGML}."
    fields = {n.removeprefix(start): v for n, v in metadata.items() if n.startswith(start)}
    for name in ("tokens", "merges" if fields["model"] == BYTE_LEVEL else "scores"):
        if name not in fields:
            raise ValueError(f"{GGML}.{name} is missing")
    pieces, ids = read_pieces(fields), special_ids(fields)
    specials: dict[str, Any] = {
        name: None if i is None else pieces[i].text for name, i in ids.items()
    }
    if fields["model"] == BYTE_LEVEL:
        inner = byte_level(fields, pieces)
    else:
        model = sentencepiece(fields, pieces, ids["unk"])
        inner = pipeline(model, "each" if model.dummy_prefix else "never")
    mark_specials(inner, pieces)
    ends = {}
    for name in ("bos", "eos"):
        ends[f"add_{name}_token"] = wanted = adds(fields, name)
        if wanted and ids[name] is None:
            raise ValueError(f"a text needs {name}, but {GGML}.{name}_token_id is missing")
    surround(inner, "LlamaTokenizer", ends, specials)
    return Tokenizer(inner, **specials, chat_template=metadata.get("tokenizer.chat_template"))


def special_ids(fields: dict[str, Any]) -> dict[str, int | None]:
    """The ids of special tokens, by our names.

    Raises:
        ValueError: one beyond the vocabulary.
    """
    count, usual = len(fields["tokens"]), MODELS[fields["model"]]
    found: dict[str, int | None] = {}
    for ours, theirs in SPECIALS.items():
        name = f"{theirs}_token_id"
        i = fields.get(name)
        if i is None:
            i = usual[ours] if usual.get(ours, count) < count else None
        elif not 0 <= i < count:
            raise ValueError(f"{GGML}.{name}={i}, but there are {count} tokens")
        found[ours] = i
    return found


def read_pieces(fields: dict[str, Any]) -> list[Piece]:
    """The tokens with their scores and types.

    Raises:
        ValueError: a token that comes twice, or has no score or type.
    """
    tokens = fields["tokens"]
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"{GGML}.tokens has the same token twice")
    columns = []
    for name, usual in (("scores", 0.0), ("token_type", NORMAL)):
        column = fields.get(name, [usual] * len(tokens))
        if len(column) < len(tokens):
            raise ValueError(f"{GGML}.{name} has {len(column)} entries for {len(tokens)} tokens")
        columns.append(column)
    return [Piece(*each) for each in zip(tokens, *columns, strict=False)]


def adds(fields: dict[str, Any], name: str) -> bool:
    """Whether a text gets bos or eos added."""
    if f"add_{name}_token" in fields:
        return bool(fields[f"add_{name}_token"])
    if name == "eos":
        return fields["model"] == "t5"
    return fields["model"] == "llama" or fields.get("pre") in LLAMA3_NAMES


def byte_level(fields: dict[str, Any], pieces: list[Piece]) -> tokenizers.Tokenizer:
    """Pairs of bytes, merged within words."""
    merges = [tuple(merge.split(" ")) for merge in fields["merges"]]
    vocabulary = {piece.text: i for i, piece in enumerate(pieces)}
    # Llama 3 takes a word that is a token as it is, even where merging leads elsewhere.
    whole = fields["pre"] in LLAMA3_NAMES
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole))
    inner.pre_tokenizer, inner.decoder = WORDS[fields["pre"]](), decoders.ByteLevel()
    return inner


def sentencepiece(
    fields: dict[str, Any], pieces: list[Piece], unknown: int | None
) -> SentencePiece:
    """The model as its own file would describe it."""
    pairs = fields["model"] == "llama"
    if unknown is not None and not any(piece.type == UNKNOWN for piece in pieces):
        # Files made from a tokenizer.json call it a control token.
        pieces = list(pieces)
        pieces[unknown] = pieces[unknown]._replace(type=UNKNOWN)
    return SentencePiece(
        pieces=pieces,
        model_type=BPE if pairs else UNIGRAM,
        byte_fallback=any(piece.type == BYTE for piece in pieces),
        charsmap=bytes(byte & 255 for byte in fields.get("precompiled_charsmap", ())),
        dummy_prefix=bool(fields.get("add_space_prefix", pairs)),
        single_spaces=bool(fields.get("remove_extra_whitespaces", False)),
    )
