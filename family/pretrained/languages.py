"""Which languages a published tokenizer knows, and where its model has their tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from family.inputs.tokenizer import Tokenizer
from family.models.languages import LanguageTokens
from family.pretrained.text import CONFIG, LANGUAGES
from family.pretrained.text_classes import tokenizer_class
from family.pretrained.text_files import guarded, read_if_there

SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "M2M100Tokenizer": (r"__(\w+)__", {"source": "first", "learnt": True, "usual": "en"}),
    "MBart50Tokenizer": (
        r"([a-z]{2}_[A-Z]{2})",
        {"source": "first", "learnt": True, "usual": "en_XX"},
    ),
    "MBartTokenizer": (
        r"([a-z]{2}_[A-Z]{2})",
        {"source": "last", "target": "start", "learnt": True, "usual": "en_XX"},
    ),
    "MarianTokenizer": (r">>(\w+)<<", {"target": "source"}),
    "NllbTokenizer": (
        r"([a-z]{3}_[A-Z][a-z]{3})",
        {"source": "first", "learnt": True, "usual": "eng_Latn"},
    ),
}
"""Class of a tokenizer -> how its tokens of languages are written, and where they stand."""


def read_languages(folder: Path, tokenizer: Tokenizer) -> LanguageTokens | None:
    """The languages of a folder's tokenizer: as we wrote them, or as its class has them; None without.

    Raises:
        ValueError: fields of ours that make no sense.
    """
    config = read_if_there(folder / CONFIG)
    if LANGUAGES in config:
        return guarded(folder / CONFIG, LanguageTokens.from_fields, config[LANGUAGES])
    if tokenizer_class(folder, config) not in SCHEMES:
        return None
    spelling, scheme = SCHEMES[tokenizer_class(folder, config)]
    tokens = {i: token for token, i in tokenizer.inner.get_vocab(with_added_tokens=True).items()}
    tokens = tokenizer.tokens or tokens  # Marian's own ids
    found = ((re.fullmatch(spelling, token), i) for i, token in sorted(tokens.items()))
    ids = {match[1]: i for match, i in found if match}
    if not ids:
        return None
    scheme = dict(scheme)
    if config.get("legacy_behaviour"):  # NLLB, as transformers first had it
        scheme["source"] = "last"
    if config.get("src_lang") in ids:
        scheme["usual"] = config["src_lang"]
    return LanguageTokens(ids, **scheme)
