"""One frozen dataclass that describes any stack of blocks."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

from family.core.activation import ACTIVATIONS
from family.core.norm import NORMS

POSITIONS = ("none", "sinusoidal", "learned", "rotary", "relative", "alibi")
NORM_ORDERS = ("pre", "post")


@dataclass(frozen=True)
class TransformerConfig:
    """What published stacks differ in, and only that.

    ``None`` in ``kv_heads``, ``head_dim``, ``ffn_dim``, ``final_norm`` and ``context_dim`` stands for
    the customary value (``heads``, ``dim / heads``, ``4 * dim``, a final norm for pre-norm stacks,
    ``dim``), which the config fills in.

    Raises:
        ValueError: an impossible combination, in one sentence that names field and value.
    """

    dim: int = 512
    depth: int = 6
    heads: int = 8
    kv_heads: int | None = None
    """Fewer key/value heads than query heads: grouped-query attention (Ainslie et al. 2023)."""
    head_dim: int | None = None
    ffn_dim: int | None = None
    activation: str = "gelu"
    gated: bool = False
    """Gated feed-forward, activation(gate) * up (Shazeer 2020)."""
    norm: str = "layernorm"
    norm_eps: float = 1e-5
    norm_order: str = "pre"
    """"post" is the 2017 order, "pre" that of GPT-2 (Xiong et al. 2020)."""
    final_norm: bool | None = None
    bias: bool = True
    """Biases in the linear layers of attention and feed-forward."""
    causal: bool = False
    cross_attention: bool = False
    context_dim: int | None = None
    position: str = "none"
    """Added to embeddings: sinusoidal, learned; to queries and keys: rotary; to scores: relative, alibi."""
    max_tokens: int = 1024
    """The longest sequence: the size of a learned position table, and the limit of generation."""
    rotary_base: float = 10_000.0
    rotary_axes: int = 1
    """Coordinates of a token; rotary shares the channels of a head evenly among them."""
    relative_buckets: int = 32
    relative_max_distance: int = 128
    attention_scale: float | None = None
    """Factor on the scores; None is 1/sqrt(head_dim), T5 uses 1."""
    qk_norm: bool = False
    """RMSNorm over each head's queries and keys (Dehghani et al. 2023)."""
    dropout: float = 0.0
    attention_dropout: float = 0.0
    ffn_dropout: float = 0.0
    drop_path: float = 0.0
    """Stochastic depth: rises linearly from 0 to this rate at the last block (Huang et al. 2016)."""
    layer_scale: float | None = None
    """Initial value of a learned factor on each branch (Touvron et al. 2021)."""
    init_std: float | None = 0.02
    """Normal initialisation as GPT-2; None is Xavier uniform, as the 2017 model."""

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "heads", "max_tokens", "relative_buckets", "rotary_axes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.head_dim is None:
            if self.dim % self.heads:
                raise ValueError(
                    f"heads={self.heads} does not divide dim={self.dim}: "
                    "choose a divisor, or give head_dim."
                )
            self._set("head_dim", self.dim // self.heads)
        self._default("kv_heads", self.heads)
        self._default("ffn_dim", 4 * self.dim)
        self._default("context_dim", self.dim)
        self._default("final_norm", self.norm_order == "pre")
        if self.heads % self.kv_heads:  # type: ignore[operator]
            raise ValueError(f"kv_heads={self.kv_heads} does not divide heads={self.heads}.")
        self._one_of("activation", ACTIVATIONS)
        self._one_of("norm", NORMS)
        self._one_of("norm_order", NORM_ORDERS)
        self._one_of("position", POSITIONS)
        if self.position == "rotary" and self.head_dim % (2 * self.rotary_axes):  # type: ignore[operator]
            raise ValueError(
                f"rotary positions with rotary_axes={self.rotary_axes} need a head_dim that divides "
                f"by {2 * self.rotary_axes}, not {self.head_dim}."
            )
        if self.position == "sinusoidal" and self.dim % 2:
            raise ValueError(f"sinusoidal positions need an even dim, not {self.dim}.")
        for name in ("dropout", "attention_dropout", "ffn_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}.")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _default(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            self._set(name, value)

    def _one_of(self, name: str, allowed: Any) -> None:
        if getattr(self, name) not in allowed:
            value, choices = getattr(self, name), ", ".join(allowed)
            near = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name}={value!r} is unknown; choose one of: {choices}.{hint}")

    def replace(self, **changes: Any) -> TransformerConfig:
        """The same config with some fields changed; derived fields follow what they derive from."""
        fields = dataclasses.asdict(self)
        if changes.keys() & {"dim", "heads"}:
            fields.update(head_dim=None, kv_heads=None)
        if "dim" in changes:
            fields.update(ffn_dim=None, context_dim=None)
        if "norm_order" in changes:
            fields.update(final_norm=None)
        return TransformerConfig(**{**fields, **changes})

    def diff(self, other: TransformerConfig) -> dict[str, tuple[Any, Any]]:
        """The fields in which two configs differ: name -> (ours, theirs)."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
