"""A published format is one table of names; reading and writing are both derived from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from family.core.attention import Attention
from family.pretrained.weights import Weights

REQUIRED = object()
"""The default of a field that every config of a format must have."""
NUMBERED = re.compile(r"\b(blocks|experts)\.(\d+)\b")
"""What a stack or a mixture counts."""


class Field(NamedTuple):
    """One field of a config: where it stands with us, and where in the published file.

    Args:
        ours: an argument of the member, or of a stack: ``vocab_size``, ``config.dim``.
        theirs: ``n_embd``, ``vision_config.hidden_size``.
        default: what its absence means, in their terms.
        values: theirs -> ours, where they have other words for it.
    """

    ours: str
    theirs: str
    default: Any = REQUIRED
    values: Mapping[Any, Any] | None = None


class Reshape(NamedTuple):
    """How one of their tensors becomes ours, and back; both are told the module that owns it."""

    read: Callable[[Tensor, nn.Module], Tensor]
    write: Callable[[Tensor, nn.Module], Tensor]


TRANSPOSED = Reshape(lambda x, _: x.T, lambda x, _: x.T)
"""``(in, out)``, as GPT-2 stores its linear layers."""
FIRST = Reshape(lambda x, _: x[0], lambda x, _: x[None])
"""``(1, ...)``: a leading dimension of one that we do not have."""
ADDED = Reshape(lambda x, _: x[None], lambda x, _: x[0])
"""A leading dimension of one that they do not have."""
UNUSED = 2
"""Rows in front of fairseq's tables of positions (RoBERTa, OPT) that no token reads."""
POSITIONS = Reshape(
    lambda x, _: x[UNUSED:], lambda x, _: torch.cat([x.new_zeros(UNUSED, x.shape[1]), x])
)
"""Such a table."""


class Row(NamedTuple):
    """The place of one of our weights in a published file.

    Args:
        theirs: names, ``{}`` counting layers, and a second one experts; several are joined row by row.
        reshape: of each of them, before they are joined.
        sizes: rows of each of them; empty: those of queries, keys and values, or equal ones.
        copies: other names of the one in ``theirs``, under which files may hold it (too).
        share: ours is a part of theirs: ``(first, last, of)`` so many equal parts.
    """

    theirs: tuple[str, ...]
    reshape: Reshape | None = None
    sizes: tuple[int, ...] = ()
    copies: tuple[str, ...] = ()
    share: tuple[int, int, int] | None = None


Names = Mapping[str, str | tuple[str, ...] | Row]
"""Ours -> theirs; both without ``.weight`` and ``.bias`` where these are called so in both."""


@dataclass(frozen=True)
class Format:
    """A published layout of config and weights.

    Args:
        name: what ``save_pretrained(format=...)`` calls it.
        member: the class of ours that carries it.
        fields: the config.
        names: the weights; a function of our model where options decide what there is.
        model_types: values of ``model_type`` in ``config.json``; the first is written.
        architectures: values of ``architectures`` that we read; the first is written, unless
            ``finish`` says otherwise.
        constants: arguments of ours that the format always has.
        fixed: theirs -> the only value that we support, which absence means too.
        prefix: of all names of the stack, which files of the bare stack leave out.
        ignored: patterns of names in their files that hold no weight (buffers, copies), or weights
            that their model never reads; a function of all names where these decide.
        renamed: the current name of a weight that older files call otherwise.
        opened: their weights with those apart that some files pack together.
        new_classes: arguments that go with a fresh head of classes.
        replaced: beginnings of their names of heads, all of which a fresh one takes the place of.
        new_heads: the same where the classes are for one of the member's further tasks (``heads`` of its
            :class:`~family.models.member.Facts`), by task.
        detect: further arguments, from their config and the names of their weights.
        finish: what a written config has beside the table: given our model and the config so far.
        unread: weights that their loader wants, and nothing reads.
        left_out: patterns of names of weights that files may have, and that such a model of theirs does
            without.
        modules: rows whose names in their model in memory, which adapters have, are not those of
            files.
        image_processor: transformers' class for the preprocessing of its pictures.
        files: the names of config and weights; "" is no config.
    """

    name: str
    member: type[nn.Module]
    fields: Sequence[Field]
    names: Names | Callable[[Any], Names]
    model_types: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    constants: Mapping[str, Any] = attribute(default_factory=dict)
    fixed: Mapping[str, Any] = attribute(default_factory=dict)
    prefix: str = ""
    ignored: tuple[str, ...] | Callable[[set[str]], tuple[str, ...]] = ()
    renamed: Callable[[str], str] = str
    opened: Callable[[Weights], Weights] = lambda weights: weights
    new_classes: Mapping[str, Any] = attribute(default_factory=dict)
    replaced: tuple[str, ...] = ()
    new_heads: Mapping[str, Mapping[str, Any]] = attribute(default_factory=dict)
    detect: Callable[[dict[str, Any], set[str]], dict[str, Any]] = lambda config, names: {}
    finish: Callable[[Any, dict[str, Any]], dict[str, Any]] = lambda model, config: {}
    unread: Callable[[Any], dict[str, Tensor]] = lambda model: {}
    left_out: Callable[[Any], tuple[str, ...]] = lambda model: ()
    modules: Callable[[Any], Names] = lambda model: {}
    image_processor: str = ""
    files: tuple[str, str] = ("config.json", "model.safetensors")

    def leftovers(self, names: set[str]) -> tuple[str, ...]:
        """The patterns of what is ignored in files with these names."""
        return self.ignored(names) if callable(self.ignored) else self.ignored

    def table(self, model: nn.Module) -> Names:
        """The names of a model's weights."""
        return self.names(model) if callable(self.names) else self.names

    def loaded(self, model: nn.Module) -> Names:
        """The names of a model's weights in their model in memory."""
        return {**self.table(model), **self.modules(model)}


