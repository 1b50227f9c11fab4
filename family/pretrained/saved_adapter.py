"""LoRA adapters written in peft's layout, see :mod:`family.pretrained.adapters`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import torch
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn

from family.adapt.lora import LoRALinear, adapted
from family.models.member import build, describe
from family.pretrained.adapters import BEGINNING, CONFIG, WEIGHTS, modules, uncounted
from family.pretrained.configs import to_config
from family.pretrained.formats import FORMATS, as_format
from family.pretrained.saved import new_folder, write_fields
from family.pretrained.table import Format, Names, as_row, owner_of, place, split
from family.pretrained.weights import read_json, save_tensors


class Pair(NamedTuple):
    """The adapter of one of their linear layers."""

    rank: int
    alpha: float
    a: Tensor
    b: Tensor


@torch.no_grad()
def save_adapter(
    model: nn.Module, folder: str | Path, base: str | Path, format: str | None = None
) -> None:
    """Write the LoRA layers of a model as peft does: its ``PeftModel.from_pretrained(base, folder)``
    loads them, and so does our :func:`~family.pretrained.sources.from_pretrained`.

    Exact also where layers are fused otherwise than theirs: an A that several of theirs share is
    repeated, adapters that meet in one of theirs become one of the sum of their ranks. What learns
    beside the adapters (a head of classes) is written whole.

    Args:
        folder: must not exist, or be empty.
        base: what was adapted, for the config: a folder, a hub id.
        format: the published format of the base; None is that of its ``config.json`` or, where that
            says none, the only one that can express the model.

    Raises:
        ValueError: a model without LoRA layers; a format that cannot express it, or several that
            can; a folder that holds something.
    """
    target, layers = new_folder(folder), dict(adapted(model))
    if not layers:
        raise ValueError("the model has no LoRA layers: add_lora(model, rank) first.")
    for name in layers:
        whole = name.rpartition(".")[0]
        if ".experts." in name and name.endswith(".up") and f"{whole}.down" not in layers:
            raise ValueError(
                f"peft leaves out the adapters of {name} where {whole}.down has none: add *.down to "
                "the targets."
            )
    plain = unadapted(model)
    layout = format_of(plain, base, format)
    config, names = to_config(layout, plain), layout.loaded(plain)
    places = modules(names, plain)
    beyond = layers.keys() - {where.layer for where in places.values()}
    if beyond:
        raise ValueError(
            f"format={layout.name!r} has no linear layer of its own for {min(beyond)}, which peft "
            "could adapt."
        )
    # The class of a bare stack leaves the prefix out, as its files do.
    theirs = (part for name in plain.state_dict() for part in place(names, name).theirs)
    bare = all(part.startswith(layout.prefix) for part in theirs)
    prefix = layout.prefix if bare else ""
    found: dict[str, Pair] = {}
    for name, (layer, rows, _) in places.items():
        pair = restricted(layers[layer], rows) if layer in layers else None
        if pair is not None:
            found[name.removeprefix(prefix)] = pair
    saved, state = trained(model, names, prefix)
    known = [name.removeprefix(prefix) for name in (*places, *missing(names, places))]
    fields = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(Path(base).resolve() if Path(base).exists() else base),
        **describe_pairs(found),
        "target_modules": targets(found, known),
        "lora_dropout": max(layer.dropout.p for layer in layers.values()),
        "fan_in_fan_out": any(where.transposed for where in places.values()),
        "bias": "none",
        "inference_mode": True,
    }
    if saved:
        fields["modules_to_save"] = saved
    if "architectures" in config:
        named = {"base_model_class": config["architectures"][0], "parent_library": "transformers"}
        fields["auto_mapping"] = named
    for name, pair in found.items():
        state[f"{BEGINNING}{name}.lora_A.weight"] = pair.a
        state[f"{BEGINNING}{name}.lora_B.weight"] = pair.b
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(state, target / WEIGHTS)
    write_fields(fields, target / CONFIG)


def trained(model: nn.Module, names: Names, prefix: str) -> tuple[list[str], dict[str, Tensor]]:
    """The modules of which something learns beside the adapters, and all weights of theirs, by the
    names of a file.

    Raises:
        ValueError: one that is tied to another, or only a part of one of theirs.
    """
    parameters = {
        name: (parameter, place(names, name))
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if ".lora_" not in name and ".base." not in name
    }
    owners = Counter(id(parameter) for parameter, _ in parameters.values())
    found: set[str] = set()
    for name, (parameter, row) in parameters.items():
        if parameter.requires_grad:
            if owners[id(parameter)] > 1 or row.share is not None:
                raise ValueError(
                    f"{name} learns beside the adapters, but stands for more or less than one "
                    "weight of theirs, which alone peft could hold."
                )
            found |= {part.rpartition(".")[0] for part in row.theirs}
    state = {}
    for name, (parameter, row) in parameters.items():
        parts = split(parameter.detach(), row, owner_of(model, name), name)
        for theirs, part in zip(row.theirs, parts, strict=True):
            if any(theirs.startswith(f"{module}.") for module in found):
                written = theirs.removeprefix(prefix)
                state[BEGINNING + written] = part.clone(memory_format=torch.contiguous_format)
    return sorted(module.removeprefix(prefix) for module in found), state


def unadapted(model: nn.Module) -> nn.Module:
    """The model as it was built, without memory for its weights.

    Raises:
        ValueError: no member of the family.
    """
    described = describe(model)
    with torch.device("meta"):
        return build(type(model), described["arguments"])


def format_of(plain: nn.Module, base: str | Path, format: str | None) -> Format:
    """The published format of a base; see :func:`save_adapter`.

    Args:
        plain: the model without LoRA layers.

    Raises:
        ValueError: an unknown format; none that can express the model, or several.
    """
    if format is not None:
        return as_format(format)
    config = base_config(base)
    if "architecture" in config:  # as timm's, see sources.read_model
        return FORMATS["timm"]
    fitting: dict[frozenset[str], Format] = {}
    for layout in FORMATS.values():
        if config.get("model_type") in layout.model_types:
            return layout
        if layout.member is type(plain) and expresses(layout, plain):
            fitting.setdefault(frozenset(modules(layout.loaded(plain), plain)), layout)
    if len(fitting) == 1:
        return fitting.popitem()[1]
    member, found = type(plain).__name__, ", ".join(layout.name for layout in fitting.values())
    raise ValueError(
        f"the base {base} does not say its format, and {found} can all express this {member}: give "
        "format."
        if fitting
        else f"no published format can express this {member}."
    )


def base_config(base: str | Path) -> dict[str, Any]:
    """The ``config.json`` of a base that lies in a folder, or in the cache of the hub; or nothing."""
    file: Any = Path(base) / "config.json"
    if not Path(base).exists():
        try:
            file = huggingface_hub.try_to_load_from_cache(str(base), "config.json")
        except HFValidationError:
            return {}
    return read_json(Path(file)) if isinstance(file, str | Path) and Path(file).is_file() else {}


def expresses(layout: Format, plain: nn.Module) -> bool:
    try:
        to_config(layout, plain)
    except ValueError:
        return False
    return True


def restricted(layer: LoRALinear, rows: Tensor) -> Pair | None:
    """What a layer's adapters do to some of its rows, as one adapter; None if nothing."""
    first, last, count = int(rows.min()), int(rows.max()) + 1, layer.base.out_features
    there = []
    for adapter, a, b in layer.pieces():
        begin, end = adapter.rows or (0, count)
        if begin < last and first < end:
            there.append((adapter, begin, end, a.weight, b.weight))
    if not there:
        return None
    whole_a = torch.cat([a for *_, a, _ in there])
    whole_b = whole_a.new_zeros(count, len(whole_a))
    one = there[0][0]
    same = len({adapter.alpha / adapter.rank for adapter, *_ in there}) == 1
    column = 0
    for adapter, begin, end, _, b in there:
        factor = 1.0 if same else adapter.alpha / adapter.rank
        whole_b[begin:end, column : column + adapter.rank] = factor * b
        column += adapter.rank
    alpha = one.alpha * (column / one.rank) if same else column
    return Pair(column, alpha, whole_a, whole_b[rows])


