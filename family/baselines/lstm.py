"""What the LSTM baselines share: PyTorch's LSTM that no padding reaches, and its state in decoding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

State = tuple[Tensor, Tensor]
"""Hidden and cell, each ``(depth, batch, dim)``."""


class LSTM(nn.LSTM):
    """PyTorch's own (cuDNN, oneDNN), as wide where it ends as where it begins.

    It starts with orthogonal recurrent weights, gate by gate, and forget gates that are open
    (a bias of 1; Jozefowicz et al. 2015).

    Args:
        dim: width of input and output; of two directions each has half of the output.
        depth: layers.
        dropout: between layers (Zaremba et al. 2014).
        bidirectional: read both ways.

    Raises:
        ValueError: an odd ``dim`` for two directions.
    """

    parts = 4  # gates in each matrix, as Linear's

    def __init__(
        self, dim: int, depth: int, dropout: float = 0.0, bidirectional: bool = False
    ) -> None:
        if bidirectional and dim % 2:
            raise ValueError(f"dim={dim} must be even: each of two directions has half of it.")
        super().__init__(
            dim,
            dim // 2 if bidirectional else dim,
            depth,
            batch_first=True,
            dropout=dropout if depth > 1 else 0.0,
            bidirectional=bidirectional,
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            # Input, forget, cell and output gate; there are two biases, which add up.
            gates = parameter.chunk(self.parts)
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih"):
                    nn.init.ones_(gates[1])
            else:
                start = nn.init.xavier_uniform_ if "_ih_" in name else nn.init.orthogonal_
                for gate in gates:
                    start(gate)

    @torch.compiler.disable  # which knows no LSTM, and fails at one that is not PyTorch's own class
    def forward(self, input: Any, hx: State | None = None) -> tuple[Any, State]:
        """As PyTorch's; in float32 under autocast on processors whose oneDNN has no LSTM in bfloat16."""
        mixed = torch.is_autocast_enabled("cpu") and self.weight_ih_l0.device.type == "cpu"
        if not mixed or torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return super().forward(input, hx)
        with torch.autocast("cpu", enabled=False):
            return super().forward(
                input.float(), None if hx is None else (hx[0].float(), hx[1].float())
            )

    def read(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Read whole rows, wherever their padding stands.

        Args:
            x: ``(batch, tokens, dim)``.
            mask: ``(batch, tokens)``, True = a token.

        Returns:
            The outputs ``(batch, tokens, dim)``, zero at padding; the state after the last token of
            each row, both directions side by side.
        """
        if mask is None or bool(mask.all()):
            outputs, state = self(x)
        else:
            tokens_first = (~mask).long().argsort(dim=1, stable=True)
            places = tokens_first[..., None].expand_as(x)
            lengths = mask.sum(1).clamp(min=1).cpu()
            packed = pack_padded_sequence(x.gather(1, places), lengths, True, enforce_sorted=False)
            packed, state = self(packed)
            outputs, _ = pad_packed_sequence(packed, True, total_length=x.shape[1])
            outputs = torch.zeros_like(outputs).scatter(1, places, outputs)
            outputs = outputs.masked_fill(~mask[..., None], 0.0)
        hidden, cell = (part.unflatten(0, (self.num_layers, -1)) for part in state)
        return outputs, (hidden.transpose(1, 2).flatten(2), cell.transpose(1, 2).flatten(2))


class ScaledEmbedding(nn.Embedding):
    """Ids become vectors of unit variance, ``(...) -> (..., dim)``.

    The rows of the table are of about unit length, which suits a head that shares it; the product
    with sqrt(dim) suits the LSTM's weights (Vaswani et al. 2017, section 3.4).
    """

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * math.sqrt(self.embedding_dim)


class LSTMState:
    """All that decoding needs of the tokens so far: an LSTM's :class:`~family.core.cache.Cache`.

    Args:
        state: hidden and cell, each ``(depth, batch, dim)``.
        context: ``(batch, source tokens, dim)`` to attend to, with ``context_mask``.
    """

    def __init__(
        self, state: State, context: Tensor | None = None, context_mask: Tensor | None = None
    ) -> None:
        self.state, self.context, self.context_mask = state, context, context_mask

    def advance(self, tokens: int) -> None:
        """Nothing is counted: the state is all that remains of the tokens."""

    def branch(self, count: int) -> None:
        """From here on each row goes on in ``count`` ways, side by side in the state."""
        hidden, cell = self.state
        self.state = hidden.repeat_interleave(count, 1), cell.repeat_interleave(count, 1)

    def reorder(self, parents: Tensor) -> None:
        """Branch ``i`` goes on from the state of ``parents[:, i]``, ``(batch, branches)``."""
        rows, count = parents.shape
        first = torch.arange(rows, device=parents.device)[:, None] * count
        hidden, cell = self.state
        chosen = (first + parents).flatten()
        self.state = hidden.index_select(1, chosen), cell.index_select(1, chosen)
