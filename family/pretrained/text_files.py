"""Tokenizers put together from what is no ``tokenizer.json``: vocabularies, merges, SentencePiece."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from family.checks import first_line
from family.inputs.pointers import refuse_pointer
from family.inputs.tokenizer import Tokenizer
from family.pretrained.sentencepiece import (
    CONTROL,
    SPACE,
    Piece,
    SentencePiece,
    mark_specials,
    pipeline,
    read_sentencepiece,
)
from family.pretrained.weights import read_json

PIECES = {
    "spiece.model": ("T5Tokenizer", "SiglipTokenizer"),
    "tokenizer.model": ("LlamaTokenizer", "GemmaTokenizer"),
}
"""File with a SentencePiece model -> the classes that it may be of; the first, where no file names one."""
PUNCTUATION, BLANK = re.escape(string.punctuation), r"\s\x1c-\x1f"
"""Of a set of characters, as Python knows them."""
WORD_PIECE = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
ENDS = {
    "GemmaTokenizer": (True, False),
    "GPT2Tokenizer": (False, False),
    "GPTNeoXTokenizer": (False, False),
    "LlamaTokenizer": (True, False),
    "MarianTokenizer": (False, True),
    "Qwen2Tokenizer": (False, False),
    "SiglipTokenizer": (False, True),
    "T5Tokenizer": (False, True),
}
"""Whether bos and eos go around a text, where no file says; other classes have their own rules."""


JOINED = {
    "CLIPTokenizer": ("bos", "eos"),
    "MPNetTokenizer": ("cls", "sep"),
    "RobertaTokenizer": ("cls", "sep"),
    "XLMRobertaTokenizer": ("cls", "sep"),
}
"""What goes around a text of classes that join a second one by two ends."""


def guarded(file: Path, read: Callable[..., Any], *arguments: Any) -> Any:
    """What ``read`` makes of a file; all that goes wrong becomes one sentence."""
    refuse_pointer(file)
    try:
        return read(*arguments)
    except Exception as error:  # the library has no kind of its own
        reason = first_line(error)
        raise ValueError(f"the tokenizer of {file} cannot be read: {reason}.") from None


def word_piece(file: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """BERT's: a word is the longest pieces that the vocabulary has (Devlin et al. 2019)."""
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    unknown = WORD_PIECE["unk"]
    inner = tokenizers.Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(lines)}, unk_token=unknown)
    )
    inner.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return inner


