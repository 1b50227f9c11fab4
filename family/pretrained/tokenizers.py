"""A tokenizer by itself, from wherever one lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import tokenizers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from family.inputs.tokenizer import SPECIALS, Tokenizer
from family.pretrained import gguf, runs
from family.pretrained.sources import HUB_ID
from family.pretrained.text import WHOLE, read_tokenizer
from family.pretrained.text_files import guarded

HUB_FILES = ["*.json", "*.txt", "*.model", "*.spm", "*.jinja"]
USUAL = {
    "pad": ("<pad>", "[PAD]"),
    "bos": ("<bos>", "<s>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("<eos>", "</s>", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
"""What special tokens are called, where no file beside a ``tokenizer.json`` says which is which."""


def find_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a source; of weights nothing is read or fetched.

    Args:
        source: a ``tokenizer.json`` (what its special tokens are for is read from the files beside it, or
            else told from their usual names), a folder with a tokenizer, a ``.ckpt`` file or a run's
            folder, a GGUF file, or the id of a repository on the hub.

    Raises:
        ValueError: one sentence: no such source, none with a tokenizer, or files that are broken.
    """
    path, found = Path(source), None
    if runs.is_run(source):
        found = runs.tokenizer_of(runs.open_run(source).assets)
    elif path.is_dir():
        found = read_tokenizer(path)
    elif path.is_file() and path.suffix == ".json":
        beside = read_tokenizer(path.parent) if path.name == WHOLE else None
        return beside if beside is not None and beside.specials else read_file(path)
    elif path.is_file():
        file = gguf.find_gguf(path)
        found = None if file is None else gguf.published(file).tokenizer
    else:
        found = read_tokenizer(fetched(source))
    if found is None:
        raise ValueError(f"{source} holds no tokenizer.")
    return found


def read_file(file: Path) -> Tokenizer:
    """A file of the ``tokenizers`` library, without others beside it."""
    inner = guarded(file, tokenizers.Tokenizer.from_file, str(file))
    special = {t.content for t in inner.get_added_tokens_decoder().values() if t.special}
    names: dict[str, Any] = {
        name: next((token for token in USUAL[name] if token in special), None) for name in SPECIALS
    }
    return Tokenizer(inner, **names)


def fetched(source: str) -> Path:
    """The folder of a repository's tokenizer in the local cache."""
    if not HUB_ID.fullmatch(source):
        raise ValueError(f"{source} does not exist, and is no id of a repository on the hub.")
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{source} is no file or folder here, and could not be had from the hub: {reason}"
        ) from None
