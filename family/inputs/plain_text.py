"""What users write is text, whatever it spells: ``<pad>`` in a sentence is five characters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

import tokenizers
from tokenizers.models import BPE

LARGEST = 1 << 24
"""The largest id of a token; published vocabularies have a million at most."""


def unwritable(tokens: Iterable[str]) -> dict[str, str]:
    """For each token a name that nobody writes by chance or by guessing."""
    return {token: f"\ue000{uuid4().hex}\ue001" for token in tokens}


def renamed(inner: tokenizers.Tokenizer, names: Mapping[str, str]) -> tokenizers.Tokenizer:
    """The same tokenizer with other names for some tokens, so that their spelling is text; ids stay, and
    so does how any other text is cut. It puts nothing around a text.

    Where a model's vocabulary holds special tokens, it may find them in a text by itself: a unigram
    model as pieces, pairs as what merges lead to, words as words.
    """
    check_ids(inner)
    content: dict[str, Any] = json.loads(inner.to_str())
    content |= {"truncation": None, "padding": None, "post_processor": None}
    model = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    else:
        model["vocab"] = {names.get(token, token): i for token, i in vocabulary.items()}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    prefix = model.get("continuing_subword_prefix") or ""
    if "merges" in model:
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if names.keys().isdisjoint((left, right, left + right.removeprefix(prefix)))
        ]
    for token in content["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "special": True}
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def check_ids(inner: tokenizers.Tokenizer) -> None:
    """Refuse ids of which most have no token: the library lists all that lie between when it writes a
    tokenizer down, whatever the memory.

    Raises:
        ValueError: an id beyond :data:`LARGEST`.
    """
    largest = max(inner.get_vocab().values(), default=0)
    if largest > LARGEST:
        raise ValueError(
            f"the tokenizer has a token of id {largest:,}, but of its {inner.get_vocab_size():,} tokens none can "
            f"be above {LARGEST:,}."
        )


def exchange(value: Any, names: Mapping[str, str]) -> Any:
    """A text, or all texts within lists and dicts but for the roles of speakers, with each name in the
    place of its token."""
    if isinstance(value, str) and names:
        longest = sorted(names, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest)), lambda found: names[found[0]], value)
    if isinstance(value, Mapping):
        return {k: v if k == "role" else exchange(v, names) for k, v in value.items()}
    return [exchange(each, names) for each in value] if isinstance(value, list) else value


def texts_of(value: Any) -> list[str]:
    """All texts within lists and dicts, but for the roles of speakers."""
    if isinstance(value, Mapping):
        return [text for k, v in value.items() if k != "role" for text in texts_of(v)]
    if isinstance(value, list):
        return [text for each in value for text in texts_of(each)]
    return [value] if isinstance(value, str) else []


def characters(inner: tokenizers.Tokenizer) -> frozenset[str] | None:
    """All that a vocabulary of single characters knows; None where it is not one, or where it has a
    token for what it does not know."""
    model = inner.model
    if inner.pre_tokenizer is not None or not isinstance(model, BPE) or model.unk_token is not None:
        return None
    if model.byte_fallback or json.loads(inner.to_str())["model"]["merges"]:
        return None
    return frozenset(token for token in inner.get_vocab() if len(token) == 1)
