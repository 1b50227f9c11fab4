"""The tokenizer of a folder in the hub's layout, read and written."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders
from tokenizers.models import Unigram
from torch import nn

from family.files import write_bytes, write_text
from family.inputs.pointers import refuse_pointer
from family.inputs.tokenizer import SPECIALS, Tokenizer
from family.pretrained.byte_level import MERGES, VOCABULARY, byte_level
from family.pretrained.byte_level import WORDS as OF_BYTES
from family.pretrained.fairseq_text import CODES, M2M100, MODEL, fairseq, m2m100, m2m100_files
from family.pretrained.text_classes import (
    LEFT,
    LIMITS,
    MARIAN,
    OF_PYTHON,
    SIGLIP,
    TOKENS,
    WORDS,
    XLM_ROBERTA,
    acting_class,
    apply_options,
    parts,
    tokenizer_class,
)
from family.pretrained.text_files import (
    PIECES,
    add_tokens,
    added_token,
    guarded,
    marian,
    read_if_there,
    sentencepiece,
    surround,
    word_piece,
)
from family.pretrained.weights import read_json

LOG = logging.getLogger(__name__)
WHOLE, CONFIG, MAP = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
TEXTS = (".json", ".txt", ".model", ".spm", ".jinja")
"""Endings of a tokenizer's files."""
LANGUAGES = "language_tokens"
"""The field of a tokenizer's config in which a folder of ours says where tokens of languages stand."""
TARGET_VOCABULARY = "target_vocab.json"
TARGET = "target_tokenizer"
"""Where the tokenizer of translations lies in a folder of ours, if it is not that of the sources."""
SIDES = ("source.spm", "target.spm")
"""The SentencePiece models of Marian."""
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")
"""Classes that say nothing of their own."""
UNLIMITED = int(1e30)
"""What ``model_max_length`` says where there is no limit."""
VOCABULARIES = (VOCABULARY, "vocab.txt", "bpe.codes", "spm.model", MODEL, *PIECES)
"""Files that a class makes a tokenizer from."""
SIDED = ("padding_side", "truncation_side")
TIDIED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What ``clean_up_tokenization_spaces`` writes without spaces in front, or around a quote."""


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder: ``tokenizer.json``, a vocabulary of BERT's or GPT-2's kind, or
    SentencePiece models as T5, Llama and Marian have them; None, with a warning, of a class that we do
    not know with such files.

    Raises:
        ValueError: a file that is broken, or lacks what the others ask for.
    """
    for each in folder.iterdir():  # some of which would be read as what they are not
        if each.suffix in TEXTS:
            refuse_pointer(each)
    config = read_if_there(folder / CONFIG)
    kind = tokenizer_class(folder, config)
    named: dict[str, Any] = dict(TOKENS.get(kind, {}))
    for file in (MAP, CONFIG):
        named |= guarded(folder / file, named_tokens, read_if_there(folder / file))
    limit = config.get("model_max_length", LIMITS.get(kind))
    limited = isinstance(limit, int) and 0 < limit < UNLIMITED
    fields: dict[str, Any] = {
        **{name: None if token is None else str(token) for name, token in named.items()},
        "chat_template": chat_template(folder, config),
        "max_tokens": limit if limited else None,
    }
    if kind == MARIAN and (folder / SIDES[0]).is_file() and not (folder / WHOLE).is_file():
        return read_pair(folder, config, named, fields | sides(folder, config, kind, None))
    if kind == M2M100 and (folder / MODEL).is_file() and not (folder / WHOLE).is_file():
        fields |= sides(folder, config, kind, None)
        return guarded(folder / MODEL, m2m100, folder, config, fields)
    inner = read_inner(folder, kind, config, named)
    if inner is None:
        return None
    fields |= sides(folder, config, kind, inner)
    tidy(inner, config)
    target = read_tokenizer(folder / TARGET) if (folder / TARGET).is_dir() else None
    return Tokenizer(inner, **fields, target=target)


def read_inner(
    folder: Path, kind: str, config: dict[str, Any], named: dict[str, Any]
) -> tokenizers.Tokenizer | None:
    """What does the work, from whichever files there are that its class reads."""
    pieces = next((folder / name for name in PIECES if (folder / name).is_file()), None)
    if (folder / WHOLE).is_file() and kind not in (*OF_PYTHON, SIGLIP):
        inner = guarded(folder / WHOLE, tokenizers.Tokenizer.from_file, str(folder / WHOLE))
        acting = acting_class(folder, config, inner)
        guarded(folder / CONFIG, apply_options, inner, acting, config)
        return inner
    if kind in CODES and (folder / MODEL).is_file():
        return guarded(folder / MODEL, fairseq, folder / MODEL, kind, config)
    if kind == XLM_ROBERTA and (folder / MODEL).is_file():
        inner = guarded(folder / MODEL, fairseq, folder / MODEL, kind, config)
    elif pieces is not None and kind in ("", *GENERIC, *PIECES[pieces.name]):
        kind = kind if kind in PIECES[pieces.name] else PIECES[pieces.name][0]
        inner = guarded(pieces, sentencepiece, pieces, kind, config)
    elif kind in WORDS and (folder / "vocab.txt").is_file():
        inner = guarded(folder / "vocab.txt", word_piece, folder / "vocab.txt", config)
    elif kind in OF_BYTES and (folder / MERGES).is_file():
        inner = guarded(folder / MERGES, byte_level, folder, kind, config, named)
    else:
        there = [name for name in (WHOLE, *VOCABULARIES) if (folder / name).is_file()]
        if there or kind in OF_PYTHON:
            LOG.warning(
                "%s: tokenizer_class=%r with %s is not supported, so the model comes without a tokenizer.",
                folder, kind, ", ".join(there) or "no vocabulary",
            )  # fmt: skip
        return None
    guarded(folder, add_tokens, inner, folder, config, named)
    guarded(folder, surround, inner, kind, config, named)
    return inner


