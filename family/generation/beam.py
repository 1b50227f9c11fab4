"""Beam search, all sentences of a batch at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from family.generation.generate import Decodes
from family.generation.hooks import LogitsHook
from family.generation.rules import Rules


def beam_search(
    model: Decodes, inputs: tuple[Any, ...], *, beams: int, max_new_tokens: int, **options: Any
) -> tuple[Tensor, Tensor]:
    """The best hypothesis of each row, or several: see :func:`search`, whose options it takes."""
    found = search(model, inputs, beams=beams, max_new_tokens=max_new_tokens, **options)
    # Outside of inference mode: they may be trained on.
    return found[0].clone(), found[1].clone()


@torch.inference_mode()
def search(
    model: Decodes,
    inputs: tuple[Any, ...],
    *,
    beams: int,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    length_penalty: float = 1.0,
    pad_id: int = 0,
    hook: LogitsHook | None = None,
    num: int = 1,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    min_new_tokens: int = 0,
    ends: Callable[[Tensor], Tensor] | None = None,
    prompt: Tensor | None = None,
    prompt_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The best hypothesis of each row, or the ``num`` best.

    Hypotheses compare by ``log-probability / length ** length_penalty``, length counting the stop
    token. A row is done once it has ``beams`` finished hypotheses, as transformers'
    ``early_stopping=True``. There too hook, penalty and the like change log-probabilities, which then
    count as they are: those of tokens that are ruled out are shared out among no others.

    Args:
        num: hypotheses of each row, at most ``beams``.
        repetition_penalty, no_repeat_ngram, min_new_tokens, ends, prompt, prompt_mask: as in
            :func:`~family.generation.generate.stream`.

    Returns:
        tokens ``(batch * num, length)``, those of a row one after another and best first, without the
        stop token, padded; scores ``(batch * num)``.
    """
    rules = Rules(
        repetition_penalty, no_repeat_ngram, min_new_tokens, stop_ids, prompt, prompt_mask, hook
    )
    logits, cache = model.prefill(*inputs, capacity=max_new_tokens, branches=beams)
    cache.branch(beams)
    rows, device = len(logits), logits.device
    logits = logits[:, None].repeat(1, beams, 1)
    stops = torch.tensor(list(stop_ids), dtype=torch.long, device=device)
    # All beams of a row start alike: only the first may branch at first.
    scores = torch.full((rows, beams), -math.inf, device=device)
    scores[:, 0] = 0
    alive = torch.empty(rows, beams, 0, dtype=torch.long, device=device)
    best = Finished(rows, beams, max_new_tokens, pad_id, device)
    for step in range(1, max_new_tokens + 1):
        # Twice as many as beams: even if half of them stop, every beam goes on.
        if rules:
            logits = rules(logits.float().log_softmax(-1), alive)
        total, beam, token = candidates(logits, scores, 2 * beams, normalised=bool(rules))
        stopped = torch.isin(token, stops)
        histories = torch.cat([alive.gather(1, expand(beam, alive)), token[..., None]], dim=2)
        # A stop counts only among the best `beams`, so that search does not end on poor ones.
        first = torch.arange(token.shape[1], device=device) < beams
        final = total / step**length_penalty
        best.add(histories[..., :-1], final.masked_fill(~(stopped & first), -math.inf))
        if ends is not None:  # such strings are part of the text
            complete = ends(histories) & ~stopped
            best.add(histories, final.masked_fill(~(complete & first), -math.inf))
            stopped = stopped | complete
        scores, keep = total.masked_fill(stopped, -math.inf).topk(beams, dim=1)
        alive = histories.gather(1, expand(keep, histories))
        if step == max_new_tokens or bool(best.full.all()):
            break
        cache.reorder(beam.gather(1, keep))
        logits = model.decode(alive[..., -1], cache)
    # What never stopped competes as it stands.
    best.add(alive, scores / alive.shape[2] ** length_penalty)
    tokens = best.tokens[:, :num, : int(best.length[:, :num].max())]
    return tokens.flatten(0, 1), best.scores[:, :num].flatten()


def candidates(
    logits: Tensor, scores: Tensor, count: int, normalised: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` best continuations of each row: total log-probability, beam and token.

    Args:
        logits: ``(rows, beams, vocab)``, overwritten; scores: ``(rows, beams)``.
        normalised: the logits are log-probabilities already.
    """
    count = min(count, logits.shape[1] * logits.shape[2])
    # Best of each beam first: a sort of beams * count in place of beams * vocab numbers.
    logits = logits.float()
    top, token = largest(logits, min(count, logits.shape[2]))
    if not normalised:
        best = top[..., :1]
        # In place, as memory for another table of this size costs more than the sums.
        normaliser = logits.sub_(best).exp_().sum(2, keepdim=True).log_()
        top = top - best - normaliser
    total = top + scores[..., None]
    total, place = total.flatten(1).topk(count, dim=1)
    beam = place.div(top.shape[2], rounding_mode="floor")
    return total, beam, token.flatten(1).gather(1, place)


def largest(x: Tensor, count: int, size: int = 128) -> tuple[Tensor, Tensor]:
    """``topk`` over the last dimension; of long rows only the best pieces of ``size`` are searched.

    The ``count`` largest numbers lie in the ``count`` pieces with the largest maxima.
    """
    whole = x.shape[-1] // size * size
    if whole < 2 * count * size:
        return x.topk(count, dim=-1)
    pieces = x[..., :whole].unflatten(-1, (-1, size))
    best = pieces.amax(-1).topk(count, dim=-1).indices
    inside = pieces.gather(-2, best[..., None].expand(*best.shape, size)).flatten(-2)
    values, place = torch.cat([inside, x[..., whole:]], dim=-1).topk(count, dim=-1)
    offset = best.gather(-1, (place // size).clamp(max=count - 1)) * size + place % size
    return values, torch.where(place < count * size, offset, place - count * size + whole)


def expand(index: Tensor, like: Tensor) -> Tensor:
    """``(rows, n)`` to ``(rows, n, tokens)``, to gather whole histories."""
    return index[..., None].expand(-1, -1, like.shape[2])


class Finished:
    """The best ``beams`` finished hypotheses of each row, best first, in tensors."""

    def __init__(
        self, rows: int, beams: int, max_tokens: int, pad_id: int, device: torch.device
    ) -> None:
        self.pad_id = pad_id
        self.scores = torch.full((rows, beams), -math.inf, device=device)
        self.tokens = torch.full((rows, beams, max_tokens), pad_id, device=device)
        self.length = torch.zeros(rows, beams, dtype=torch.long, device=device)

    @property
    def full(self) -> Tensor:
        """``(rows)``: has as many hypotheses as beams, and takes no more."""
        return (self.scores > -math.inf).all(1)

    def add(self, tokens: Tensor, scores: Tensor) -> None:
        """Offer ``(rows, n, tokens)`` with ``(rows, n)`` scores, -inf where there is none."""
        length = tokens.shape[2]
        room = self.tokens.shape[2] - length
        pad = self.tokens.new_full((*tokens.shape[:2], room), self.pad_id)
        scores = scores.masked_fill(self.full[:, None], -math.inf)
        all_scores = torch.cat([self.scores, scores], dim=1)
        all_tokens = torch.cat([self.tokens, torch.cat([tokens, pad], dim=2)], dim=1)
        lengths = self.length.new_full(scores.shape, length)
        all_lengths = torch.cat([self.length, lengths], dim=1)
        self.scores, keep = all_scores.topk(self.scores.shape[1], dim=1)
        self.tokens = all_tokens.gather(1, expand(keep, all_tokens))
        self.length = all_lengths.gather(1, keep)
