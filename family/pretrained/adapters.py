"""LoRA adapters in peft's layout: read into the base that their config names.

A folder holds ``adapter_config.json``, and the A and B of each adapted layer by the name of its module
in the base's own library. Which of our rows those are is told by the table of the base's published
format. :mod:`family.pretrained.saved_adapter` writes such folders.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from family.adapt.lora import Adapter, adapted, linear_layers, projections, put_adapters
from family.pretrained.formats import FORMATS
from family.pretrained.table import NUMBERED, Format, Names, as_row, join, owner_of, place, split
from family.pretrained.weights import Weights, open_file, read_json, read_pickled

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
BEGINNING = "base_model.model."
NAME = re.compile(rf"(?:{re.escape(BEGINNING)})?(.+)\.lora_([AB])\.weight")
READ = {"r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"}
READ |= {"peft_type", "base_model_name_or_path", "target_modules", "exclude_modules"}
READ |= {"layers_to_transform", "layers_pattern", "init_lora_weights", "modules_to_save"}
WITHOUT_EFFECT = {"task_type", "auto_mapping", "peft_version", "inference_mode", "runtime_config"}
WITHOUT_EFFECT |= {"fan_in_fan_out", "megatron_core", "qalora_group_size"}
WITHOUT_EFFECT |= {"loftq_config", "eva_config", "corda_config", "lora_ga_config"}
"""Fields that do not change what an adapter computes: peft itself finds out which layers are stored
transposed, and how A and B began matters no longer. All that is not here must be off."""
BEGINNINGS = ("gaussian", "eva", "orthogonal", "mica")
"""Initial values of A and B that leave the base's weights as they are."""
FUSED = ".in_proj_weight"
"""Of ``nn.MultiheadAttention``, which reads the weight of its ``out_proj`` and never calls it."""
DEFAULTS = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}


class Place(NamedTuple):
    """Where one of their linear layers stands in our model.

    Args:
        layer: the name of ours, whose part it may be.
        rows: our row for each of theirs.
        transposed: whether they store it ``(in, out)``.
    """

    layer: str
    rows: Tensor
    transposed: bool


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def base_of(folder: Path) -> str:
    """What the config of an adapter calls its base: a folder, seen from here or from the adapter's
    own, or any other source.

    Raises:
        ValueError: no config of a LoRA, or one that names no base.
    """
    file = folder / CONFIG
    config = read_json(file)
    check_config(config, file)
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ValueError(f"{file}: base_model_name_or_path={named!r} names no base model.")
    beside = folder / named
    return str(beside) if not Path(named).exists() and beside.exists() else named


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Refuse what changes the computation and is not read.

    Raises:
        ValueError: one sentence that names it.
    """
    kind, start = config.get("peft_type"), config.get("init_lora_weights", True)
    if kind != "LORA":
        raise ValueError(f"{file}: peft_type={kind!r} is not supported; only 'LORA' is.")
    if isinstance(start, str) and start.lower() not in BEGINNINGS:
        raise ValueError(
            f"{file}: init_lora_weights={start!r} is not supported, for it changes the base's "
            "weights; peft converts such an adapter (path_initial_model_for_weight_conversion)."
        )
    off = {"bias": "none", "revision": "main"}
    for name in sorted(config.keys() - READ - WITHOUT_EFFECT):
        value = config[name]
        if value and value != off.get(name):
            raise ValueError(f"{file}: {name}={reprlib.repr(value)} is not supported.")


def read_adapters(model: nn.Module, layout: Format, folder: Path) -> None:
    """Put the adapters of a folder into its base, see :func:`base_of`. All else is frozen, but for
    what the folder holds whole, in the place of the base's (a head that was trained too).

    Args:
        layout: the format that the base was read from.

    Raises:
        ValueError: adapters that have no place in the model, have another shape than the config
            says, or are not those that it asks for.
    """
    file = folder / CONFIG
    config = {**DEFAULTS, **read_json(file)}
    weights = open_weights(folder)
    pairs, others = sorted_out(weights)
    layout, places = find_places(model, layout, pairs, weights.origin)
    try:
        check_targets(config, places, pairs, weights.origin)
        strengths = {name: strength(config, name) for name in pairs}
        dropout = number("lora_dropout", config["lora_dropout"])
        saved = [*(config.get("modules_to_save") or ())]
    except (TypeError, AttributeError, re.error) as error:
        raise ValueError(f"{file} has a field of a wrong type or value: {error}.") from None
    found: dict[str, dict[Adapter, tuple[Tensor, Tensor]]] = {}
    for name, (a, b) in pairs.items():
        layer, rows, _ = places[name]
        (rank, alpha), base = strengths[name], model.get_submodule(layer)
        for letter, value, shape in (
            ("A", a, (rank, base.in_features)),
            ("B", b, (len(rows), rank)),
        ):
            if value.shape != shape:
                raise ValueError(
                    f"{weights.origin}: lora_{letter} of {name} has the shape "
                    f"{tuple(value.shape)}, but its config and the base take {shape}."
                )
        adapter = Adapter(rank, alpha, *part_of(model, layer, rows))
        ours = found.setdefault(layer, {})
        if any(other.part == adapter.part for other in ours):
            raise ValueError(f"{weights.origin} has two adapters of one layer, {name}.")
        ours[adapter] = a, b[rows.argsort()]
    adapters = {name: sorted(each, key=lambda a: a.rows or ()) for name, each in found.items()}
    try:
        replaced = read_whole(model, layout, others, saved, found)
        put_adapters(model, adapters, dropout)
    except ValueError as error:
        raise ValueError(f"{weights.origin}: {error}") from None
    for parameter in replaced:
        parameter.requires_grad = True
    with torch.no_grad():
        for name, module in adapted(model):
            for adapter, a, b in module.pieces():
                a.weight.copy_(found[name][adapter][0])
                b.weight.copy_(found[name][adapter][1])


def open_weights(folder: Path) -> Weights:
    """The A and B of a folder.

    Raises:
        ValueError: there is no file of them, or it is broken.
    """
    if (folder / WEIGHTS).is_file():
        return open_file(folder / WEIGHTS)
    if (folder / PICKLED).is_file():
        return Weights(read_pickled(folder / PICKLED), str(folder / PICKLED))
    raise ValueError(f"{folder} holds no adapters: {WEIGHTS} or {PICKLED} is wanted.")


def sorted_out(weights: Weights) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Module -> its A and B; and, by name, what else the file holds.

    Raises:
        ValueError: another part of an adapter, or A or B alone.
    """
    found: dict[str, dict[str, Tensor]] = {}
    others = {}
    for name in weights.places:
        match = NAME.fullmatch(name)
        if match is not None:
            found.setdefault(match[1], {})[match[2]] = weights.read(name)
        elif ".lora_" in name:
            raise ValueError(
                f"{weights.origin} has {name}, which is no A or B of a linear layer's weight."
            )
        else:
            others[name.removeprefix(BEGINNING).replace(".base_layer.", ".")] = weights.read(name)
    for name, pair in found.items():
        if len(pair) < 2:
            raise ValueError(f"{weights.origin} has lora_{next(iter(pair))} of {name} alone.")
    return {name: (pair["A"], pair["B"]) for name, pair in found.items()}, others


