"""The tokenizer of a folder in the hub's layout, read and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

from family.inputs.tokenizer import SPECIALS, Tokenizer
from family.pretrained.weights import read_json

WHOLE, CONFIG, MAP = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
UNLIMITED = int(1e30)
"""What ``model_max_length`` says where there is no limit."""
CLASSES = {
    "bert": "BertTokenizer",
    "clip": "CLIPTokenizer",
    "distilbert": "DistilBertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "llama": "LlamaTokenizer",
    "opt": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
}
"""``model_type`` -> the class of its tokenizer, where no file names it."""
WORD_PIECE = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
END = "<|endoftext|>"
TOKENS: dict[str, dict[str, str]] = {
    "BertTokenizer": WORD_PIECE,
    "CLIPTokenizer": {"bos": "<|startoftext|>", "eos": END, "unk": END, "pad": END},
    "DistilBertTokenizer": WORD_PIECE,
    "GPT2Tokenizer": {"bos": END, "eos": END, "unk": END},
    "GPTNeoXTokenizer": {"bos": END, "eos": END, "unk": END},
    "LlamaTokenizer": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    "RobertaTokenizer": {
        "bos": "<s>",
        "eos": "</s>",
        "unk": "<unk>",
        "pad": "<pad>",
        "cls": "<s>",
        "sep": "</s>",
        "mask": "<mask>",
    },
    "T5Tokenizer": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
}
"""The special tokens of each class, where no file names them."""


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a folder: ``tokenizer.json``, or a vocabulary of BERT's or GPT-2's kind.

    Raises:
        ValueError: a file that is broken, or lacks what the others ask for.
    """
    config = read_if_there(folder / CONFIG)
    kind = tokenizer_class(folder, config)
    named: dict[str, Any] = dict(TOKENS.get(kind, {}))
    for file in (MAP, CONFIG):
        named |= guarded(folder / file, named_tokens, read_if_there(folder / file))
    inner = read_inner(folder, kind, config, named)
    if inner is None:
        return None
    limit = config.get("model_max_length")
    limited = isinstance(limit, int) and 0 < limit < UNLIMITED
    return Tokenizer(
        inner,
        **{name: None if token is None else str(token) for name, token in named.items()},
        chat_template=chat_template(folder, config),
        max_tokens=limit if limited else None,
    )


def read_inner(
    folder: Path, kind: str, config: dict[str, Any], named: dict[str, Any]
) -> tokenizers.Tokenizer | None:
    """What does the work, from whichever files there are."""
    if (folder / WHOLE).is_file():
        return guarded(folder / WHOLE, tokenizers.Tokenizer.from_file, str(folder / WHOLE))
    if kind in ("BertTokenizer", "DistilBertTokenizer") and (folder / "vocab.txt").is_file():
        inner = guarded(folder / "vocab.txt", word_piece, folder / "vocab.txt", config)
    elif kind in ("GPT2Tokenizer", "RobertaTokenizer") and (folder / "merges.txt").is_file():
        inner = guarded(folder / "merges.txt", byte_level, folder, config)
    else:
        return None
    guarded(folder, add_tokens, inner, folder, config, named)
    guarded(folder, surround, inner, kind, config, named)
    return inner


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
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    inner = tokenizers.Tokenizer(models.BPE.from_file(*files))
    space = config.get("add_prefix_space", False)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    inner.decoder = decoders.ByteLevel()
    return inner


def add_tokens(
    inner: tokenizers.Tokenizer, folder: Path, config: dict[str, Any], named: dict[str, Any]
) -> None:
    """Tokens beyond the vocabulary, in the order of their ids; the special ones stay whole."""
    special = {str(token): token for token in named.values() if token is not None}
    listed = config.get("added_tokens_decoder") or {}
    added: dict[int, Any] = {int(i): added_token(token) for i, token in listed.items()}
    for token, i in read_if_there(folder / "added_tokens.json").items():
        added.setdefault(i, AddedToken(token, special=token in special))
    for i, token in sorted(added.items()):
        inner.add_tokens([token])
        found = inner.token_to_id(str(token))
        if found != i:
            raise ValueError(f"its added token {str(token)!r} has the id {found}, not {i}")
    known = [token for name, token in special.items() if inner.token_to_id(name) is not None]
    inner.add_special_tokens(known)


def surround(
    inner: tokenizers.Tokenizer, kind: str, config: dict[str, Any], named: dict[str, Any]
) -> None:
    """What is put around a text: BERT's [CLS] and [SEP], RoBERTa's <s> and </s>, OPT's </s>."""
    if kind == "GPT2Tokenizer":
        first = [str(named["bos"])] if config.get("add_bos_token") else []
        around, second = [*first, "$A"], [*first, "$B"]
    else:
        last = str(named["sep"])
        around = [str(named["cls"]), "$A", last]
        # Only BERT tells a second text apart.
        second = [last, "$B", last] if kind == "RobertaTokenizer" else ["$B:1", f"{last}:1"]
    tokens = [(token, inner.token_to_id(token)) for token in around if token != "$A"]
    for token, found in tokens:
        if found is None:
            raise ValueError(f"its vocabulary has no token {token!r}")
    inner.post_processor = processors.TemplateProcessing(
        single=around, pair=around + second, special_tokens=tokens
    )


def tokenizer_class(folder: Path, config: dict[str, Any]) -> str:
    """The name of the class that the folder's tokenizer is of, in transformers."""
    model = read_if_there(folder / "config.json")
    found = config.get("tokenizer_class") or model.get("tokenizer_class")
    return str(found or CLASSES.get(str(model.get("model_type")), "")).removesuffix("Fast")


def named_tokens(config: dict[str, Any]) -> dict[str, Any]:
    """The special tokens that a file names: name -> token, or None where it says so."""
    found = {}
    for name in SPECIALS:
        if f"{name}_token" in config:
            found[name] = added_token(config[f"{name}_token"])
    return found


def added_token(value: Any) -> AddedToken | str | None:
    """A token as a text, or with the fields that its entry has."""
    if not isinstance(value, dict):
        return value
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(**{name: value[name] for name in fields if name in value})


def chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The template of a conversation; of several, the one called "default"."""
    if (folder / TEMPLATE).is_file():
        return guarded(folder / TEMPLATE, (folder / TEMPLATE).read_text, "utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def save_tokenizer(model: nn.Module, folder: Path) -> None:
    """Write a model's tokenizer as :func:`read_tokenizer` and transformers' AutoTokenizer read it."""
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return
    tokenizer.inner.save(str(folder / WHOLE))
    tokens = {f"{name}_token": token for name, token in tokenizer.specials.items()}
    inputs = ["input_ids", "attention_mask"]
    if getattr(model, "arguments", {}).get("token_types", 0) > 1:
        inputs.insert(1, "token_type_ids")
    config = {
        # Any other class would build its own tokenizer and overlook parts of the file.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.max_tokens or UNLIMITED,
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    for name, content in ((CONFIG, config), (MAP, tokens)):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