def sentencepiece(file: Path, kind: str, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """T5's, with the tokens that stand for spans left out (Raffel et al. 2020), SigLIP's, or Llama's."""
    model = read_sentencepiece(file)
    if kind == "SiglipTokenizer":
        inner = siglip(model, config)
    elif kind == "T5Tokenizer":
        spans = [f"<extra_id_{i}>" for i in reversed(range(config.get("extra_ids", 100)))]
        model = replace(model, pieces=[*model.pieces, *(Piece(s, 0.0, CONTROL) for s in spans)])
        inner = pipeline(model)
    else:
        inner = pipeline(model, prepended(config, model.dummy_prefix))
    mark_specials(inner, model.pieces)
    return inner


def prepended(config: dict[str, Any], usual: bool) -> str:
    """Where Llama's puts a space in front; ``usual``: whether it does, where no file says."""
    space = config.get("add_prefix_space")
    if not (usual if space is None else space):
        return "never"
    return "always" if config.get("legacy") else "first"


def siglip(model: SentencePiece, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """SigLIP's: what is written, in small letters and without punctuation (Zhai et al. 2023)."""
    inner = pipeline(model, "always")
    after = [inner.normalizer] if inner.normalizer else []
    lower = [
        # Greek has another small letter at the end of a word, which the library does not know.
        normalizers.Replace(Regex(r"(?<=\p{L})\u03a3(?!\p{L})"), "\u03c2"),
        normalizers.Lowercase(),
    ]
    steps = [
        normalizers.Replace(SPACE, " "),
        # A text begins with a space of its own, in front of those that it has or comes to have.
        normalizers.Replace(
            Regex(rf"\A[{PUNCTUATION}]*[{BLANK}][{BLANK}{PUNCTUATION}]*"), SPACE + " "
        ),
        *(lower if config.get("do_lower_case", True) else []),
        normalizers.Replace(Regex(f"[{PUNCTUATION}]"), ""),
        normalizers.Replace(Regex(f"[{BLANK}]+"), " "),
        *after,
        normalizers.Replace(Regex(rf"\A{SPACE}\z"), ""),
    ]
    inner.normalizer = normalizers.Sequence(steps)
    stripped = decoders.Replace(Regex(r"\A\s+|\s+\z"), "")
    inner.decoder = decoders.Sequence([inner.decoder, decoders.Fuse(), stripped])
    return inner


def marian(
    file: Path,
    vocabulary: Path,
    config: dict[str, Any],
    named: dict[str, Any],
    fields: dict[str, Any],
) -> Tokenizer:
    """One of Marian's two tokenizers, of which only the vocabulary's tokens are special."""
    ids = read_json(vocabulary)
    added = listed_tokens(vocabulary.parent, config, named)
    ids |= {str(token): i for i, token in added.items()}
    if str(named["unk"]) not in ids or not all(isinstance(i, int) for i in ids.values()):
        raise ValueError(f"{vocabulary.name} must map tokens, {named['unk']} among them, to ids")
    model = read_sentencepiece(file)
    inner = pipeline(replace(model, pieces=[p for p in model.pieces if p.type != CONTROL]))
    stripped = decoders.Replace(Regex(r"\A +| +\z"), "")
    inner.decoder = decoders.Sequence([inner.decoder, decoders.Fuse(), stripped])
    codes = [token for token in ids if token.startswith(">>") and token.endswith("<<")]
    inner.add_tokens([AddedToken(code, normalized=False) for code in codes])
    inner.add_tokens(list(added.values()))
    inner.add_special_tokens([t for t in named.values() if t is not None and str(t) in ids])
    surround(inner, "MarianTokenizer", config, named)
    return Tokenizer(inner, **fields, vocabulary=ids, file=file.read_bytes())


def add_tokens(
    inner: tokenizers.Tokenizer, folder: Path, config: dict[str, Any], named: dict[str, Any]
) -> None:
    """Tokens beyond the vocabulary, in the order of their ids; the special ones stay whole."""
    for i, token in listed_tokens(folder, config, named).items():
        inner.add_tokens([token])
        found = inner.token_to_id(str(token))
        if found != i:
            raise ValueError(f"its added token {str(token)!r} has the id {found}, not {i}")
    more = config.get("additional_special_tokens") or ()
    special = [token for token in (*named.values(), *map(added_token, more)) if token is not None]
    inner.add_special_tokens([t for t in special if inner.token_to_id(str(t)) is not None])


def listed_tokens(
    folder: Path, config: dict[str, Any], named: dict[str, Any]
) -> dict[int, AddedToken]:
    """The tokens beyond the vocabulary that files list, by their ids and in their order."""
    special = {str(token) for token in named.values() if token is not None}
    listed = config.get("added_tokens_decoder") or {}
    added: dict[int, Any] = {int(i): added_token(token) for i, token in listed.items()}
    for token, i in read_if_there(folder / "added_tokens.json").items():
        added.setdefault(i, AddedToken(token, special=token in special))
    return dict(sorted(added.items()))


def surround(
    inner: tokenizers.Tokenizer, kind: str, config: dict[str, Any], named: dict[str, Any]
) -> None:
    """What is put around a text: BERT's [CLS] and [SEP], RoBERTa's <s> and </s>, T5's </s>."""
    if kind in ENDS:
        first, last = (
            [str(named[name])] if config.get(f"add_{name}_token", usual) and named.get(name) else []
            for name, usual in zip(("bos", "eos"), ENDS[kind], strict=True)
        )
        around, second = [*first, "$A", *last], [*first, "$B", *last]
    elif kind == "WhisperTokenizer":
        end = str(named["eos"])
        around, second = [*spoken(config), "$A", end], ["$B", end]
    else:
        start, end = (str(named[name]) for name in JOINED.get(kind, ("cls", "sep")))
        around = [start, "$A", end]
        # Only BERT and ELECTRA tell a second text apart.
        second = [end, "$B", end] if kind in JOINED else ["$B:1", f"{end}:1"]
    tokens = [(token, inner.token_to_id(token)) for token in around if token != "$A"]
    for token, found in tokens:
        if found is None:
            raise ValueError(f"its vocabulary has no token {token!r}")
    # Whisper's end stands behind both texts alone.
    before = around[:-1] if kind == "WhisperTokenizer" else around
    inner.post_processor = processors.TemplateProcessing(
        single=around, pair=before + second, special_tokens=tokens
    )


def spoken(config: dict[str, Any]) -> list[str]:
    """What Whisper's puts before a text.

    Raises:
        ValueError: a language by its name.
    """
    language, task = config.get("language"), config.get("task")
    if language is not None and len(str(language)) != 2:
        raise ValueError(f"language={language!r} is not supported; a code of two letters is")
    said = ["startoftranscript", *(str(each).lower() for each in (language, task) if each)]
    said += [] if config.get("predict_timestamps") else ["notimestamps"]
    return [f"<|{each}|>" for each in said]


def added_token(value: Any) -> AddedToken | str | None:
    """A token as a text, or with the fields that its entry has."""
    if not isinstance(value, dict):
        return value
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(**{name: value[name] for name in fields if name in value})


def read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
