"""How likely a language model finds a text behind another: sums of log-probabilities.

What is told apart as context and continuation, and how each is cut into tokens, is as
lm-evaluation-harness has it (``TemplateLM.loglikelihood`` and ``loglikelihood_rolling``), so that scores
are those of the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from family.inference.batches import TEXTS, chunks, device_of
from family.inputs.encode import encode_prompts, pad_rows
from family.models.member import longest_text

Row = tuple[list[int], list[int]]
"""The ids of a context, one at least, and of its continuation."""


class Likelihood(NamedTuple):
    """What a model makes of a continuation."""

    total: float
    """The sum of its tokens' log-probabilities, in nats."""
    tokens: int
    greedy: bool
    """Whether each of them is the likeliest, so that greedy generation would write it."""
    cut: bool
    """Whether some token was judged without the begin of what stands before it."""


class Piece(NamedTuple):
    """Tokens that are read at once: the last ``new`` are judged."""

    row: int
    ids: list[int]
    new: int


def log_likelihoods(
    model: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int = TEXTS,
    parse_special: bool = False,
) -> list[Likelihood]:
    """Of each pair ``(context, continuation)``, how likely the model finds the continuation.

    White space at a context's end belongs to the continuation. An empty context is the token that begins
    a text, or else ends one; of a tokenizer that has neither, the continuation's first token, which is
    then not judged. The rest is as :func:`score` says: with an empty context that is the likelihood of a
    text of any length.

    Args:
        model: a language model with its ``tokenizer``.
        batch_size: texts at a time, those together that are about equally long.
        parse_special: what spells a special token is one, as in a conversation written by a template.

    Raises:
        ValueError: a character that the tokenizer does not know, or a continuation without a token.
    """
    return score(model, encode_pairs(model.tokenizer, pairs, parse_special), batch_size)


def encode_pairs(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], parse_special: bool = False
) -> list[Row]:
    """Contexts and continuations as ids: both are encoded as one text, and where the context's own ids
    end, the continuation's begin.

    Raises:
        ValueError: see :func:`log_likelihoods`.
    """
    split = [(context.rstrip(), context[len(context.rstrip()) :] + text) for context, text in pairs]
    behind = [(context, context + text) for context, text in split if context]
    contexts = iter(begun_once(tokenizer, [context for context, _ in behind], parse_special))
    wholes = iter(begun_once(tokenizer, [whole for _, whole in behind], parse_special))
    alone = [text for context, text in split if not context]
    texts = iter(tokenizer.encode_batch(alone, parse_special=parse_special))
    begin = begin_of(tokenizer)
    rows: list[Row] = []
    for context, text in split:
        if context:
            before = next(contexts)
            row = before, next(wholes)[len(before) :]
        else:
            ids = next(texts)
            if begin is not None and ids[:1] != [begin]:
                ids = [begin, *ids]
            row = ids[:1], ids[1:]
        if not all(row):
            raise ValueError(
                f"the continuation {text!r} has no token of its own behind {context[-20:]!r}."
            )
        rows.append(row)
    return rows


def begin_of(tokenizer: Any) -> int | None:
    """What stands before a text that has no context: the token that begins one, or else ends one."""
    return tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id


def begun_once(tokenizer: Any, prompts: Sequence[str], parse_special: bool) -> list[list[int]]:
    """Prompts as ids; the token that begins a text comes once where a template has written it, too."""
    rows, begin = encode_prompts(tokenizer, prompts, parse_special), tokenizer.bos_id
    return [row[1:] if parse_special and row[:2] == [begin] * 2 else row for row in rows]


def score(model: Any, rows: Sequence[Row], batch_size: int = TEXTS) -> list[Likelihood]:
    """How likely a model finds continuations, in ids.

    Of what is longer than :func:`longest_read` the begin is left out. A continuation that is itself
    longer is judged piece by piece, each as long as can be and behind as much as can be read with it: of a
    text behind one token, these are the windows of ``loglikelihood_rolling``.
    """
    longest = longest_read(model)
    pieces = [piece for i, row in enumerate(rows) for piece in cut_up(i, *row, longest)]
    pieces.sort(key=lambda piece: -len(piece.ids))  # the batch that needs most memory comes first
    totals, greedy = [0.0] * len(rows), [True] * len(rows)
    for some in chunks(pieces, batch_size):
        judged = judge(model, [piece.ids for piece in some], [piece.new for piece in some])
        for piece, (total, likeliest) in zip(some, judged, strict=True):
            totals[piece.row] += total
            greedy[piece.row] &= likeliest
    cut = [longest is not None and len(one) + len(two) - 1 > longest for one, two in rows]
    counts = [len(continuation) for _, continuation in rows]
    return list(map(Likelihood, totals, counts, greedy, cut))


def longest_read(model: Any) -> int | None:
    """How many tokens a model is shown at most: what it can read or, where it says so, what it was trained
    on, as positions further on say nothing that was learnt. None is any number."""
    limits = (longest_text(model), getattr(model, "trained_tokens", None))
    found = [int(limit) for limit in limits if limit is not None and limit < float("inf")]
    return min(found, default=None)


def cut_up(
    row: int, context: list[int], continuation: list[int], longest: int | None
) -> Iterator[Piece]:
    """The pieces in which a continuation is judged; the last token of each is not read."""
    if longest is None:
        yield Piece(row, context + continuation, len(continuation))
        return
    for start in range(0, len(continuation), longest):
        new = continuation[start : start + longest]
        yield Piece(row, [*context, *continuation[:start], *new][-longest - 1 :], len(new))


@torch.no_grad()
def judge(model: Any, rows: Sequence[list[int]], counts: Sequence[int]) -> list[tuple[float, bool]]:
    """Of the last ``counts`` tokens of rows of ids, the sum of log-probabilities, and whether each is the
    likeliest."""
    padded = pad_rows([row[:-1] for row in rows], -1).to(device_of(model))
    mask = padded >= 0
    left = mask.flip(1).cumsum(1).flip(1)  # tokens from here on
    where = mask & (left <= torch.tensor(counts, device=mask.device)[:, None])
    input_ids = padded.masked_fill(~mask, model.tokenizer.pad_id or 0)
    logits = next_logits(model, where, input_ids, None if bool(mask.all()) else mask)
    judged = [token for row, count in zip(rows, counts, strict=True) for token in row[-count:]]
    targets = torch.tensor(judged, device=logits.device)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    found = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
    hits = (logits.argmax(1) == targets).cpu().split(list(counts))
    # In double on the processor: not every accelerator has it.
    sums = [part.sum().item() for part in found.cpu().double().split(list(counts))]
    return [(total, bool(hit.all())) for total, hit in zip(sums, hits, strict=True)]


def next_logits(model: Any, where: Tensor, input_ids: Tensor, mask: Tensor | None) -> Tensor:
    """Logits ``(places, vocab)`` of the token after each of some places ``(batch, tokens)``; the head is
    computed there alone, where the model has ``features`` and ``logits``."""
    if hasattr(model, "features") and hasattr(model, "logits"):
        return model.logits(model.features(input_ids, mask)[where])
    return model(input_ids, mask)[where]
