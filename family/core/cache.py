"""Preallocated keys and values, so that decoding computes each token once."""

from __future__ import annotations

import torch
from torch import Tensor


class Progress:
    """How many columns of the buffers are filled; all layers share one."""

    def __init__(self, device: torch.device) -> None:
        self.length = 0
        self.filled = torch.zeros((), dtype=torch.long, device=device)

    @property
    def column(self) -> Tensor | int:
        """The column to be written next; a tensor in a compiled step, so that none recompiles."""
        return self.filled if torch.compiler.is_compiling() else self.length


class LayerCache:
    """One layer's keys and values ``(batch, kv_heads, capacity, head_dim)``.

    ``context`` holds the keys and values of cross-attention, projected once.
    """

    def __init__(self, keys: Tensor, values: Tensor, progress: Progress) -> None:
        self.keys, self.values, self.progress = keys, values, progress
        self.context: tuple[Tensor, Tensor] | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values ``(batch, kv_heads, tokens, head_dim)``; return all so far.

        Compiled, "all" is the whole buffer, so that shapes stay the same at each step.
        """
        start, tokens = self.progress.column, keys.shape[2]
        if isinstance(start, Tensor):
            columns = start + torch.arange(tokens, device=keys.device)
            self.keys.index_copy_(2, columns, keys)
            self.values.index_copy_(2, columns, values)
            return self.keys, self.values
        end = start + tokens
        # narrow, as slices take twice as long, and this runs for every layer and token.
        self.keys.narrow(2, start, tokens).copy_(keys)
        self.values.narrow(2, start, tokens).copy_(values)
        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)


class Cache:
    """The caches of all layers of a stack.

    Rows of a batch share the column that is written next; ``mask`` marks the columns that hold a
    token, so that prompts of unequal length stand flush right, padded at the left.

    Args:
        layers: one :class:`LayerCache` a block, all with one :class:`Progress`.
    """

    def __init__(self, layers: list[LayerCache]) -> None:
        self.layers = layers
        self.progress = layers[0].progress
        self.mask: Tensor | None = None
        """``(batch, capacity)``, True = holds a token or will; None = every column does."""
        self.context_mask: Tensor | None = None
        """``(batch, context tokens)`` for cross-attention."""
        self.seen: Tensor | None = None
        """``(batch, branches, capacity)``: the columns that each branch may attend to."""
        self.places: Tensor | None = None
        """``(batch, capacity)``: the position of each column, where there are branches."""

    @property
    def capacity(self) -> int:
        return self.layers[0].keys.shape[2]

    def width(self, tokens: int) -> int:
        """How many keys a step of so many tokens sees, as :meth:`LayerCache.append` returns them."""
        compiled = torch.compiler.is_compiling()
        return self.capacity if compiled else self.progress.length + tokens

    def pad(self, mask: Tensor) -> None:
        """Say which columns of the prompt ``(batch, tokens)`` are tokens, before it is written."""
        later = mask.new_ones(len(mask), self.capacity - mask.shape[1])
        self.mask = torch.cat([mask, later], dim=1)

    def positions(self, first: Tensor | int, count: int) -> Tensor:
        """Positions of ``count`` columns from ``first`` on, left padding not counted.

        Returns:
            ``(count)``, or ``(batch, count)`` where rows are padded.
        """
        if self.places is not None:
            return self.places[:, first : first + count]
        columns = first + torch.arange(count, device=self.progress.filled.device)
        if self.mask is None:
            return columns
        return (columns - (~self.mask).sum(1, keepdim=True)).clamp(min=0)

    def advance(self, tokens: int) -> None:
        """Count tokens as written, after all layers have appended them."""
        self.progress.length += tokens
        self.progress.filled += tokens

    def branch(self, count: int) -> None:
        """From here on each row goes on in ``count`` ways (beams), which share what was read so far.

        A step then reads one token of every branch, in columns side by side. Nothing is copied when
        a branch forks or ends: :meth:`follow` only changes what it sees.
        """
        rows, length = len(self.layers[0].keys), self.progress.length
        device = self.progress.filled.device
        self.seen = torch.zeros(rows, count, self.capacity, dtype=torch.bool, device=device)
        self.seen[:, :, :length] = True if self.mask is None else self.mask[:, None, :length]
        places = self.positions(0, length)
        self.places = torch.zeros(rows, self.capacity, dtype=torch.long, device=device)
        self.places[:, :length] = places

    def visible(self, keys: int, window: int | None) -> Tensor:
        """What branches that read one token each, in the columns to come, may attend to.

        Returns:
            ``(batch, branches, keys)``.
        """
        assert self.seen is not None and self.places is not None
        seen = self.seen[:, :, :keys]
        if window is None or keys <= window:
            return seen
        own = self.positions(self.progress.length, seen.shape[1])
        return seen & (self.places[:, None, :keys] > own[..., None] - window)

    def follow(self, parents: Tensor) -> None:
        """Branch ``i`` goes on from what branch ``parents[:, i]`` has seen, with a column of its own."""
        assert self.seen is not None and self.places is not None
        first, count = self.progress.length, parents.shape[1]
        self.seen = self.seen.gather(1, parents[..., None].expand(-1, -1, self.capacity))
        self.seen.narrow(2, first, count).diagonal(dim1=1, dim2=2).fill_(True)
        self.places.narrow(1, first, count).copy_(self.seen.sum(-1) - 1)