def describe_pairs(found: Mapping[str, Pair]) -> dict[str, Any]:
    """Ranks and alphas for a config: the most common ones, and by name those that differ."""
    fields: dict[str, Any] = {}
    for field, patterns, values in (
        ("r", "rank_pattern", {name: pair.rank for name, pair in found.items()}),
        ("lora_alpha", "alpha_pattern", {name: whole(pair.alpha) for name, pair in found.items()}),
    ):
        fields[field] = Counter(values.values()).most_common(1)[0][0]
        others = {name: value for name, value in values.items() if value != fields[field]}
        fields[patterns] = others
    return fields


def whole(value: float) -> float:
    """As a whole number, if it is one."""
    return int(value) if value == int(value) else value


def targets(found: Collection[str], known: Collection[str]) -> list[str]:
    """What makes peft find these modules and no others of all that are known: the last word of a
    name, where it tells, or the whole name."""
    last = {name: name.rpartition(".")[2] for name in (*known, *found)}
    elsewhere = {last[name] for name in known if name not in found}
    elsewhere |= {word for name in last for word in name.split(".")[:-1]}  # what holds them
    return sorted({name if last[name] in elsewhere else last[name] for name in found})


def missing(names: Names, there: Collection[str]) -> set[str]:
    """What a format has a place for and a model has not, layers uncounted."""
    stems = {part.removesuffix(".weight") for row in names.values() for part in as_row(row).theirs}
    have = {uncounted(name) for name in there}
    return {stem for stem in stems if uncounted(stem) not in have}
