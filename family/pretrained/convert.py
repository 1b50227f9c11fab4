"""A published state becomes a model of ours, and a model of ours a published state."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from family.models.member import build
from family.pretrained.table import Format, Names, Row, as_row, join, owner_of, place, split
from family.pretrained.weights import Weights

FILLING = {Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_}


POOLER = "pooler."
"""What new classes may replace, or may leave out, too."""


class Unfilled(TorchFunctionMode):
    """Models built under it keep their parameters unfilled: weights are about to come."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in FILLING:
            filled = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if isinstance(filled, nn.Parameter):  # a buffer may be in no file
                return filled
        return func(*args, **kwargs)


def build_unfilled(cls: type[nn.Module], arguments: dict[str, Any], origin: str) -> nn.Module:
    """A member whose weights are still to come, in eval mode.

    Raises:
        ValueError: arguments that make no model.
    """
    try:
        with Unfilled():
            return build(cls, arguments).eval()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{origin}: {str(error).splitlines()[0]}") from None


def fill(
    model: nn.Module,
    layout: Format,
    weights: Weights,
    dtype: torch.dtype | None,
    fresh: tuple[str, ...] = (),
) -> None:
    """Put every weight in its place, strictly.

    Args:
        dtype: of the model; None keeps the weights'.
        fresh: beginnings of names of ours that keep their own initial values, or that the model does
            without.

    Raises:
        ValueError: a weight that is missing, has another shape, or has no place.
    """
    table, theirs = layout.table(model), file_names(layout, weights, layout.left_out(model))
    parameters = stored(model)
    rows = {name: row_of(layout, table, name) for name in parameters}
    sources = {name: find(row, layout.prefix, theirs) for name, row in rows.items()}
    whole = {id(ours) for name, ours in parameters.items() if all(sources[name])}
    used: set[str] = set()
    done: dict[int, str] = {}
    for name, ours in parameters.items():
        row, twin = rows[name], done.get(id(ours))
        used |= {source for names in sources[name] for source in names}
        absent = [part for part, names in zip(row.theirs, sources[name], strict=True) if not names]
        if name.startswith(fresh) or (absent and id(ours) in whole):
            continue  # keeps its own value, or is tied and stored under the other name
        if absent and fresh and name.startswith(POOLER):
            continue  # belongs to the classes in this format
        if absent and name.endswith("num_batches_tracked"):
            ours.zero_()
            continue
        if absent:
            raise ValueError(f"{weights.origin} has no weight {absent[0]} for {name}.")
        parts = [read_one(weights, names) for names in sources[name]]
        try:
            value = join(parts, row, owner_of(model, name))
        except RuntimeError as error:  # of a reshape, or of parts that do not fit
            reason = str(error).splitlines()[-1]
            raise ValueError(
                f"{weights.origin}: {row.theirs[0]} of the shape {tuple(parts[0].shape)} makes no "
                f"{name}: {reason}"
            ) from None
        if ours.is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise ValueError(
                f"{weights.origin}: {row.theirs[0]} is {kind}, but {name} takes floating-point numbers."
            )
        if value.shape != ours.shape:
            raise ValueError(
                f"{weights.origin}: {row.theirs[0]} has the shape {tuple(value.shape)}, but "
                f"{name} takes {tuple(ours.shape)}."
            )
        if twin is not None:
            if not same(value, ours):
                raise ValueError(
                    f"{weights.origin}: {row.theirs[0]} differs from the weight of {twin}, to "
                    "which the config ties it."
                )
            continue
        done[id(ours)] = name
        copy(ours, value, dtype)
    used |= replaced(table, fresh, theirs, layout.prefix)
    used |= {at for name, at in theirs.items() if fresh and name.startswith(layout.replaced)}
    check_used(layout, theirs, used, weights.origin)


def row_of(layout: Format, table: Names, name: str) -> Row:
    """Where one of our weights stands in a format.

    Raises:
        ValueError: nowhere.
    """
    try:
        return place(table, name)
    except KeyError:
        raise ValueError(f"format={layout.name!r} has no place for the weight {name}.") from None


