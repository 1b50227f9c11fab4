"""What a model is made of, in the order in which it computes: for a diagram."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.inputs.audio import AudioEmbedding
from family.inputs.backbone import CNNBackbone, PatchBackbone
from family.inputs.patches import PatchEmbedding
from family.inputs.series import SeriesEmbedding
from family.inputs.text import TextEmbedding
from family.inputs.tubelets import TubeletEmbedding
from family.models.member import facts_of

READS = (
    (TextEmbedding, "text"),
    (PatchEmbedding, "picture"),
    (CNNBackbone, "picture"),
    (PatchBackbone, "picture"),
    (TubeletEmbedding, "clip"),
    (AudioEmbedding, "sound"),
    (SeriesEmbedding, "series"),
)
"""What front-ends read."""


@dataclass(frozen=True)
class Part:
    """A stack, or something before, between or behind stacks.

    Args:
        name: in the model: "encoder".
        title: what it is.
        notes: its size, a line each.
        reads: what of the world enters it; "" is what comes before.
        stack: the configs of its layers; none of what is no stack.
        final_norm: a norm ends the stack.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    reads: str = ""
    stack: tuple[TransformerConfig, ...] = ()
    final_norm: bool = False


@dataclass(frozen=True)
class Outline:
    """A model in columns, each a chain of parts from what it reads to what it gives.

    Args:
        name: what to call it.
        member: its class.
        task: what it is for.
        parameters: how many numbers it learns.
    """

    name: str
    member: str
    task: str
    parameters: int
    columns: tuple[tuple[Part, ...], ...]
    reads: tuple[str, ...] = field(default=())

    @property
    def stacks(self) -> list[Part]:
        return [part for column in self.columns for part in column if part.stack]


def outline_of(model: Any, name: str = "", call: Callable[[], Any] | None = None) -> Outline:
    """The parts of a model.

    Args:
        name: what to call it; "" is its class.
        call: runs it once, so that parts are known in the order in which they compute; None, or one that
            fails, leaves them as the model holds them.
    """
    found = list(parts_of(model))
    order = order_of(model, [path for path, _ in found], call)
    used = [part for part in found if order[part[0]] is not None or has_weights(part[1])]
    settled = in_order(used, order)
    columns = [
        tuple(describe_part(path, module) for path, module in column)
        for column in columns_of(settled)
    ]
    facts = facts_of(model)
    return Outline(
        name or type(model).__name__,
        type(model).__name__,
        facts.task if facts else "",
        sum(p.numel() for p in model.parameters()),
        tuple(columns),
        facts.reads if facts else (),
    )