def blocks(ours: str, theirs: str, names: Names) -> dict[str, str | tuple[str, ...] | Row]:
    """The rows of a stack: names of one block, for every layer of ``ours.blocks.{}``.

    Args:
        theirs: as ``encoder.layers.{}``.
    """
    table: dict[str, str | tuple[str, ...] | Row] = {}
    for name, value in names.items():
        row = as_row(value)
        stacked = tuple(f"{theirs}.{part}" for part in row.theirs)
        table[f"{ours}.blocks.{{}}.{name}"] = row._replace(theirs=stacked)
    return table


def nested(names: Names, ours: str, theirs: str = "") -> dict[str, str | tuple[str, ...] | Row]:
    """The rows of a model that is a part of another: how all names begin there."""
    table: dict[str, str | tuple[str, ...] | Row] = {}
    for name, value in names.items():
        row = as_row(value)
        table[ours + name] = row._replace(theirs=tuple(theirs + part for part in row.theirs))
    return table


def as_row(value: str | tuple[str, ...] | Row) -> Row:
    if isinstance(value, Row):
        return value
    return Row((value,) if isinstance(value, str) else value)


def place(names: Names, ours: str) -> Row:
    """Where one of our weights stands in their files: its row, names complete.

    Raises:
        KeyError: the table does not know it.
    """
    numbers = [found[2] for found in NUMBERED.finditer(ours)]
    name = unnumbered(ours)
    stem, _, kind = name.rpartition(".")
    row = as_row(names[name]) if name in names else as_row(names[stem])
    ending = "" if name in names else f".{kind}"
    theirs, copies = (
        tuple(part.format(*numbers) + ending for part in names)
        for names in (row.theirs, row.copies)
    )
    return row._replace(theirs=theirs, copies=copies)


def unnumbered(name: str) -> str:
    """``blocks.3.feedforward`` as tables have it: ``blocks.{}.feedforward``."""
    return NUMBERED.sub(r"\1.{}", name)


def join(parts: Sequence[Tensor], row: Row, owner: nn.Module) -> Tensor:
    """Ours, from the tensors that a row names."""
    if row.share is not None:
        first, last, of = row.share
        parts = [torch.cat(part.chunk(of)[first:last]) for part in parts]
    if row.reshape is not None:
        parts = [row.reshape.read(part, owner) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def split(value: Tensor, row: Row, owner: nn.Module, ours: str) -> list[Tensor]:
    """The reverse of :func:`join`."""
    count = len(row.theirs)
    sizes = list(row.sizes)
    if not sizes and isinstance(owner, Attention) and ".qkv." in ours and count == 3:
        keys = owner.kv_heads * owner.head_dim
        sizes = [owner.heads * owner.head_dim, keys, keys]
    parts = [value]
    if count > 1:
        parts = list(value.split(sizes)) if sizes else list(value.chunk(count))
    if row.reshape is not None:
        parts = [row.reshape.write(part, owner) for part in parts]
    return parts


def owner_of(model: nn.Module, name: str) -> nn.Module:
    """The attention, feed-forward or other module that a weight's layer belongs to."""
    path = name.split(".")
    return model.get_submodule(".".join(path[:-2])) if len(path) > 2 else model