def sides(
    folder: Path, config: dict[str, Any], kind: str, inner: tokenizers.Tokenizer | None
) -> dict[str, str]:
    """At which end a row is filled and cut: as a file says, a ``tokenizer.json`` last, or the class.

    Raises:
        ValueError: another end than "left" and "right".
    """
    if inner is not None and (folder / WHOLE).is_file():
        kind = acting_class(folder, config, inner)
    found = {"padding_side": "left" if kind in LEFT else "right", "truncation_side": "right"}
    for name, said in zip(
        SIDED, (inner and inner.padding, inner and inner.truncation), strict=True
    ):
        found[name] = config.get(name) or (said or {}).get("direction", found[name]).lower()
        if found[name] not in ("left", "right"):
            raise ValueError(
                f'{folder / CONFIG}: {name}={found[name]!r} must be "left" or "right".'
            )
    return found


def tidy(inner: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    """Decode without spaces in front of punctuation, where a file asks for it; BERT's does so by itself,
    and transformers spares pairs of bytes, which it would corrupt."""
    if config.get("clean_up_tokenization_spaces") is True and isinstance(inner.model, Unigram):
        steps = [decoders.Replace(text, text.strip(" ")) for text in TIDIED]
        inner.decoder = decoders.Sequence([inner.decoder, decoders.Fuse(), *steps])


def read_pair(
    folder: Path, config: dict[str, Any], named: dict[str, Any], fields: dict[str, Any]
) -> Tokenizer:
    """Marian's two: a source's and, as its ``target``, a translation's. SentencePiece cuts a text,
    ``vocab.json`` has the ids.

    Args:
        fields: what both are made with.
    """
    own = folder / TARGET_VOCABULARY if config.get("separate_vocabs") else folder / VOCABULARY
    source, target = (
        guarded(folder / name, marian, folder / name, vocabulary, config, named, fields)
        for name, vocabulary in zip(SIDES, (folder / VOCABULARY, own), strict=True)
    )
    source.target = target
    return source


def named_tokens(config: dict[str, Any]) -> dict[str, Any]:
    """The special tokens that a file names: name -> token, or None where it says so."""
    found = {}
    for name in SPECIALS:
        if f"{name}_token" in config:
            found[name] = added_token(config[f"{name}_token"])
    return found


def chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The template of a conversation; of several, the one called "default"."""
    if (folder / TEMPLATE).is_file():
        return guarded(folder / TEMPLATE, (folder / TEMPLATE).read_text, "utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def save_tokenizer(model: nn.Module, folder: Path) -> None:
    """Write a model's tokenizer as :func:`read_tokenizer` and transformers' AutoTokenizer read it:
    ``tokenizer.json``, or Marian's own files, which transformers knows no other form of."""
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return
    write_tokenizer(tokenizer, folder, getattr(model, "arguments", {}).get("token_types", 0) > 1)
    languages: Any = getattr(model, "language_tokens", None)
    if languages is not None:
        config = read_json(folder / CONFIG) | {LANGUAGES: languages.to_fields()}
        if config["tokenizer_class"] == M2M100:
            config["src_lang"] = languages.usual
        write_json(folder / CONFIG, config)
    if two_of_ours(tokenizer):
        (folder / TARGET).mkdir()
        write_tokenizer(tokenizer.target, folder / TARGET, token_types=False)


def two_of_ours(tokenizer: Tokenizer | None) -> bool:
    """Whether sources and translations have tokenizers of their own, in no published layout."""
    target: Any = getattr(tokenizer, "target", tokenizer)
    return tokenizer is not None and target is not tokenizer and tokenizer.file is None


def write_tokenizer(tokenizer: Tokenizer, folder: Path, token_types: bool) -> None:
    """The files of one tokenizer, or of Marian's two."""
    tokens = {f"{name}_token": token for name, token in tokenizer.specials.items()}
    inputs = ["input_ids", "attention_mask"]
    if token_types:
        inputs.insert(1, "token_type_ids")
    config: dict[str, Any] = {
        # Any other class would build its own tokenizer and overlook parts of the file.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.max_tokens or UNLIMITED,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    if any(
        getattr(part, "add_prefix_space", False) for part in parts(tokenizer.inner.pre_tokenizer)
    ):
        config["add_prefix_space"] = True  # where a class counts all the same
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    files: dict[str, Any] = {CONFIG: config, MAP: tokens}
    if tokenizer.file is None:
        write_text(folder / WHOLE, tokenizer.inner.to_str(pretty=True))
    elif tokenizer.target is tokenizer:
        write_bytes(folder / MODEL, tokenizer.file)
        files[VOCABULARY] = m2m100_files(tokenizer)
        config["tokenizer_class"] = M2M100
    else:
        sides = (tokenizer, tokenizer.target)
        for name, each in zip(SIDES, sides, strict=True):
            write_bytes(folder / name, each.file or b"")
        files |= {VOCABULARY: tokenizer.vocabulary, TARGET_VOCABULARY: tokenizer.target.vocabulary}
        separate = tokenizer.vocabulary != tokenizer.target.vocabulary
        config |= {"tokenizer_class": MARIAN, "separate_vocabs": separate}
        if not separate:
            del files[TARGET_VOCABULARY]
    for name, content in files.items():
        write_json(folder / name, content)


def write_json(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_text(file, text)
