"""One frozen dataclass that describes any stack of blocks."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import sys
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from family.core.activation import ACTIVATIONS
from family.core.norm import NORMS

POSITIONS = ("none", "sinusoidal", "learned", "rotary", "relative", "alibi")
NORM_ORDERS = ("pre", "post")
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a name",
    NoneType: "None",
}


@dataclass(frozen=True)
class TransformerConfig:
    """What published stacks differ in, and only that.

    ``None`` in ``kv_heads``, ``head_dim``, ``ffn_dim``, ``final_norm``, ``qkv_bias``, ``context_dim``
    and ``rotary_dim`` stands for the customary value (``heads``, ``dim / heads``, ``4 * dim``, a final
    norm for pre-norm stacks, ``bias``, ``dim``, ``head_dim``), which the config fills in.

    Raises:
        ValueError: a value of a wrong type or range, or an impossible combination, in one sentence
            that names field and value.
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
    parallel: bool = False
    """Attention and feed-forward read the same input, and both are added to it (GPT-J, GPT-NeoX)."""
    bias: bool = True
    """Biases in the linear layers of attention and feed-forward."""
    qkv_bias: bool | None = None
    """Biases of queries, keys and values, where they differ from the others (Qwen2)."""
    causal: bool = False
    window: int | None = None
    """A causal query sees only the last so many keys, its own included (Mistral)."""
    cross_attention: bool = False
    context_dim: int | None = None
    position: str = "none"
    """Added to embeddings: sinusoidal, learned; to queries and keys: rotary; to scores: relative, alibi."""
    max_tokens: int = 1024
    """The longest sequence: the size of a learned position table, and the limit of generation."""
    rotary_base: float = 10_000.0
    rotary_axes: int = 1
    """Coordinates of a token; rotary shares the channels of a head evenly among them."""
    rotary_dim: int | None = None
    """Only the first channels of each head turn, so many of them (GPT-NeoX)."""
    rotary_scaling: float | tuple[float, float, float, float] | None = None
    """For longer contexts: a factor that divides all frequencies (Chen et al. 2023), or Llama 3.1's
    (factor, low_freq_factor, high_freq_factor, original tokens), which spares the fast ones."""
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
        if isinstance(self.rotary_scaling, list):
            self._set("rotary_scaling", tuple(self.rotary_scaling))  # from JSON or YAML
        for name, hint in get_type_hints(type(self)).items():
            check_value(name, getattr(self, name), get_args(hint) or (hint,))
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(
                f"heads={self.heads} does not divide dim={self.dim}: choose a divisor, or give head_dim."
            )
        for name, value in self._customary().items():
            if getattr(self, name) is None:
                self._set(name, value)
        self._one_of("activation", ACTIVATIONS)
        self._one_of("norm", NORMS)
        self._one_of("norm_order", NORM_ORDERS)
        self._one_of("position", POSITIONS)
        for name in ("dropout", "attention_dropout", "ffn_dropout", "drop_path"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}.")
        self._check_blocks()
        self._check_positions()

    def _customary(self) -> dict[str, Any]:
        """What None stands for, of the fields that may be None until the config fills them in."""
        head_dim = self.dim // self.heads
        return {
            "head_dim": head_dim,
            "kv_heads": self.heads,
            "ffn_dim": 4 * self.dim,
            "final_norm": self.norm_order == "pre",
            "qkv_bias": self.bias,
            "context_dim": self.dim,
            "rotary_dim": self.head_dim or head_dim,
        }

    def _check_blocks(self) -> None:
        if self.heads % self.kv_heads:  # type: ignore[operator]
            raise ValueError(f"kv_heads={self.kv_heads} does not divide heads={self.heads}.")
        if self.parallel and (self.norm_order != "pre" or self.cross_attention):
            raise ValueError(
                "parallel=True needs norm_order='pre' and cross_attention=False, "
                f"not {self.norm_order!r} and {self.cross_attention}."
            )
        if self.window is not None and not self.causal:
            raise ValueError(f"window={self.window} needs causal=True.")

    def _check_positions(self) -> None:
        if self.position == "sinusoidal" and self.dim % 2:
            raise ValueError(f"sinusoidal positions need an even dim, not {self.dim}.")
        if self.position == "relative":
            # RelativeBias gives each small distance a bucket of its own, and shares out the rest.
            single = self.relative_buckets // (2 if self.causal else 4)
            if not 0 < single < self.relative_max_distance:
                raise ValueError(
                    f"relative_buckets={self.relative_buckets} is too few, or too many for "
                    f"relative_max_distance={self.relative_max_distance}."
                )
        if self.position == "rotary":
            self._check_rotary()

    def _check_rotary(self) -> None:
        assert self.rotary_dim is not None and self.head_dim is not None
        if self.rotary_dim > self.head_dim:
            raise ValueError(f"rotary_dim={self.rotary_dim} is over head_dim={self.head_dim}.")
        if self.rotary_dim % (2 * self.rotary_axes):
            name = "head_dim" if self.rotary_dim == self.head_dim else "rotary_dim"
            raise ValueError(
                f"rotary positions with rotary_axes={self.rotary_axes} need a {name} that divides "
                f"by {2 * self.rotary_axes}, not {self.rotary_dim}."
            )
        if self.rotary_base == 0:
            raise ValueError(f"rotary_base must be over 0, not {self.rotary_base}.")
        scaling = self.rotary_scaling
        impossible = scaling == 0
        if isinstance(scaling, tuple):
            impossible = 0 in scaling or scaling[1] >= scaling[2]
        if impossible:
            raise ValueError(
                f"rotary_scaling={scaling} needs numbers over 0, and its low_freq_factor under its "
                "high_freq_factor."
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _one_of(self, name: str, allowed: Any) -> None:
        if getattr(self, name) not in allowed:
            value, choices = getattr(self, name), ", ".join(allowed)
            near = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name}={value!r} is unknown; choose one of: {choices}.{hint}")

    def replace(self, **changes: Any) -> TransformerConfig:
        """The same config with some fields changed; fields of the customary value stay customary."""
        fields = dataclasses.asdict(self)
        for name, value in self._customary().items():
            if fields[name] == value:
                fields[name] = None
        return TransformerConfig(**{**fields, **changes})

    def diff(self, other: TransformerConfig) -> dict[str, tuple[Any, Any]]:
        """The fields in which two configs differ: name -> (ours, theirs)."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}


def check_value(name: str, value: Any, kinds: tuple[Any, ...]) -> None:
    """A value against the annotation of its field; counts are at least 1, other numbers at least 0.

    Raises:
        ValueError: it does not fit.
    """
    if not any(fits(value, kind) for kind in kinds):
        words = " or ".join(KINDS.get(kind, f"{len(get_args(kind))} numbers") for kind in kinds)
        raise ValueError(f"{name} must be {words}, not {reprlib.repr(value)}.")
    least = 1 if int in kinds else 0
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int | float) and number < least:
            raise ValueError(f"{name} must be at least {least}, not {value}.")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type: booleans are no numbers, whole numbers will do as floats."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return (
            isinstance(value, tuple) and len(value) == len(parts) and all(map(fits, value, parts))
        )
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # finite
    return isinstance(value, kind)