def parts_of(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Stacks, and the largest modules that hold none, by name."""
    for name, child in model.named_children():
        inner = f"{path}.{name}" if path else name
        if isinstance(child, Transformer):
            yield inner, child
        elif any(isinstance(m, Transformer) for m in child.modules()):
            yield from parts_of(child, inner)
        elif not isinstance(child, nn.Identity | nn.Dropout):
            yield inner, child


def has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def order_of(
    model: nn.Module, paths: list[str], call: Callable[[], Any] | None
) -> dict[str, int | None]:
    """When each part was first used; None of one that was not, or where nothing was run."""
    seen: dict[str, int | None] = dict.fromkeys(paths)
    count = 0
    hooks = []

    def note(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal count
            if seen[path] is None:
                seen[path], count = count, count + 1

        return hook

    inside = {path: list(model.get_submodule(path).modules()) for path in paths}
    count_of = Counter(module for modules in inside.values() for module in modules)
    for path in paths:
        # A part may be used by pieces of it alone, such as a stack's blocks; what parts share tells nothing.
        hooks += [
            module.register_forward_pre_hook(note(path))
            for module in inside[path]
            if count_of[module] == 1
        ]
    try:
        if call is not None:
            with torch.no_grad():
                call()
    except (RuntimeError, ValueError, NotImplementedError):
        seen = dict.fromkeys(paths)
    finally:
        for hook in hooks:
            hook.remove()
    if all(at is None for at in seen.values()):
        return {path: i for i, path in enumerate(paths)}
    return seen


def in_order(
    parts: list[tuple[str, nn.Module]], order: dict[str, int | None]
) -> list[tuple[str, nn.Module]]:
    """Parts as they compute; a table that is read without a call stands before the last stack."""
    called = sorted((p for p in parts if order[p[0]] is not None), key=lambda p: order[p[0]] or 0)
    tables = [p for p in parts if order[p[0]] is None]
    stacks = [i for i, (_, m) in enumerate(called) if isinstance(m, Transformer)]
    at = stacks[-1] if stacks else len(called)
    return [*called[:at], *tables, *called[at:]]


def columns_of(parts: list[tuple[str, nn.Module]]) -> list[list[tuple[str, nn.Module]]]:
    """Chains: one for each part that holds a stack within it, as a tower does, or each stack with what leads to
    it; what follows the last stack belongs to it."""
    columns: list[list[tuple[str, nn.Module]]] = [[]]
    for i, (path, module) in enumerate(parts):
        before = columns[-1]
        more = any(isinstance(m, Transformer) for _, m in parts[i:])
        ended = any(isinstance(m, Transformer) for _, m in before)
        same = bool(before) and "." in path and owner(path) == owner(before[-1][0])
        if ended and more and not same:
            columns.append([])
        columns[-1].append((path, module))
    return columns


def owner(path: str) -> str:
    return path.rpartition(".")[0]


def describe_part(path: str, module: nn.Module) -> Part:
    """What a diagram says of a part."""
    if isinstance(module, Transformer):
        norm = not isinstance(module.norm, nn.Identity)
        return Part(path, path.rpartition(".")[2], (), "", tuple(module.configs), norm)
    reads = next((said for kind, said in READS if isinstance(module, kind)), "")
    return Part(path, spoken(module, path), tuple(filter(None, size_of(module))), reads)


def spoken(module: nn.Module, path: str) -> str:
    """What to call a part: by its class, or, where that says nothing, by its name in the model."""
    kind = type(module)
    if kind.__module__.startswith("torch.") or kind.__name__ == "Linear":
        return path.rpartition(".")[2].replace("_", " ")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", kind.__name__).split(" ")
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)


def size_of(module: nn.Module) -> list[str]:
    """The size of a part in a few words."""
    times = " \N{MULTIPLICATION SIGN} "
    if isinstance(module, TextEmbedding):
        table = module.tokens.weight.shape
        return [f"{table[0]:,} tokens{times}{table[1]}", position_of(module.position)]
    if isinstance(module, PatchEmbedding):
        rows, columns = module.table_grid
        return [
            f"{rows}{times}{columns} patches of {module.patch_size[0]} px",
            position_of(module.position),
        ]
    weights = [p for p in module.parameters() if p.dim() > 1]
    if len(weights) == 1:
        return [times.join(f"{n:,}" for n in reversed(weights[0].shape[:2]))]
    count = sum(p.numel() for p in module.parameters())
    return [f"{short(count)} parameters" if count else ""]


def position_of(position: nn.Module | None) -> str:
    if position is None:
        return ""
    learned = any(True for _ in position.parameters())
    return "+ learned positions" if learned else "+ waves of the position"


def short(count: float) -> str:
    """A number of three digits: 124 M."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " K")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"


# --- What a layer is, in words ---


def attention_words(config: TransformerConfig) -> list[str]:
    """The mixer of a layer, a line each."""
    if config.mixer != "attention":
        return [config.mixer.rpartition(".")[2]]
    heads = f"{config.heads} heads"
    if config.kv_heads != config.heads:
        heads += f" on {config.kv_heads} of keys"
    lines = [f"{heads} \N{MULTIPLICATION SIGN} {config.head_dim}"]
    lines.append("causal" if config.causal else "both ways")
    if config.window is not None:
        lines[-1] += f", window {config.window}"
    if config.position in ("rotary", "relative", "alibi"):
        lines.append(f"{config.position} positions")
    if config.qk_norm:
        lines.append("normed queries and keys")
    if config.score_cap is not None:
        lines.append(f"scores under {config.score_cap:g}")
    return lines


def feedforward_words(config: TransformerConfig) -> list[str]:
    """What each token goes through by itself."""
    if "." in config.feedforward:
        return [config.feedforward.rpartition(".")[2]]
    name = f"gated {config.activation}" if config.gated else config.activation
    lines = [f"{name}, {config.ffn_dim} wide"]
    if config.feedforward == "experts":
        lines.append(f"{config.experts} experts, {config.experts_per_token} a token")
    return lines


def norm_words(config: TransformerConfig) -> str:
    said = {"layernorm": "layer norm", "rmsnorm": "RMS norm"}.get(config.norm, config.norm)
    return f"{said}, moved by a condition" if config.condition_dim else said


def layer_kinds(stack: tuple[TransformerConfig, ...]) -> tuple[list[int], list[str]]:
    """Which kind each layer is, and what the kinds differ in, the first kind's words last to be said."""
    kinds = list(dict.fromkeys(stack))
    differing = sorted({name for kind in kinds[1:] for name in kinds[0].diff(kind)})
    words = []
    for kind in kinds:
        said = []
        for name in differing:
            value = getattr(kind, name)
            shown = {None: "none", True: "yes", False: "no"}.get(value, value)
            said.append(
                f"{name.replace('_', ' ')} {shown:g}"
                if isinstance(shown, float)
                else f"{name.replace('_', ' ')} {shown}"
            )
        words.append(", ".join(said))
    return [kinds.index(one) for one in stack], words
