"""What decoding remembers, so that each token is computed once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Progress:
    """How many columns have been read, of ``capacity``; all layers share one. Where rows go on in several
    ways, a step reads ``branches`` columns. Of the last ones so many as are to ``spare`` may be taken back:
    rings keep as many columns more than their windows."""

    def __init__(self, capacity: int, branches: int, device: torch.device, spare: int = 0) -> None:
        self.capacity, self.branches, self.length, self.spare = capacity, branches, 0, spare
        self.static = False  # in a compiled step: shapes and columns do not depend on the length
        self.there: Tensor | None = None
        """As long as the text: what a compiled step reads, where it is not all that there is room for."""
        self.filled = torch.zeros((), dtype=torch.long, device=device)

    @property
    def column(self) -> Tensor | int:
        """The column to be written next; a tensor in a compiled step, so that none recompiles."""
        return self.filled if self.static else self.length

    def read(self, size: int) -> int:
        """How many of a layer's ``size`` columns are read: in a compiled step maybe those alone that there are."""
        return size if self.there is None or not self.static else min(len(self.there), size)


class KeyValues:
    """Keys and values of one layer, ``(batch, kv_heads, size, head_dim)``. Under a window that is less than
    the capacity they are a ring: a new column takes the place of one that no later token sees. Branches
    share all columns; the :class:`Cache` knows which of them each one sees."""

    def __init__(
        self, like: Tensor, shape: tuple[int, int, int], window: int | None, progress: Progress
    ) -> None:
        batch, kv_heads, head_dim = shape
        self.progress = progress
        self.most = None if window is None else window * progress.branches + progress.spare
        self.size = self._size()
        # Not like.new_zeros: of a weight that is shared out, that would be shared out too.
        shape4 = batch, kv_heads, self.size, head_dim
        self.keys = torch.zeros(shape4, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)

    def _size(self) -> int:
        capacity = self.progress.capacity
        return capacity if self.most is None else min(capacity, self.most)

    def grow(self) -> None:
        """Make room for as many columns as there are to be; of a ring that is not yet whole, too."""
        old, size = self.size, self._size()
        if size > old:
            self.size = size
            self.keys = F.pad(self.keys, (0, 0, 0, size - old))
            self.values = F.pad(self.values, (0, 0, 0, size - old))

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values ``(batch, kv_heads, tokens, head_dim)``; return all that they may
        attend to, in the columns that :meth:`columns` tells.

        In a compiled step, that is the whole buffer, so that shapes stay the same, or as ``progress.there`` says.
        """
        start, tokens = self.progress.column, keys.shape[2]
        keys, values = keys.to(self.keys.dtype), values.to(self.values.dtype)  # under autocast
        if isinstance(start, Tensor):
            places = (start + torch.arange(tokens, device=keys.device)) % self.size
            self.keys.index_copy_(2, places, keys)
            self.values.index_copy_(2, places, values)
            count = self.progress.read(self.size)
            return self.keys[:, :, :count], self.values[:, :, :count]
        end = start + tokens
        if end <= self.size:
            # narrow, as slices take twice as long, and this runs for every layer and token.
            self.keys.narrow(2, start, tokens).copy_(keys)
            self.values.narrow(2, start, tokens).copy_(values)
            return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)
        if tokens > self.progress.branches:  # the first of them see what the last will overwrite
            held = min(start, self.size)
            seen_keys = torch.cat([self.keys.narrow(2, 0, held), keys], dim=2)
            seen_values = torch.cat([self.values.narrow(2, 0, held), values], dim=2)
        else:
            seen_keys, seen_values = self.keys, self.values
        last = min(tokens, self.size)
        places = torch.arange(end - last, end, device=keys.device) % self.size
        self.keys.index_copy_(2, places, keys.narrow(2, tokens - last, last))
        self.values.index_copy_(2, places, values.narrow(2, tokens - last, last))
        return seen_keys, seen_values

    def columns(self, tokens: int) -> Tensor:
        """The columns ``(keys)`` of what :meth:`append` returns; negative where nothing stands yet."""
        start, device = self.progress.column, self.keys.device
        places = torch.arange(self.progress.read(self.size), device=device)
        if isinstance(start, int):
            if start + tokens <= self.size:
                return places[: start + tokens]
            if tokens > self.progress.branches:
                held = places[: min(start, self.size)]
                held = start - 1 - (start - 1 - held) % self.size
                return torch.cat([held, torch.arange(start, start + tokens, device=device)])
        last = start + tokens - 1
        return last - (last - places) % self.size


class Projected:
    """Keys and values of cross-attention, projected once; they stay for all branches."""

    pair: tuple[Tensor, Tensor] | None = None


class BlockState(NamedTuple):
    """What one block remembers, of its mixer and of its cross-attention. A mixer's may be any object whose
    ``branch(count)`` lets each row go on in so many ways, and ``reorder(parents)``, ``(batch, branches)``,
    says from which of them each does."""

    mixer: Any
    context: Projected


class Cache:
    """The states of all blocks of a stack.

    Rows of a batch share the column that is written next; ``mask`` marks the columns that hold a
    token, so that prompts of unequal length stand flush right, padded at the left.
    """

    def __init__(self, layers: list[BlockState], progress: Progress, rows: int) -> None:
        self.layers, self.progress, self.rows = layers, progress, rows
        self.mask: Tensor | None = None
        """``(batch, capacity)``, True = holds a token or will; None = every column does."""
        self.context_mask: Tensor | None = None
        """``(batch, context tokens)`` for cross-attention."""
        self.seen: Tensor | None = None
        """``(batch, branches, capacity)``: the columns that each branch may attend to."""
        self.branch_positions: Tensor | None = None
        """``(batch, capacity)``: the position of each column, where there are branches."""
        self.ids: Tensor | None = None
        """``(batch, columns)``: what was read, for a member that may have to read it anew."""
        self.vectors: Any = None  # what stands in the place of some of them

    @property
    def fresh(self) -> bool:
        """Whether nothing has been read yet."""
        return not self.progress.static and self.progress.length == 0

    def pad(self, mask: Tensor) -> None:
        """Say which columns of the prompt ``(batch, tokens)`` are tokens, before it is written."""
        self.mask = mask.new_ones(len(mask), self.progress.capacity)
        self.mask[:, : mask.shape[1]] = mask

    def next_positions(self, count: int) -> Tensor:
        """Positions of the next ``count`` columns; see :meth:`positions`."""
        columns = torch.arange(count, device=self.progress.filled.device)
        return self.positions(self.progress.column + columns)

    def positions(self, columns: Tensor) -> Tensor:
        """Positions of columns, left padding not counted: ``(columns)``, or ``(batch, columns)`` where
        rows differ."""
        if self.branch_positions is not None:
            return self.branch_positions[:, columns]
        if self.mask is None:
            return columns
        return (columns - (~self.mask).sum(1, keepdim=True)).clamp(min=0)

    def advance(self, tokens: int) -> None:
        """Count tokens as written, after all layers have appended them."""
        self.progress.length += tokens
        self.progress.filled += tokens

    def grow(self, capacity: int) -> None:
        """Make room for more columns, where each row goes on in one way."""
        if self.mask is not None:
            self.mask = F.pad(self.mask, (0, capacity - self.progress.capacity), value=True)
        self.progress.capacity = capacity
        for state in self.layers:
            if isinstance(state.mixer, KeyValues):
                state.mixer.grow()

    def rewind(self, length: int = 0) -> None:
        """Back to so many columns; what is padding stays known.

        Raises:
            ValueError: of a mixer whose state cannot go back but to its begin.
        """
        if length and self.others():
            raise ValueError(
                f"{type(self.others()[0]).__name__} keeps no earlier states: what was decoded with it cannot "
                "be taken back."
            )
        self.progress.length = length
        self.progress.filled.fill_(length)

    def branch(self, count: int) -> None:
        """From here on each row goes on in ``count`` ways (beams), which share what was read so far.

        A step then reads one token of every branch, in columns side by side. Keys are never copied
        when a branch forks or ends: :meth:`reorder` only changes what it sees.
        """
        length, filled = self.progress.length, self.progress.filled
        shape = self.rows, count, self.progress.capacity
        positions = self.positions(torch.arange(length, device=filled.device))
        self.seen = filled.new_zeros(shape, dtype=torch.bool)
        self.seen[:, :, :length] = True if self.mask is None else self.mask[:, None, :length]
        self.branch_positions = filled.new_zeros(shape[::2])
        self.branch_positions[:, :length] = positions
        for state in self.others():
            state.branch(count)

    def visible(self, columns: Tensor, branches: int, window: int | None) -> Tensor:
        """What branches that read one token each, in the columns to come, may attend to of the
        ``columns (keys)`` that a layer holds: ``(batch, branches, keys)``."""
        assert self.seen is not None and self.branch_positions is not None
        seen = self.seen[:, :, columns.clamp(min=0)] & (columns >= 0)
        if window is None or len(columns) <= window:
            return seen
        own = self.next_positions(branches)
        return seen & (self.branch_positions[:, None, columns] > own[..., None] - window)

    def reorder(self, parents: Tensor) -> None:
        """Branch ``i`` goes on from what branch ``parents[:, i]`` has seen, with a column of its own."""
        assert self.seen is not None and self.branch_positions is not None
        first, count = self.progress.length, parents.shape[1]
        self.seen = self.seen.gather(1, parents[..., None].expand(-1, -1, self.progress.capacity))
        self.seen.narrow(2, first, count).diagonal(dim1=1, dim2=2).fill_(True)
        self.branch_positions.narrow(1, first, count).copy_(self.seen.sum(-1) - 1)
        for state in self.others():
            state.reorder(parents)

    def others(self) -> list[Any]:
        """States that are not keys and values."""
        return [s.mixer for s in self.layers if not isinstance(s.mixer, KeyValues)]
