"""The tokenizer of a folder in the hub's layout, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, normalizers
from torch import nn

from family.inputs.tokenizer import SPECIALS, Tokenizer
from family.pretrained.fairseq_text import CODES, M2M100, MODEL, fairseq, m2m100, m2m100_files
from family.pretrained.text_files import (
    PIECES,
    VOCABULARY,
    WORD_PIECE,
    add_tokens,
    added_token,
    byte_level,
    guarded,
    marian,
    read_if_there,
    sentencepiece,
    surround,
    word_piece,
)
from family.pretrained.weights import read_json

WHOLE, CONFIG, MAP = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
LANGUAGES = "language_tokens"
"""The field of a tokenizer's config in which a folder of ours says where tokens of languages stand."""
TARGET_VOCABULARY = "target_vocab.json"
TARGET = "target_tokenizer"
"""Where the tokenizer of translations lies in a folder of ours, if it is not that of the sources."""
SIDES = ("source.spm", "target.spm")
"""The SentencePiece models of Marian."""
LOWERED = "Siglip2Tokenizer"
"""The class that writes in small letters, whatever its file says."""
UNLIMITED = int(1e30)
"""What ``model_max_length`` says where there is no limit."""
CLASSES = {
    "bart": "RobertaTokenizer",
    "bert": "BertTokenizer",
    "clip": "CLIPTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "llama": "LlamaTokenizer",
    "m2m_100": "M2M100Tokenizer",
    "marian": "MarianTokenizer",
    "mbart": "MBartTokenizer",
    "mistral": "LlamaTokenizer",
    "mixtral": "LlamaTokenizer",
    "mpnet": "MPNetTokenizer",
    "opt": "GPT2Tokenizer",
    "phi3": "LlamaTokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "vilt": "BertTokenizer",
    "whisper": "WhisperTokenizer",
}
"""``model_type`` -> the class of its tokenizer, where no file names it."""
SAME = {"BartTokenizer": "RobertaTokenizer"}
"""Classes that are others by another name."""
END = "<|endoftext|>"
FAIRSEQ = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "pad": "<pad>",
    "cls": "<s>",
    "sep": "</s>",
    "mask": "<mask>",
}
TOKENS: dict[str, dict[str, Any]] = {
    "BertTokenizer": WORD_PIECE,
    "CLIPTokenizer": {"bos": "<|startoftext|>", "eos": END, "unk": END, "pad": END},
    "DistilBertTokenizer": WORD_PIECE,
    "ElectraTokenizer": WORD_PIECE,
    "GemmaTokenizer": {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"},
    "GPT2Tokenizer": {"bos": END, "eos": END, "unk": END},
    "GPTNeoXTokenizer": {"bos": END, "eos": END, "unk": END},
    "LlamaTokenizer": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    "MarianTokenizer": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "MPNetTokenizer": {**FAIRSEQ, "unk": "[UNK]", "mask": AddedToken("<mask>", lstrip=True)},
    "XLMRobertaTokenizer": FAIRSEQ,
    "M2M100Tokenizer": {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "sep": "</s>"},
    "MBart50Tokenizer": {name: token for name, token in FAIRSEQ.items() if name != "bos"},
    "MBartTokenizer": FAIRSEQ,
    "NllbTokenizer": FAIRSEQ,
    "RobertaTokenizer": FAIRSEQ,
    "T5Tokenizer": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "WhisperTokenizer": {"bos": END, "eos": END, "unk": END},
}
"""The special tokens of each class, where no file names them."""
WORDS = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer")
"""Those whose words are cut as BERT's."""


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder: ``tokenizer.json``, a vocabulary of BERT's or GPT-2's kind, or
    SentencePiece models as T5, Llama and Marian have them.

    Raises:
        ValueError: a file that is broken, or lacks what the others ask for.
    """
    config = read_if_there(folder / CONFIG)
    kind = tokenizer_class(folder, config)
    named: dict[str, Any] = dict(TOKENS.get(kind, {}))
    for file in (MAP, CONFIG):
        named |= guarded(folder / file, named_tokens, read_if_there(folder / file))
    limit = config.get("model_max_length")
    limited = isinstance(limit, int) and 0 < limit < UNLIMITED
    fields: dict[str, Any] = {
        **{name: None if token is None else str(token) for name, token in named.items()},
        "chat_template": chat_template(folder, config),
        "max_tokens": limit if limited else None,
    }
    whole = (folder / WHOLE).is_file()
    if kind == "MarianTokenizer" and (folder / SIDES[0]).is_file() and not whole:
        return read_pair(folder, config, named, fields)
    if kind == M2M100 and (folder / MODEL).is_file() and not whole:
        return guarded(folder / MODEL, m2m100, folder, config, fields)
    inner = read_inner(folder, kind, config, named)
    if inner is None:
        return None
    target = read_tokenizer(folder / TARGET) if (folder / TARGET).is_dir() else None
    return Tokenizer(inner, **fields, target=target)


def read_inner(
    folder: Path, kind: str, config: dict[str, Any], named: dict[str, Any]
) -> tokenizers.Tokenizer | None:
    """What does the work, from whichever files there are."""
    if (folder / WHOLE).is_file():
        inner = guarded(folder / WHOLE, tokenizers.Tokenizer.from_file, str(folder / WHOLE))
        if kind == LOWERED:
            parts = [part for part in (normalizers.Lowercase(), inner.normalizer) if part]
            inner.normalizer = normalizers.Sequence(parts)
        return inner
    if kind in CODES and (folder / MODEL).is_file():
        return guarded(folder / MODEL, fairseq, folder / MODEL, kind, config)
    file = next((folder / name for name in PIECES if (folder / name).is_file()), None)
    if file is not None:
        kind = PIECES[file.name]
        inner = guarded(file, sentencepiece, file, config)
    elif kind in WORDS and (folder / "vocab.txt").is_file():
        inner = guarded(folder / "vocab.txt", word_piece, folder / "vocab.txt", config)
    elif kind in ("GPT2Tokenizer", "RobertaTokenizer") and (folder / "merges.txt").is_file():
        inner = guarded(folder / "merges.txt", byte_level, folder, config)
    else:
        return None
    guarded(folder, add_tokens, inner, folder, config, named)
    guarded(folder, surround, inner, kind, config, named)
    return inner


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


def tokenizer_class(folder: Path, config: dict[str, Any]) -> str:
    """The name of the class that the folder's tokenizer is of, in transformers."""
    model = read_if_there(folder / "config.json")
    found = config.get("tokenizer_class") or model.get("tokenizer_class")
    kind = str(found or CLASSES.get(str(model.get("model_type")), "")).removesuffix("Fast")
    return SAME.get(kind, kind)


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
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    files: dict[str, Any] = {CONFIG: config, MAP: tokens}
    if tokenizer.file is None:
        tokenizer.inner.save(str(folder / WHOLE))
    elif tokenizer.target is tokenizer:
        (folder / MODEL).write_bytes(tokenizer.file)
        files[VOCABULARY] = m2m100_files(tokenizer)
        config["tokenizer_class"] = M2M100
    else:
        sides = (tokenizer, tokenizer.target)
        for name, each in zip(SIDES, sides, strict=True):
            (folder / name).write_bytes(each.file or b"")
        files |= {VOCABULARY: tokenizer.vocabulary, TARGET_VOCABULARY: tokenizer.target.vocabulary}
        separate = tokenizer.vocabulary != tokenizer.target.vocabulary
        config |= {"tokenizer_class": "MarianTokenizer", "separate_vocabs": separate}
        if not separate:
            del files[TARGET_VOCABULARY]
    for name, content in files.items():
        write_json(folder / name, content)


def write_json(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
