"""One frozen dataclass that describes any stack of blocks."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from family.checks import check_value
from family.core.functions import ACTIVATIONS, NORMS
from family.core.rotary import RotaryScaling

POSITIONS = ("none", "sinusoidal", "timing", "learned", "rotary", "relative", "alibi")
NORM_ORDERS = ("pre", "post", "sandwich", "branch")
CHOICES = {
    "activation": tuple(ACTIVATIONS),
    "norm": tuple(NORMS),
    "norm_order": NORM_ORDERS,
    "position": POSITIONS,
    "qk_norm": tuple(NORMS),
    "mixer": ("attention",),
    "feedforward": ("dense", "experts"),
}
"""What fields that are names may be; in the place of the last two stands the path of a class, too."""
SCALING = "rotary_scaling"
WHOLE = (
    *("dim", "depth", "final_norm", "causal", "context_dim", "condition_dim", "max_tokens"),
    *("rotary_axes", "drop_path", "init_std", "activation_checkpointing", "layers"),
    *("relative_buckets", "relative_max_distance"),
)
"""Fields of the whole stack: all others may differ from layer to layer."""


@dataclass(frozen=True)
class TransformerConfig:
    """What published stacks differ in, and only that.

    ``None`` in ``kv_heads``, ``head_dim``, ``ffn_dim``, ``final_norm``, ``qkv_bias``, ``out_bias``, ``context_dim``
    and ``rotary_dim`` stands for the customary value (``heads``, ``dim / heads``, ``4 * dim``, a final
    norm for stacks whose layers do not end in one, ``bias``, ``bias``, ``dim``, ``head_dim``), which the config
    fills in.

    Example:
        >>> config = TransformerConfig(dim=64, depth=4, heads=4, layers=[{"window": 16}] * 3 + [{}])
        >>> config.ffn_dim, config.at(0).window, config.at(3).window
        (256, 16, None)
        >>> config.replace(norm="layrnorm")
        Traceback (most recent call last):
        ValueError: norm='layrnorm' is unknown; choose one of: layernorm, rmsnorm, offset_rmsnorm. Did you mean 'layernorm'?

    Raises:
        ValueError: a value of a wrong type or range, or an impossible combination, in one sentence
            that names field and value.
    """

    dim: int = 512
    """Width of the tokens."""
    depth: int = 6
    """Blocks, one above the other."""
    heads: int = 8
    """Heads of attention, among which the width is shared."""
    kv_heads: int | None = None
    """Fewer key/value heads than query heads: grouped-query attention (Ainslie et al. 2023)."""
    head_dim: int | None = None
    """Width of a head, where it is not dim / heads."""
    ffn_dim: int | None = None
    """Hidden width of the feed-forward, or of each expert."""
    activation: str = "gelu"
    """Of the feed-forward."""
    gated: bool = False
    """Gated feed-forward, activation(gate) * up (Shazeer 2020)."""
    mixer: str = "attention"
    """What lets tokens see each other: "attention", or the path of a class, ``package.module.Class``."""
    feedforward: str = "dense"
    """What each token goes through by itself: "dense", "experts", or the path of a class."""
    experts: int = 8
    """Feed-forwards of a layer of experts."""
    experts_per_token: int = 2
    """Of these, so many see a token."""
    shared_experts: int | None = None
    """Experts that every token goes through beside those chosen for it (DeepSeekMoE, Dai et al. 2024)."""
    normalize_routing: bool = True
    """The weights of a token's experts add up to 1 (Mixtral)."""
    norm: str = "layernorm"
    """Of all sublayers."""
    norm_eps: float = 1e-5
    """Added to the variance."""
    norm_bias: bool = True
    """False: layer norms have a weight alone."""
    norm_order: str = "pre"
    """"post" is the 2017 order, "pre" that of GPT-2 (Xiong et al. 2020); "sandwich" norms before and
    after the sublayer (Gemma 2), "branch" only its result (OLMo 2)."""
    mixer_norm: bool = True
    """False: the mixer reads what comes in as it is (ModernBERT's first layer, after an embedding norm)."""
    final_norm: bool | None = None
    """A norm after the last block."""
    parallel: bool = False
    """Attention and feed-forward read the same input, and both are added to it (GPT-J, GPT-NeoX)."""
    bias: bool = True
    """Biases in the linear layers of attention and feed-forward."""
    qkv_bias: bool | None = None
    """Biases of queries, keys and values, where they differ from the others (Qwen2)."""
    key_bias: bool = True
    """False: of these three keys have no bias (Whisper, DINOv3)."""
    out_bias: bool | None = None
    """Bias of attention's output, where it differs from the others."""
    causal: bool = False
    """Tokens see those before them alone."""
    window: int | None = None
    """A query sees only keys less than so many places away: in a causal stack the last so many, its own
    included (Mistral)."""
    cross_attention: bool = False
    """Each block also attends to a context: a decoder."""
    context_dim: int | None = None
    """Width of that context, where it is another."""
    condition_dim: int | None = None
    """A vector of this width shifts, scales and gates every branch (DiT, Peebles & Xie 2023)."""
    position: str = "none"
    """Added to embeddings: sinusoidal, timing (the same with tensor2tensor's frequencies), learned; to
    queries and keys: rotary; to scores: relative, alibi. A layer of its own may have none."""
    max_tokens: int = 1024
    """The longest sequence: the size of a position table, and the limit of generation; relative
    positions have none."""
    rotary_base: float = 10_000.0
    """The larger, the slower the slowest channels turn."""
    rotary_axes: int = 1
    """Coordinates of a token; rotary shares the channels of a head evenly among them."""
    rotary_dim: int | None = None
    """Only the first channels of each head turn, so many of them (GPT-NeoX)."""
    rotary_scaling: float | RotaryScaling | None = None
    """For longer contexts; a number divides all frequencies (Chen et al. 2023)."""
    relative_buckets: int = 32
    """Relative positions: distances that have a bias of their own."""
    relative_max_distance: int = 128
    """From here on all are one."""
    attention_scale: float | None = None
    """Factor on the scores; None is 1/sqrt(head_dim), T5 uses 1."""
    score_cap: float | None = None
    """Scores are bent to stay under it, ``cap * tanh(score / cap)`` (Gemma 2)."""
    qk_norm: bool | str | None = None
    """Norm of queries and keys (Dehghani et al. 2023), by name; True is "rmsnorm"."""
    qk_norm_whole: bool = False
    """That norm is over all heads together (OLMo 2), not over each."""
    dropout: float = 0.0
    """Of what each sublayer adds."""
    attention_dropout: float = 0.0
    """Of the attention weights."""
    ffn_dropout: float = 0.0
    """Inside the feed-forward."""
    drop_path: float = 0.0
    """Stochastic depth: rises linearly from 0 to this rate at the last block (Huang et al. 2016)."""
    layer_scale: float | None = None
    """Initial value of a learned factor on each branch (Touvron et al. 2021)."""
    init_std: float | None = 0.02
    """Normal initialisation as GPT-2; None is Xavier uniform, as the 2017 model."""
    activation_checkpointing: bool = False
    """In training, keep only what enters each block, and compute the rest again for the gradients."""
    layers: tuple[dict[str, Any], ...] = dataclasses.field(default=(), hash=False)
    """Where layers differ: fields to override, one dictionary a layer, over and over down the stack.
    Gemma 3 is ``({"window": 512, "rotary_base": 1e4},) * 5 + ({},)``."""

    def __post_init__(self) -> None:
        self._settle()
        for name, hint in get_type_hints(type(self)).items():
            if name != "layers":
                check_value(name, getattr(self, name), get_args(hint) or (hint,))
        if self.head_dim is None and self.dim % self.heads:
            raise ValueError(
                f"heads={self.heads} does not divide dim={self.dim}: choose a divisor, or give head_dim."
            )
        for name, value in self._customary().items():
            if getattr(self, name) is None:
                self._set(name, value)
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value is None or (name in ("mixer", "feedforward") and "." in value):
                continue  # the path of a class
            self._one_of(name, known)
        for name in ("dropout", "attention_dropout", "ffn_dropout", "drop_path"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}.")
        self._check_blocks()
        self._check_positions()
        self._check_layers()

    def _settle(self) -> None:
        """What JSON, YAML and older configs say in other words."""
        if isinstance(self.qk_norm, bool):
            self._set("qk_norm", "rmsnorm" if self.qk_norm else None)
        self._set(SCALING, as_scaling(self.rotary_scaling))
        layers: Any = self.layers
        if isinstance(layers, list | tuple):
            known = (
                o
                if not isinstance(o, dict) or SCALING not in o
                else {**o, SCALING: as_scaling(o[SCALING])}
                for o in layers
            )
            self._set("layers", tuple(known))

    def _customary(self) -> dict[str, Any]:
        """What None stands for, of the fields that may be None until the config fills them in."""
        head_dim = self.dim // self.heads
        return {
            "head_dim": head_dim,
            "kv_heads": self.heads,
            "ffn_dim": 4 * self.dim,
            "final_norm": self.norm_order != "post",
            "qkv_bias": self.bias,
            "out_bias": self.bias,
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
        if self.condition_dim is not None and self.norm_order not in ("pre", "sandwich"):
            raise ValueError(
                f"condition_dim={self.condition_dim} acts on the norm before a sublayer: it needs "
                f"norm_order='pre' or 'sandwich', not {self.norm_order!r}."
            )
        count = self.experts_per_token
        if count > self.experts and self.feedforward == "experts":
            raise ValueError(f"experts_per_token={count} is over experts={self.experts}.")

    def _check_positions(self) -> None:
        if self.position in ("sinusoidal", "timing") and self.dim % 2:
            raise ValueError(f"{self.position} positions need an even dim, not {self.dim}.")
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
        if self.rotary_scaling == 0:
            raise ValueError(f"rotary_scaling={self.rotary_scaling} needs a number over 0.")
        if isinstance(self.rotary_scaling, RotaryScaling):
            self.rotary_scaling.check(self.rotary_dim // self.rotary_axes)

    def _check_layers(self) -> None:
        if not isinstance(self.layers, tuple) or not all(isinstance(o, dict) for o in self.layers):
            raise ValueError(
                f"layers={self.layers!r} must be a list of objects: fields to override."
            )
        if len(self.layers) > self.depth:
            raise ValueError(f"layers has {len(self.layers)} entries, over depth={self.depth}.")
        names = {field.name for field in dataclasses.fields(self)}
        for i, override in enumerate(self.layers):
            for name, value in override.items():
                if name not in names:
                    raise ValueError(f"layers[{i}] has the unknown field {name!r}.")
                if name in WHOLE or (name == "position" and value not in ("none", self.position)):
                    raise ValueError(f"layers[{i}]: {name}={value!r} is for the whole stack alone.")
            try:
                self.at(i)
            except ValueError as error:
                raise ValueError(f"layers[{i}]: {error}") from None

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _one_of(self, name: str, allowed: Collection[Any]) -> None:
        if getattr(self, name) not in allowed:
            value, choices = getattr(self, name), ", ".join(map(str, allowed))
            near = difflib.get_close_matches(str(value), map(str, allowed), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name}={value!r} is unknown; choose one of: {choices}.{hint}")

    @property
    def longest(self) -> float:
        """``max_tokens``, or no limit where positions are relative: all that are far share a bucket."""
        return math.inf if self.position == "relative" else self.max_tokens

    def at(self, layer: int) -> TransformerConfig:
        """The config of one layer, counted from 0: this one with what ``layers`` says of it."""
        if not self.layers:
            return self
        return self.replace(layers=(), **self.layers[layer % len(self.layers)])

    def replace(self, **changes: Any) -> TransformerConfig:
        """The same config with some fields changed; fields of the customary value stay customary."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in self._customary().items():
            if fields[name] == value:
                fields[name] = None
        return TransformerConfig(**{**fields, **changes})

    def diff(self, other: TransformerConfig) -> dict[str, tuple[Any, Any]]:
        """The fields in which two configs differ: name -> (ours, theirs)."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}


def as_scaling(value: Any) -> Any:
    """A scaling from plain values; Llama 3.1's was once the only one, and is four numbers in older files."""
    if isinstance(value, dict) and "kind" in value:
        unknown = sorted(value.keys() - {field.name for field in dataclasses.fields(RotaryScaling)})
        if unknown:
            raise ValueError(f"rotary_scaling has the unknown field {unknown[0]!r}.")
        return RotaryScaling(**value)
    if isinstance(value, list | tuple) and len(value) == 4:
        return RotaryScaling.llama3(*value)
    return value
