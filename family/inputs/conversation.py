"""Conversations as a model learns from them: which tokens the assistant says, and where answers begin."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from family.inputs.encode import encode_prompt
from family.inputs.plain_text import unwritable
from family.inputs.tokenizer import Message, Tokenizer

BLOCK = re.compile(r"\{%[-+]?\s*generation\b")
"""What begins the assistant's words in a template that marks them."""


class Marked(NamedTuple):
    """A conversation as a model reads it."""

    ids: list[int]
    said: list[bool]
    """Of each token, whether the assistant says it, the end of its turn included."""


def marks_answers(tokenizer: Tokenizer) -> bool:
    """Whether the chat template itself says what the assistant's words are."""
    return BLOCK.search(tokenizer.chat_template or "") is not None


def mark_answers(
    tokenizer: Tokenizer, messages: Sequence[Message], written: Collection[str] = ()
) -> Marked:
    """A conversation as ids, with what its assistant says: by the template's ``{% generation %}``, as
    transformers has it; of one without these, what the conversation up to an answer has more than that
    up to the question before it (their longest common prefix).

    Args:
        written: special tokens that are such in what is said, too.

    Raises:
        ValueError: no template, or one that is broken or refuses the conversation.
    """
    found = by_marks if marks_answers(tokenizer) else by_prefixes
    ids, said = found(tokenizer, messages, written)
    stops = tokenizer.stop_ids()
    for i in range(1, len(ids)):  # also where the mark ends before it
        if said[i - 1] and ids[i - 1] not in stops and ids[i] in stops:
            said[i] = True
    return Marked(ids, said)


def by_marks(
    tokenizer: Tokenizer, messages: Sequence[Message], written: Collection[str] = ()
) -> tuple[list[int], list[bool]]:
    """See :func:`mark_answers`."""
    begin, end = unwritable(("begin", "end")).values()
    text, encode = tokenizer.chat_text(
        messages, False, written, generation_begin=begin, generation_end=end
    )
    bare, spans = "", list[tuple[int, int]]()
    for i, piece in enumerate(text.replace(end, begin).split(begin)):
        if i % 2:
            spans.append((len(bare), len(bare) + len(piece)))
        bare += piece
    encoding = encode(bare)
    said, before = list[bool](), 0
    for first, last in encoding.offsets:
        place = before if first == last else first  # of spaces alone some tokenizers give their end
        said.append(any(a <= place < b for a, b in spans))
        before = last
    return tokenizer.ids_of(encoding), said


def by_prefixes(
    tokenizer: Tokenizer, messages: Sequence[Message], written: Collection[str] = ()
) -> tuple[list[int], list[bool]]:
    """See :func:`mark_answers`; nothing behind the end of a turn counts."""
    ids = tokenizer.chat_ids(messages, False, written)
    said, stops = [False] * len(ids), tokenizer.stop_ids()
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        first = common(tokenizer.chat_ids(messages[:i], True, written), ids)
        last = common(tokenizer.chat_ids(messages[: i + 1], False, written), ids)
        ends = [place for place in range(first, last) if ids[place] in stops]
        last = ends[-1] + 1 if ends else last
        said[first:last] = [True] * (last - first)
    return ids, said


def common(one: Sequence[int], two: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))


def prompt_ids(
    tokenizer: Tokenizer, prompt: str | Sequence[Message], written: Collection[str] = ()
) -> list[int]:
    """What stands before an answer: a text's begin, or a conversation up to where its assistant answers.

    Raises:
        ValueError: see :meth:`~family.inputs.tokenizer.Tokenizer.chat_ids`.
    """
    if isinstance(prompt, str):
        return encode_prompt(tokenizer, prompt)
    return tokenizer.chat_ids(prompt, True, written)


def answer_ids(tokenizer: Tokenizer, prompt: str | Sequence[Message], answer: str) -> list[int]:
    """An answer and its end, cut by itself, so that no token reaches over the border to the prompt: as
    the model itself would write it.

    Raises:
        ValueError: a character that the tokenizer does not know.
    """
    end = tokenizer.eos_id if isinstance(prompt, str) else tokenizer.turn_end()
    end = tokenizer.eos_id if end is None else end
    return [*tokenizer.encode(answer), *(() if end is None else (end,))]


def answered_ids(
    tokenizer: Tokenizer,
    prompt: str | Sequence[Message],
    answers: Sequence[str],
    max_tokens: int | None = None,
) -> tuple[int, list[list[int]]]:
    """A prompt with each of its answers: how many tokens the prompt has, and the rows; of one that is too
    long the end is cut off.

    Raises:
        ValueError: see :func:`prompt_ids` and :func:`answer_ids`; a prompt that is empty, or that leaves no
            room for an answer.
    """
    before = prompt_ids(tokenizer, prompt)
    if not before:
        raise ValueError("the prompt is empty: it needs one token at least.")
    if max_tokens is not None and len(before) >= max_tokens:
        raise ValueError(
            f"the prompt has {len(before)} tokens, which leaves no room for an answer in {max_tokens}."
        )
    rows = [[*before, *answer_ids(tokenizer, prompt, answer)][:max_tokens] for answer in answers]
    return len(before), rows
