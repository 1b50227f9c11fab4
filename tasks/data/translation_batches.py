"""Sentences and their translations as ids, with tokens of languages where there are any."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from family.inputs.encode import encode_sources, pad_rows
from family.losses.language_model import IGNORE
from family.models.languages import LanguageTokens
from tasks.data.directions import Direction, Row
from tasks.data.tokenizers import Tokenizer
from tasks.errors import UserError, user_errors

log = logging.getLogger(__name__)
Batch = dict[str, Any]


class Example(NamedTuple):
    """Ids of a source, with what stands around it, and of a target; their texts; their line; of several
    languages the direction; and the code of what is translated into, where it has a token."""

    source: list[int]
    target: list[int]
    texts: tuple[str, str]
    line: int
    direction: Direction | None = None
    language: str = ""


def encoded(
    rows: Sequence[Row],
    source: Tokenizer,
    target: Tokenizer,
    languages: LanguageTokens | None,
    usual: Direction,
) -> list[Example]:
    """Rows as ids, with the tokens of their languages.

    Args:
        usual: the direction of rows that name none.
    """
    found = []
    for direction, same in groupby(rows, key=lambda row: row.direction):
        some = list(same)
        texts, code, first = [row.source for row in some], "", list[int]()
        if languages is None:
            ids = encode_sources(source, texts)
        else:
            here, code = codes(languages, direction or usual)
            ids, first = languages.sources(source, texts, here, code), languages.first(code)
        targets = target.encode_batch([row.target for row in some])
        for row, left, right in zip(some, ids, targets, strict=True):
            said = row.source, row.target
            found.append(Example(left, [*first, *right], said, row.line, direction, code))
    return found


@user_errors()
def codes(languages: LanguageTokens, direction: Direction) -> tuple[str, str]:
    """What a model calls the languages of a direction; a source of which it reads no token goes by its own
    name, if it has no other.

    Raises:
        UserError: it does not know one.
    """
    source, target = direction
    read = languages.source != "none" or languages.knows(source)
    return languages.find(source) if read else source, languages.find(target)


def length(example: Example) -> int:
    """Tokens of the longer side, ends included."""
    return max(len(example[0]), len(example[1]) + 1)


def short_enough(examples: list[Example], max_tokens: int) -> list[Example]:
    """The training pairs that are no longer than this.

    Raises:
        UserError: there are none.
    """
    kept = [example for example in examples if length(example) <= max_tokens]
    if not kept:
        raise UserError(
            f"data.max_tokens={max_tokens} leaves none of {len(examples)} training pairs: the shortest "
            f"needs {min(map(length, examples))}."
        )
    if len(kept) < len(examples):
        log.warning(
            "%d of %d training pairs are longer than max_tokens=%d and left out.",
            len(examples) - len(kept),
            len(examples),
            max_tokens,
        )
    return kept


def collate(
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    examples: Sequence[Example],
    start_id: int | None = None,
    languages: LanguageTokens | None = None,
) -> Batch:
    """A batch of :class:`TranslationData`; ``start_id`` stands in the place of ``<bos>``, if given."""
    pad, eos = target_tokenizer.pad_id, target_tokenizer.eos_id
    start = target_tokenizer.bos_id if start_id is None else start_id
    assert pad is not None and eos is not None and start is not None
    assert source_tokenizer.pad_id is not None
    source = pad_rows([e[0] for e in examples], -1)
    mask = source >= 0
    batch = {
        "source": source.masked_fill(~mask, source_tokenizer.pad_id),
        "source_mask": mask,
        "target": pad_rows([[start, *e[1]] for e in examples], pad),
        "labels": pad_rows([[*e[1], eos] for e in examples], IGNORE),
        "source_text": [e[2][0] for e in examples],
        "target_text": [e[2][1] for e in examples],
        "line": [e[3] for e in examples],
    }
    return batch if languages is None else with_languages(batch, examples, languages)


def with_languages(batch: Batch, examples: Sequence[Example], languages: LanguageTokens) -> Batch:
    """The same with what their languages say."""
    codes = [example.language for example in examples]
    for row, code in enumerate(codes):
        start = languages.start(code)
        if start is not None:
            batch["target"][row, 0] = start
    if languages.target == "first" and not languages.learnt:
        batch["labels"][:, 0] = IGNORE
    batch["target_language"] = codes
    if examples[0].direction is not None:
        batch["direction"] = [str(example.direction) for example in examples]
    return batch
