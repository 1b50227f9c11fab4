"""Blocks of one member become those of another: a ViT's from a GPT's, a CLIP tower from a BERT."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.attention import Attention
from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.inputs.patches import PatchEmbedding
from family.inputs.text import TextEmbedding

WIDTH = ("dim", "heads", "kv_heads", "head_dim", "ffn_dim", "gated")
"""The fields of a stack by which its blocks can be those of another."""
NO_MATTER = (
    "depth",
    "max_tokens",
    "init_std",
    "context_dim",
    "dropout",
    "attention_dropout",
    "ffn_dropout",
    "drop_path",
)
"""Fields in which stacks may differ and still compute the same with the same weights."""


class Entry(NamedTuple):
    """What became of one weight of the target."""

    name: str
    what: str
    """"loaded", "resized" (positions, to another number of them) or "fresh": as it was."""
    origin: str = ""
    """The name of the source's weight that it came from."""


@torch.no_grad()
def transplant(
    target: nn.Module, source: nn.Module, parts: Mapping[str, str] | None = None
) -> list[Entry]:
    """Copy parts of a trained model into another, in place.

    Within a part weights go by their names: the first blocks of a deeper stack become those of a
    shallower one, and what only one of the two has stays as it is. Learned positions follow another
    number of patches by interpolation (as :class:`~family.inputs.patches.PatchEmbedding` does); those
    of texts lose their end, or are stretched. Any other weight of another shape stays fresh.

    Args:
        parts: modules or weights of the target by name -> those of the source that they come from,
            such as ``{"encoder.transformer": "transformer"}``; None is what :func:`common_parts` finds.

    Returns:
        an entry for each weight of the target, tied ones once.

    Raises:
        ValueError: a part that is not there, attention of other heads, or a part of which nothing
            fits (blocks of another width).
    """
    pairs = common_parts(target, source) if parts is None else parts
    names = unique_names(target)
    found: dict[str, Entry] = {}
    for ours, theirs in pairs.items():
        check_heads(target, source, ours, theirs)
        for name, what, origin in carry(target, source, ours, theirs):
            found[names[name]] = Entry(names[name], what, origin)
    return [found.get(name, Entry(name, "fresh")) for name in dict.fromkeys(names.values())]


def carry(target: nn.Module, source: nn.Module, ours: str, theirs: str) -> list[Entry]:
    """One part, weight by weight."""
    into, out_of = weights_under(target, ours), weights_under(source, theirs)
    entries, misfits = [], []
    for rest, weight in into.items():
        name, origin = join(ours, rest), join(theirs, rest)
        if rest not in out_of:
            entries.append(Entry(name, "fresh"))
            continue
        value, what = fitted(target, name, source, origin, out_of[rest])
        if value is None or value.shape != weight.shape:
            misfits.append((name, tuple(weight.shape), tuple(out_of[rest].shape)))
            entries.append(Entry(name, "fresh"))
        else:
            weight.copy_(value)
            entries.append(Entry(name, what, origin))
    if all(entry.what == "fresh" for entry in entries):
        reason = "the two have no weights of one name"
        if misfits:
            reason = "{} is {}, but there {}".format(*misfits[0])
        raise ValueError(f"{ours} from {theirs}: nothing fits: {reason}.")
    return entries


def fitted(
    target: nn.Module, name: str, source: nn.Module, origin: str, value: Tensor
) -> tuple[Tensor | None, str]:
    """The source's weight as the target may take it, and the word for that."""
    ours, theirs = owner(target, name), owner(source, origin)
    if not name.endswith("position.weight") or {ours, theirs} == {None}:
        return value, "loaded"
    if isinstance(ours, PatchEmbedding) and isinstance(theirs, PatchEmbedding):
        same = ours.table_grid == theirs.table_grid and ours.prefix_rows == theirs.prefix_rows
        return (value, "loaded") if same else (over_grid(ours, theirs), "resized")
    if isinstance(ours, TextEmbedding) and isinstance(theirs, TextEmbedding):
        count = ours.max_tokens
        return (value, "loaded") if len(value) == count else (along_text(value, count), "resized")
    return None, "fresh"  # places in a text say nothing of places in a picture


def over_grid(ours: PatchEmbedding, theirs: PatchEmbedding) -> Tensor | None:
    """Positions ``(prefix + patches, dim)`` for the target's grid; unequal prefixes stay its own."""
    if ours.config.dim != theirs.config.dim:
        return None
    theirs = copy.deepcopy(theirs)
    sides = zip(ours.table_grid, theirs.patch_size, strict=True)
    theirs.resize(tuple(count * side for count, side in sides))
    assert ours.position is not None and theirs.position is not None
    prefix = (theirs if ours.prefix_rows == theirs.prefix_rows else ours).position
    assert prefix is not None
    body = theirs.position.weight[theirs.prefix_rows :]
    return torch.cat([prefix.weight[: ours.prefix_rows], body])


def along_text(table: Tensor, count: int) -> Tensor:
    """Positions ``(tokens, dim)`` for so many tokens: the first ones, or all stretched evenly."""
    if count <= len(table):
        return table[:count]
    return F.interpolate(table.T[None], count, mode="linear", align_corners=True)[0].T


# --- Which parts go together -----------------------------------------------------------------


