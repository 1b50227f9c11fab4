"""A reference that computes in float32 here and there, made to do so in float64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Widened(TorchFunctionMode):
    """What is cast to float32 under it - norms, angles, softmax - goes to float64 instead.

    transformers does so in every dtype, for the sake of bfloat16: its float64 is else good for seven
    digits alone.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.float:
            func = Tensor.double
        if func in (Tensor.to, F.softmax):
            args = tuple(wide(value) for value in args)
            kwargs = {name: wide(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)


def wide(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