def replaced(table: Names, fresh: tuple[str, ...], theirs: dict[str, str], prefix: str) -> set[str]:
    """The names in a file of weights that a fresh part of the model does without."""
    used = {source for name, source in theirs.items() if name.startswith(fresh)}
    if fresh:
        used |= {source for name, source in theirs.items() if POOLER in name}
    for name, value in table.items():
        row = as_row(value)
        if not name.startswith(fresh):
            continue
        for ending in ("", ".weight", ".bias"):
            names, copies = ([f"{part}{ending}" for part in n] for n in (row.theirs, row.copies))
            whole = row._replace(theirs=tuple(names), copies=tuple(copies))
            used |= {source for sources in find(whole, prefix, theirs) for source in sources}
    return used


def find(row: Row, prefix: str, theirs: dict[str, str]) -> list[list[str]]:
    """The names that a file has for each part of a row; several where it stores copies."""
    found = []
    for part in row.theirs:
        names = [part, *row.copies]
        bare = [name.removeprefix(prefix) for name in names]
        found.append([theirs[name] for name in dict.fromkeys(names + bare) if name in theirs])
    return found


def read_one(weights: Weights, names: list[str]) -> Tensor:
    """A tensor that stands under one name, or under several.

    Raises:
        ValueError: they differ.
    """
    value = weights.read(names[0])
    for other in names[1:]:
        if not same(value, weights.read(other)):
            raise ValueError(
                f"{weights.origin}: {names[0]} and {other} are two names of one weight, but their "
                "values differ."
            )
    return value


def same(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors are one, be it that one of them was rounded."""
    one, two = one.cpu(), two.cpu()
    return any(torch.equal(one.to(dtype), two.to(dtype)) for dtype in {one.dtype, two.dtype})


def stored(model: nn.Module) -> dict[str, Tensor]:
    """All that a file of the model holds, by name; what is tied appears twice."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    kept = model.state_dict().keys()
    return {**parameters, **{n: b for n, b in model.named_buffers() if n in kept}}


def copy(ours: Tensor, value: Tensor, dtype: torch.dtype | None) -> None:
    """Fill a parameter, in the dtype that is wanted."""
    wanted = value.dtype if dtype is None or not value.is_floating_point() else dtype
    with torch.no_grad():
        if ours.dtype != wanted:
            ours.data = torch.empty(ours.shape, dtype=wanted)
        ours.copy_(value)


def file_names(layout: Format, weights: Weights, left_out: tuple[str, ...] = ()) -> dict[str, str]:
    """Current name -> the name that the file has; of what the patterns ``left_out`` do not match."""
    patterns = (*layout.leftovers(set(weights.places)), *left_out)
    pattern = re.compile("|".join(patterns) or "$^")
    return {layout.renamed(n): n for n in weights.places if not pattern.search(n)}


def check_used(layout: Format, theirs: dict[str, str], used: set[str], origin: str) -> None:
    left = sorted(set(theirs.values()) - used)
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise ValueError(
            f"{origin} has the weight {left[0]}{more}, which a model of its config has no place for."
        )


def published_state(model: nn.Module, layout: Format) -> dict[str, Tensor]:
    """A model's weights by their published names; what is tied appears once.

    Raises:
        ValueError: a weight that the format has no place for.
    """
    table: Names = layout.table(model)
    state: dict[str, Tensor] = {}
    shares: dict[str, dict[int, Tensor]] = {}
    done: set[int] = set()
    for name, ours in stored(model).items():
        if id(ours) in done:
            continue
        done.add(id(ours))
        row = row_of(layout, table, name)
        parts = split(ours.detach(), row, owner_of(model, name), name)
        for theirs, part in zip(row.theirs, parts, strict=True):
            if row.share is not None:
                shares.setdefault(theirs, {})[row.share[0]] = part
            elif theirs in state and not torch.equal(state[theirs], part):
                raise ValueError(
                    f"format={layout.name!r} has the one weight {theirs} for {name} and another of "
                    "ours, which differ."
                )
            else:
                state[theirs] = part.contiguous()
    joined = {name: torch.cat([parts[i] for i in sorted(parts)]) for name, parts in shares.items()}
    return {**state, **joined, **layout.unread(model)}