def find_places(
    model: nn.Module, layout: Format, names: Mapping[str, Any], origin: str
) -> tuple[Format, dict[str, Place]]:
    """The format of the names, and all their linear layers that the model has, by every name that
    they may have.

    A base in no published format (one of our own folders, a GGUF file) may have adapters in any of
    its member's.

    Raises:
        ValueError: a name that is none of them.
    """
    published = any(layout is each for each in FORMATS.values())
    others = [] if published else [e for e in FORMATS.values() if e.member is type(model)]
    unknown: list[str] = []
    for each in (layout, *others):
        found = modules(each.table(model), model) | modules(each.loaded(model), model)
        places = {name.removeprefix(each.prefix): where for name, where in found.items()} | found
        left = sorted(names.keys() - places.keys())
        if not left:
            return each, places
        unknown = unknown or left
    raise ValueError(
        f"{origin} has an adapter of {unknown[0]}, which is no linear layer of this "
        f"{type(model).__name__}."
    )


def modules(names: Names, model: nn.Module) -> dict[str, Place]:
    """Their linear layers that those of a model are made of, by the names of a format's table."""
    theirs_all = {part for value in names.values() for part in as_row(value).theirs}
    fused = {uncounted(n.removesuffix(FUSED)) for n in theirs_all if n.endswith(FUSED)}
    found = {}
    for layer, module in linear_layers(model).items():
        weight = f"{layer}.weight"
        try:
            row = place(names, weight)
        except KeyError:
            continue
        # Numbered, our rows show which of theirs each becomes.
        numbers = torch.arange(module.out_features)[:, None]
        parts = split(numbers, row, owner_of(model, weight), weight)
        for theirs, part in zip(row.theirs, parts, strict=True):
            rows = part.flatten()
            together = int(rows.max()) - int(rows.min()) + 1 == len(rows)
            name = theirs.removesuffix(".weight")
            beside = uncounted(name).rpartition(".")[0] in fused
            if name != theirs and row.share is None and together and not beside:
                found[name] = Place(layer, rows, transposed=part.shape[0] == 1)
    return found


def uncounted(name: str) -> str:
    """A name without the numbers of its layers."""
    return re.sub(r"\d+", "{}", name)


