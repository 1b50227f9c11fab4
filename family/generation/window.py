"""A text that grows beyond what a model was trained on: the model reads its end alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from family.generation.generate import Decodes


class Text:
    """The last tokens of each text, and a cache while the whole of it is read.

    Args:
        ids: ``(batch, branches, tokens)``, padding at the left.
        mask: ``(batch, tokens)``, True = a token; None = all are.
        cache: the model's own; None once a text is as long as the window.
    """

    def __init__(self, ids: Tensor, mask: Tensor | None, cache: Any) -> None:
        self.ids, self.mask, self.cache = ids, mask, cache

    def branch(self, count: int) -> None:
        self.ids = self.ids.expand(-1, count, -1)
        if self.cache is not None:
            self.cache.branch(count)

    def reorder(self, parents: Tensor) -> None:
        self.ids = self.ids.gather(1, parents[..., None].expand(-1, -1, self.ids.shape[2]))
        if self.cache is not None:
            self.cache.reorder(parents)


class Windowed:
    """A language model that reads no more than the last tokens of a text.

    The text is cropped anew for each token, and each token of it is at the position where training had
    it: what comes is what the model says of the cropped text by itself. A step past the window costs as
    much as a prompt of so many tokens.

    Args:
        model: its ``prefill`` takes ``(input_ids, mask)``, both ``(batch, tokens)``.
        window: so many tokens are read.
    """

    def __init__(self, model: Decodes, window: int) -> None:
        self.model, self.window = model, window

    def prefill(
        self, input_ids: Tensor, mask: Tensor | None = None, *, capacity: int, branches: int = 1
    ) -> tuple[Tensor, Text]:
        """As the model's, of the end of the prompt; the cache has no more room than the window."""
        if mask is not None:  # flush right, so that a crop leaves no text without its end
            order = mask.long().argsort(dim=1, stable=True)
            input_ids, mask = input_ids.gather(1, order), mask.gather(1, order)
            mask = mask[:, -self.window :]
        input_ids = input_ids[:, -self.window :]
        room = min(capacity, self.window - input_ids.shape[1])
        logits, cache = self.model.prefill(input_ids, mask, capacity=room, branches=branches)
        return logits, Text(input_ids[:, None], mask, cache if room else None)

    def decode(self, tokens: Tensor, cache: Text) -> Tensor:
        """As the model's; past the window it reads the end of the text, without a cache."""
        rows, branches = len(tokens), cache.ids.shape[1]
        new = tokens.view(rows, branches, 1)
        cache.ids = torch.cat([cache.ids, new], dim=2)[..., -self.window :]
        if cache.mask is not None:
            seen = cache.mask.new_ones(rows, 1)
            cache.mask = torch.cat([cache.mask, seen], dim=1)[:, -self.window :]
        if cache.cache is not None:
            logits = self.model.decode(tokens, cache.cache)
            if cache.ids.shape[2] == self.window:
                cache.cache = None
            return logits
        mask = None if cache.mask is None else cache.mask.repeat_interleave(branches, 0)
        logits, _ = self.model.prefill(cache.ids.flatten(0, 1), mask, capacity=0)
        return logits.view(*tokens.shape, -1)


def read_to(model: Any, tokens: int) -> int | None:
    """How many tokens of its end a model reads, by its ``trained_tokens``, while a text grows to so many;
    None is all of it."""
    window: int | None = getattr(model, "trained_tokens", None)
    # The last token is not read.
    return None if window is None or tokens - 1 <= window else window


def windowed(model: Decodes, begun: int, new: int, room: float) -> Decodes:
    """The model, or one that reads the end of a text alone, where the text outgrows what it was trained
    on.

    Raises:
        ValueError: more new tokens than there is room for.
    """
    window = read_to(model, begun + new)
    if window is None:
        return model
    if new > room:
        raise ValueError(
            f"a prompt of {begun} tokens and {new} new ones do not fit the context of "
            f"{int(begun + room)} tokens."
        )
    return Windowed(model, window)
