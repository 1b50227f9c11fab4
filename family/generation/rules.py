"""What is made of logits before a token is chosen, by what was written so far."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from family.generation.hooks import LogitsHook
from family.generation.sampling import penalise


class Rules:
    """A repetition penalty, no repeated n-grams, a least length, then a hook: in transformers' order.

    Args:
        penalty: on tokens of prompt and text, see :class:`~family.generation.Sampling`.
        ngram: no so many tokens in a row come twice, the prompt counted; 0 is no limit.
        least: new tokens before one of ``stop_ids`` may come.
        prompt: ``(batch, tokens)``, and its mask.
        hook: the last of them, see :mod:`family.generation.hooks`.
    """

    def __init__(
        self,
        penalty: float = 1.0,
        ngram: int = 0,
        least: int = 0,
        stop_ids: Collection[int] = (),
        prompt: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        hook: LogitsHook | None = None,
    ) -> None:
        self.penalty, self.ngram, self.least, self.hook = penalty, ngram, least, hook
        self.stop_ids = list(stop_ids)
        if prompt is not None and prompt_mask is not None:
            # Flush right, so that the prompt's end stands before the text.
            order = prompt_mask.long().argsort(dim=1, stable=True)
            prompt = prompt.masked_fill(~prompt_mask.bool(), -1).gather(1, order)
        self.prompt = prompt

    def __bool__(self) -> bool:
        """Whether anything is to be done."""
        waits = bool(self.least and self.stop_ids)
        return self.penalty != 1 or self.ngram > 0 or waits or self.hook is not None

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """``(..., vocab)`` of rows or of their branches, whose new tokens are ``(..., tokens)``."""
        if self.penalty != 1 or self.ngram:
            history = tokens.flatten(0, -2)
            if self.prompt is not None:
                branches = len(history) // len(self.prompt)
                history = torch.cat([self.prompt.repeat_interleave(branches, 0), history], dim=1)
            rows = logits.flatten(0, -2)
            if self.penalty != 1:
                rows = penalise(rows, history, self.penalty)
            if self.ngram:
                rows = without_repetition(rows, history, self.ngram)
            logits = rows.view_as(logits)
        if self.stop_ids and tokens.shape[-1] < self.least:
            stops = torch.tensor(self.stop_ids, device=logits.device)
            logits = logits.index_fill(-1, stops, -math.inf)
        return logits if self.hook is None else self.hook(logits, tokens)


def without_repetition(logits: Tensor, history: Tensor, ngram: int) -> Tensor:
    """Rule out tokens that would end an n-gram of the history a second time (Paulus et al. 2018).

    Args:
        logits: ``(rows, vocab)``; history: ``(rows, tokens)``, where -1 is padding.
    """
    length = history.shape[1]
    if length < ngram:
        return logits
    grams = history.unfold(1, ngram, 1)
    same = (grams[..., :-1] == history[:, None, length - ngram + 1 :]).all(-1)
    vocab = logits.shape[1]
    # One column more takes what is not to be ruled out.
    ends = torch.where(same & (grams[..., -1] >= 0), grams[..., -1], vocab)
    banned = torch.zeros(len(logits), vocab + 1, dtype=torch.bool, device=logits.device)
    return logits.masked_fill(banned.scatter_(1, ends, True)[:, :-1], -math.inf)


class StopStrings:
    """Whether a text ends, as one of some strings is complete.

    Args:
        tokenizer: decodes the new tokens.
        strings: those that end a text; none is empty.
    """

    def __init__(self, tokenizer: Any, strings: Sequence[str]) -> None:
        self.tokenizer, self.strings = tokenizer, strings
        # A token shows one byte at least; the first may lose its space.
        self.most = max(len(string.encode()) for string in strings) + 2

    def __call__(self, tokens: Tensor) -> Tensor:
        """``(..., tokens)`` -> ``(...)``, True where the last token completes such a string."""
        rows = tokens[..., -self.most :].flatten(0, -2).tolist()
        texts = [self.tokenizer.decode([token for token in row if token >= 0]) for row in rows]
        found = [any(string in text for string in self.strings) for text in texts]
        return torch.tensor(found, device=tokens.device).view(tokens.shape[:-1])