def read_whole(
    model: nn.Module,
    layout: Format,
    theirs: Mapping[str, Tensor],
    saved: Sequence[str],
    layers: Collection[str],
) -> list[nn.Parameter]:
    """Put weights in the place of the model's.

    Args:
        theirs: by their names.
        saved: modules of theirs, which must be here if the model has them.
        layers: ours that are adapted, whose weights must be what they are.

    Returns:
        those that are not as before.

    Raises:
        ValueError: one that is missing, has no place, or has another shape.
    """
    left, replaced = set(theirs), []
    tables = layout.table(model), layout.loaded(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    owners = Counter(map(id, parameters.values()))
    for name, ours in parameters.items():
        try:
            rows = [place(names, name) for names in tables]
        except KeyError:
            continue
        for row in rows:
            given = [n if n in theirs else n.removeprefix(layout.prefix) for n in row.theirs]
            if theirs.keys() >= {*given}:
                break
        else:
            wanted = [n for row in rows for n in row.theirs if within(n, saved)]
            if wanted:
                raise ValueError(f"{wanted[0]} is not there, though modules_to_save says so.")
            continue
        left -= {*given}
        value = join([theirs[n] for n in given], row, owner_of(model, name))
        if value.shape != ours.shape:
            raise ValueError(
                f"{given[0]} has the shape {tuple(value.shape)}, but the base takes "
                f"{tuple(ours.shape)} as {name}."
            )
        if torch.equal(value.to(ours.dtype), ours):
            continue
        if owners[id(ours)] > 1 or name.rpartition(".")[0] in layers:
            raise ValueError(f"{given[0]} is not the base's, but is adapted or tied to another.")
        with torch.no_grad():
            ours.copy_(value)
        replaced.append(ours)
    if left:
        hint = "; classes need num_classes" if getattr(model, "num_classes", None) == 0 else ""
        raise ValueError(f"the base has no place for the weight {min(left)}{hint}.")
    return replaced


def within(name: str, modules: Sequence[str]) -> bool:
    """Whether a weight is one of some modules, which are named by how their names end."""
    return any(f".{module}." in f".{name}" for module in modules)


def part_of(model: nn.Module, layer: str, rows: Tensor) -> tuple[str, tuple[int, int] | None]:
    """The name of some rows of a layer that lie together, and where they begin and end."""
    own = int(rows.min()), int(rows.max()) + 1
    if own == (0, model.get_submodule(layer).out_features):
        return "", None
    named = {where: part for part, where in projections(model, layer).items()}
    return named.get(own, "rows_{}_{}".format(*own)), own


def check_targets(
    config: Mapping[str, Any], places: Mapping[str, Place], names: Mapping[str, Any], origin: str
) -> None:
    """Refuse adapters that the config does not ask for, which peft would overlook, and a block of
    which some are missing.

    Raises:
        ValueError: there is one.
    """
    if config.get("target_modules") in (None, "all-linear"):
        return
    there = {(places[name].layer, int(places[name].rows.min())) for name in names}
    for name in names:
        if not targeted(config, name):
            raise ValueError(
                f"{origin} has an adapter of {name}, which is not among its config's target_modules."
            )
    for name, (layer, rows, _) in places.items():
        # Of what is no block, their model may have other parts than ours.
        missing = NUMBERED.search(layer) and (layer, int(rows.min())) not in there
        if missing and targeted(config, name):
            raise ValueError(
                f"{origin} has no adapter of {name}, which its config's target_modules ask for."
            )


def targeted(config: Mapping[str, Any], name: str) -> bool:
    """Whether peft adapts the linear layer of a name."""
    wanted, left_out = config["target_modules"], config.get("exclude_modules") or []
    if named(left_out, name) or not named(wanted, name):
        return False
    layers, patterns = config.get("layers_to_transform"), config.get("layers_pattern")
    if layers is None or layers == [] or isinstance(wanted, str):
        return True
    layers = [layers] if isinstance(layers, int) else layers
    patterns = [patterns] if isinstance(patterns, str) else patterns or ["[^.]*"]
    found = (re.match(rf"(?:.*?\.)?{pattern}\.(\d+)\.", name) for pattern in patterns)
    return any(match is not None and int(match[1]) in layers for match in found)


def named(wanted: str | Sequence[str], name: str) -> bool:
    """Whether a name is what an expression says, or ends as one of several."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in wanted)


def strength(config: Mapping[str, Any], name: str) -> tuple[int, float]:
    """Rank and alpha of the adapter of a linear layer; "rs" LoRA divides by the root of the rank
    (Kalajdzievski 2023)."""
    rank, alpha = (
        number(field, pattern_value(config.get(patterns) or {}, name, config[field]))
        for field, patterns in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern"))
    )
    if rank != int(rank) or rank < 1:
        raise TypeError(f"r={rank!r} is no rank")
    return int(rank), alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def pattern_value(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of the first pattern that a name ends as."""
    for pattern, value in patterns.items():
        if re.match(rf"(?:.*\.)?(?:{pattern})$", name):
            return value
    return default


def number(field: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field}={value!r} is no number")
    return value
