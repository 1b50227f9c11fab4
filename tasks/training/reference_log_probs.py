"""Log-probabilities of answers under the model that a run began with, found once and kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tasks.errors import UserError
from tasks.runs.gathering import gather


class Kept:
    """Of pairs, by their keys, the log-probabilities of both answers.

    Attributes:
        keys: ``(pairs,)`` int64, in rising order.
        values: ``(pairs, 2)`` float32 or, of a model in it, float64.
    """

    def __init__(self) -> None:
        self.keys = torch.empty(0, dtype=torch.int64)
        self.values = torch.empty(0, 2)

    def __len__(self) -> int:
        return len(self.keys)

    def lacks(self, keys: Iterable[int]) -> bool:
        """Whether one of the keys is unknown."""
        return not {*keys} <= {*self.keys.tolist()}

    def add(self, keys: list[Tensor], values: list[Tensor]) -> None:
        """Keep those of batches, of all processes: ``(pairs,)`` and ``(pairs, 2)`` each."""
        mine = [(k.cpu(), v.detach().cpu()) for k, v in zip(keys, values, strict=True)]
        parts = gather(mine)
        table = dict(zip(self.keys.tolist(), self.values, strict=True))
        for some, rows in parts:
            for key, row in zip(some.tolist(), rows, strict=True):
                table.setdefault(key, row)
        self.keys = torch.tensor(sorted(table))
        self.values = torch.stack([table[key] for key in self.keys.tolist()])

    def of(self, keys: Tensor) -> Tensor:
        """``(pairs,)`` -> ``(pairs, 2)``, where the keys are.

        Raises:
            UserError: a pair that was not there when the run began.
        """
        own = keys.cpu()
        places = torch.searchsorted(self.keys, own).clamp(max=max(0, len(self) - 1))
        if not len(self) or bool((self.keys[places] != own).any()):
            raise UserError(
                "the data have a pair of answers that the run did not begin with, so that its reference "
                "log-probabilities are not known: give the same data, tokenizer and max_tokens, or "
                "begin a run of its own."
            )
        return self.values[places].to(keys.device)

    def state_dict(self) -> dict[str, Any]:
        return {"keys": self.keys, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.keys, self.values = state["keys"], state["values"]
