"""The tokenizer that the metadata of a GGUF file describes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors

from family.inputs.tokenizer import Tokenizer
from family.pretrained.text_files import guarded

LOG = logging.getLogger(__name__)
GGML = "tokenizer.ggml"
CONTROL, USER_DEFINED = 3, 4
"""Of ``token_type``: tokens that no text spells, and such that stay whole in it."""
SPECIALS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Ours -> what GGUF calls the token."""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The words of Llama 3, after cl100k's."""


def gpt2() -> Any:
    """The words of GPT-2 (Radford et al. 2019)."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def smollm() -> Any:
    """GPT-2's, each digit a word of its own."""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])


def split_by(pattern: str) -> Any:
    """The words that a pattern matches."""
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])


WORDS: dict[str, Callable[[], Any]] = {
    "gpt-2": gpt2,
    "smollm": smollm,
    "llama-bpe": lambda: split_by(LLAMA3),
    "qwen2": lambda: split_by(LLAMA3.replace("{1,3}", "")),
}
"""``tokenizer.ggml.pre`` -> how a text is split before pairs are merged."""


def read_gguf_tokenizer(metadata: dict[str, Any], file: Path) -> Tokenizer | None:
    """A byte-level tokenizer from the metadata of a file; None, with a warning, of another kind.

    Raises:
        ValueError: metadata that contradict themselves.
    """
    for name, known in (("model", ["gpt2"]), ("pre", list(WORDS))):
        value = metadata.get(f"{GGML}.{name}")
        if value not in known:
            LOG.warning(
                "%s: %s.%s=%r is not supported (known: %s), so the model comes without a tokenizer.",
                file, GGML, name, value, ", ".join(known),
            )  # fmt: skip
            return None
    return guarded(file, build_tokenizer, metadata)


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    def field(name: str) -> Any:
        return metadata.get(f"{GGML}.{name}")

    tokens, kind = field("tokens"), field("pre")
    merges = [tuple(merge.split(" ")) for merge in field("merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Llama 3 takes a word that is a token as it is, even where merging leads elsewhere.
    whole = kind == "llama-bpe"
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole))
    inner.pre_tokenizer, inner.decoder = WORDS[kind](), decoders.ByteLevel()
    for token, role in zip(tokens, field("token_type") or (), strict=False):
        if role in (CONTROL, USER_DEFINED):
            added = AddedToken(token, normalized=False, special=role == CONTROL)
            (inner.add_special_tokens if role == CONTROL else inner.add_tokens)([added])
    ids = {ours: field(f"{theirs}_token_id") for ours, theirs in SPECIALS.items()}
    specials = {name: None if i is None else tokens[i] for name, i in ids.items()}
    first = [specials["bos"]] if field("add_bos_token") else []
    last = [specials["eos"]] if field("add_eos_token") else []
    if first or last:
        inner.post_processor = processors.TemplateProcessing(
            single=[*first, "$A", *last],
            pair=[*first, "$A", *last, *first, "$B", *last],
            special_tokens=[(token, vocabulary[token]) for token in {*first, *last}],
        )
    return Tokenizer(inner, **specials, chat_template=metadata.get("tokenizer.chat_template"))
