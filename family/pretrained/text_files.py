"""Tokenizers put together from what is no ``tokenizer.json``: vocabularies, merges, SentencePiece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from family.inputs.tokenizer import Tokenizer
from family.pretrained.sentencepiece import (
    CONTROL,
    Piece,
    mark_specials,
    pipeline,
    read_sentencepiece,
)
from family.pretrained.weights import read_json

VOCABULARY = "vocab.json"
PIECES = {"spiece.model": "T5Tokenizer", "tokenizer.model": "LlamaTokenizer"}
"""File with a SentencePiece model -> how it is used."""
WORD_PIECE = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
ENDS = {
    "GPT2Tokenizer": (False, False),
    "LlamaTokenizer": (True, False),
    "MarianTokenizer": (False, True),
    "T5Tokenizer": (False, True),
}
"""Whether bos and eos go around a text, where no file says; other classes have their own rules."""


def guarded(file: Path, read: Callable[..., Any], *arguments: Any) -> Any:
    """What ``read`` makes of a file; all that goes wrong becomes one sentence."""
    try:
        return read(*arguments)
    except Exception as error:  # the library has no kind of its own
        reason = str(error).strip().split("\n")[0].rstrip(".")
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


def byte_level(folder: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """GPT-2's: pairs of bytes are merged, so that no text is unknown (Radford et al. 2019)."""
    files = str(folder / VOCABULARY), str(folder / "merges.txt")
    inner = tokenizers.Tokenizer(models.BPE.from_file(*files))
    space = config.get("add_prefix_space", False)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    inner.decoder = decoders.ByteLevel()
    return inner


def sentencepiece(file: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """T5's, with the tokens that stand for spans left out (Raffel et al. 2020), or Llama's."""
    model = read_sentencepiece(file)
    prepend = None
    if PIECES[file.name] == "T5Tokenizer":
        spans = [f"<extra_id_{i}>" for i in reversed(range(config.get("extra_ids", 100)))]
        model = replace(model, pieces=[*model.pieces, *(Piece(s, 0.0, CONTROL) for s in spans)])
    else:
        space = config.get("add_prefix_space")
        space = model.dummy_prefix if space is None else space
        prepend = "never" if not space else "always" if config.get("legacy") else "first"
    inner = pipeline(model, prepend)
    mark_specials(inner, model.pieces)
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
    else:
        end = str(named["sep"])
        around = [str(named["cls"]), "$A", end]
        # Only BERT and ELECTRA tell a second text apart.
        joined = kind in ("MPNetTokenizer", "RobertaTokenizer")
        second = [end, "$B", end] if joined else ["$B:1", f"{end}:1"]
    tokens = [(token, inner.token_to_id(token)) for token in around if token != "$A"]
    for token, found in tokens:
        if found is None:
            raise ValueError(f"its vocabulary has no token {token!r}")
    inner.post_processor = processors.TemplateProcessing(
        single=around, pair=around + second, special_tokens=tokens
    )


def added_token(value: Any) -> AddedToken | str | None:
    """A token as a text, or with the fields that its entry has."""
    if not isinstance(value, dict):
        return value
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(**{name: value[name] for name in fields if name in value})


def read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