def common_parts(target: nn.Module, source: nn.Module) -> dict[str, str]:
    """The stacks of two models that are equally wide, each of a model used at most once.

    Stacks that read the same (pictures, or texts) find each other first, and bring their embeddings;
    then those with the most blocks in common; then those that both are causal, or both not.

    Returns:
        names of the target's stacks and embeddings -> names of the source's.

    Raises:
        ValueError: no two stacks are equally wide.
    """
    candidates = []
    for ours, stack in stacks(target).items():
        for theirs, other in stacks(source).items():
            if width(stack.config) != width(other.config):
                continue
            kin = same_input(target, ours, source, theirs)
            depth = min(stack.config.depth, other.config.depth)
            alike = stack.config.causal == other.config.causal
            candidates.append((kin is not None, depth, alike, ours, theirs, kin))
    parts: dict[str, str] = {}
    for *_, ours, theirs, kin in sorted(candidates, key=lambda found: found[:3], reverse=True):
        if ours not in parts and theirs not in parts.values():
            parts[ours] = theirs
            parts |= {} if kin is None else dict([kin])
    if not parts:
        raise ValueError(
            f"no stack of the {type(target).__name__} ({widths(target)}) is as wide as one of the "
            f"{type(source).__name__} ({widths(source)})."
        )
    return parts


def differences(
    target: nn.Module, source: nn.Module, parts: Mapping[str, str]
) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Where the same weights will not compute the same: part -> field -> (the target's, the source's)."""
    found = {}
    for ours, theirs in parts.items():
        pair = stack_around(target, ours), stack_around(source, theirs)
        if pair[0] is not None and pair[1] is not None:
            differing = pair[0].config.diff(pair[1].config)
            found[ours] = {n: v for n, v in differing.items() if n not in NO_MATTER}
    return {part: fields for part, fields in found.items() if fields}


def stacks(model: nn.Module) -> dict[str, Transformer]:
    """All stacks of a model by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Transformer)}


def stack_around(model: nn.Module, path: str) -> Transformer | None:
    """The stack that a part is, or lies in."""
    return next((s for name, s in stacks(model).items() if f"{path}.".startswith(f"{name}.")), None)


def width(config: TransformerConfig) -> tuple[Any, ...]:
    return tuple(getattr(config, field) for field in WIDTH)


def widths(model: nn.Module) -> str:
    """What an error says of a model's stacks."""
    configs = {name: stack.config for name, stack in stacks(model).items()}
    said = [
        f"{name}: dim={c.dim}, heads={c.heads}, ffn_dim={c.ffn_dim}" for name, c in configs.items()
    ]
    return "; ".join(said) or "it has none"


def same_input(
    target: nn.Module, ours: str, source: nn.Module, theirs: str
) -> tuple[str, str] | None:
    """The names of the embeddings before two stacks, where they are of one kind."""
    pair = embedding_of(target, ours), embedding_of(source, theirs)
    if pair[0] is None or pair[1] is None:
        return None
    kinds = type(target.get_submodule(pair[0])), type(source.get_submodule(pair[1]))
    return (pair[0], pair[1]) if kinds[0] is kinds[1] else None


def embedding_of(model: nn.Module, stack: str) -> str | None:
    """The name of the embedding before a stack: beside it, and in the same place among several."""
    parent = stack.rpartition(".")[0]
    beside = dict(model.get_submodule(parent).named_children())
    names = [n for n, m in beside.items() if isinstance(m, TextEmbedding | PatchEmbedding)]
    order = [n for n, m in beside.items() if isinstance(m, Transformer)]
    if not names:
        return None
    return join(parent, names[min(order.index(stack.rpartition(".")[2]), len(names) - 1)])


# --- Names and weights -----------------------------------------------------------------------


def unique_names(model: nn.Module) -> dict[str, str]:
    """The name of every weight -> the first of those that it goes by."""
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, value in state.items():
        first.setdefault(id(value), name)
    return {name: first[id(value)] for name, value in state.items()}


def weights_under(model: nn.Module, path: str) -> dict[str, Tensor]:
    """The weights of a module by the rest of their names; of a weight's own name "".

    Raises:
        ValueError: there is no such part.
    """
    state = model.state_dict()
    if path in state:
        return {"": state[path]}
    under = {n.removeprefix(f"{path}."): v for n, v in state.items() if n.startswith(f"{path}.")}
    if not under:
        modules = ", ".join(name for name, _ in model.named_children())
        raise ValueError(
            f"a {type(model).__name__} has no part {path!r} with weights; its parts are: {modules}."
        )
    return under


def owner(model: nn.Module, name: str) -> nn.Module | None:
    """The embedding that a table of positions belongs to."""
    parent = model.get_submodule(".".join(name.split(".")[:-2]))
    return parent if isinstance(parent, TextEmbedding | PatchEmbedding) else None


def check_heads(target: nn.Module, source: nn.Module, ours: str, theirs: str) -> None:
    """Refuse attention of another width, or that would split its channels among other heads."""
    others = {name: m for name, m in source.named_modules() if isinstance(m, Attention)}
    for name, module in target.named_modules():
        if not isinstance(module, Attention) or not f"{name}.".startswith(f"{ours}."):
            continue
        other = others.get(join(theirs, name.removeprefix(ours).removeprefix(".")))
        for field, value in ({} if other is None else sizes(other)).items():
            if value != sizes(module)[field]:
                raise ValueError(
                    f"{ours} from {theirs}: {field} is {sizes(module)[field]}, but there {value}."
                )


def sizes(module: Attention) -> dict[str, int]:
    """What attention must have in common for its weights to mean the same."""
    return {
        "dim": module.out.out_features,
        "heads": module.heads,
        "kv_heads": module.kv_heads,
        "head_dim": module.head_dim,
    }


def join(path: str, rest: str) -> str:
    return f"{path}.{rest}" if path and rest else path or rest
