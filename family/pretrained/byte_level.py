"""Tokenizers that merge pairs of bytes: what each class makes of a text before, from ``vocab.json`` and
``merges.txt``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

VOCABULARY, MERGES = "vocab.json", "merges.txt"
CLIP_CLASS = "CLIPTokenizer"
END_OF_WORD = "</w>"
"""What ends the last piece of a word of CLIP's."""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The words of Llama 3, after cl100k's."""
QWEN2 = LLAMA3.replace("{1,3}", "")
CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def gpt2(space: bool = False) -> Any:
    """The words of GPT-2 (Radford et al. 2019).

    Args:
        space: one goes in front of a text that begins with none.
    """
    return pre_tokenizers.ByteLevel(add_prefix_space=space)


def split_by(pattern: str, space: bool = False, others: bool = True) -> Any:
    """The words that a pattern matches; ``others``: what it does not match is a word too."""
    split = (
        pre_tokenizers.Split(Regex(pattern), "isolated")
        if others
        else pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    )
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)
    return pre_tokenizers.Sequence([split, bytes_only])


WORDS: dict[str, Callable[[bool], Any]] = {
    CLIP_CLASS: lambda space: split_by(CLIP_WORDS, others=False),
    "GPT2Tokenizer": gpt2,
    "GPTNeoXTokenizer": gpt2,
    "Qwen2Tokenizer": lambda space: split_by(QWEN2, space),
    "RobertaTokenizer": gpt2,
    "WhisperTokenizer": gpt2,
}
"""Class -> how it splits a text, with a space in front or not."""


def normalizer(kind: str) -> Any:
    """What a class does with a text before it is split."""
    if kind == CLIP_CLASS:
        single = normalizers.Replace(Regex(r"\s+"), " ")
        return normalizers.Sequence([normalizers.NFC(), single, normalizers.Lowercase()])
    return normalizers.NFC() if kind in ("GPTNeoXTokenizer", "Qwen2Tokenizer") else None


def clip_decoder() -> Any:
    """Ends of words become the spaces between them."""
    spaces = decoders.Replace(END_OF_WORD, " ")
    return decoders.Sequence(
        [decoders.ByteLevel(), spaces, decoders.Replace(Regex(r"\A\s+|\s+\z"), "")]
    )


def byte_level(
    folder: Path, kind: str, config: dict[str, Any], named: dict[str, Any]
) -> tokenizers.Tokenizer:
    """Pairs of bytes are merged, so that no text is unknown."""
    ends = {"end_of_word_suffix": END_OF_WORD, "unk_token": str(named["unk"])}
    ends = ends if kind == CLIP_CLASS else {}
    files = str(folder / VOCABULARY), str(folder / MERGES)
    inner = tokenizers.Tokenizer(models.BPE.from_file(*files, **ends))
    if (before := normalizer(kind)) is not None:
        inner.normalizer = before
    inner.pre_tokenizer = WORDS[kind](bool(config.get("add_prefix_space")))
    inner.decoder = clip_decoder() if kind == CLIP_CLASS else decoders.ByteLevel()
    return inner
