"""Checkpoints of runs, read without what trained them: a model, its weights, and what goes with it.

A checkpoint is a ``.ckpt`` file with a record called ``family``: the task, the class path and arguments
of the model, what the data decided of it, LoRA's options, and the assets of inference as plain values
(tokenizers, labels, preprocessing). Nothing in it is executed; of what it names, only a model's class is
called.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
import yaml
from torch import Tensor, nn

from family.adapt.lora import add_lora, merge_lora
from family.inputs.pointers import refuse_pointer
from family.inputs.preprocess import as_preprocess
from family.inputs.tokenizer import Tokenizer
from family.models.languages import LanguageTokens
from family.models.member import is_member, ready
from family.pretrained.found import Published
from family.pretrained.generation import generation_of
from family.pretrained.parts import check_parts, fill, in_parts
from family.pretrained.records import are_weights, damaged, is_whole
from family.pretrained.saved import CONFIG, MODEL_TYPE, same_names
from family.pretrained.table import Format
from family.pretrained.weights import Weights

LOG = logging.getLogger(__name__)
ENDING = ".ckpt"
LEFT = ("config.yaml", "state.json")
"""What a run has from its first moment on."""
CONFIGS = ("open_clip_config.json", "modules.json")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
"""What a folder holds that is itself a model's."""
NEEDED = ("num_classes", "vocab_size", "target_vocab_size")
"""What a model must take from data that decide it."""


@dataclass(frozen=True)
class Run:
    """A checkpoint that was read.

    Args:
        file: where it lies.
        record: what it says of itself.
        state: the weights of the model by their names.
    """

    file: Path
    record: dict[str, Any]
    state: dict[str, Tensor]

    @property
    def task(self) -> str:
        """The name of the task of ours that trained it, or that the one who did is derived from."""
        return self.record.get("kind") or self.record["task"].rpartition(".")[2]

    @property
    def assets(self) -> dict[str, Any]:
        """What inference needs beside the model, as plain values."""
        return self.record["assets"]


# --- Files ---


def is_run(source: Any) -> TypeGuard[str | Path]:
    """Whether a source is a ``.ckpt`` file, or the folder of a run; or a folder with one somewhere below
    that is not itself a model's, which has a config or weights in it."""
    if not isinstance(source, str | Path):
        return False
    place = Path(source)
    if not place.is_dir():
        return place.suffix == ENDING
    if (place / CONFIG).is_file():
        return False
    if all((place / name).is_file() for name in LEFT):  # maybe without a checkpoint so far
        return True
    if any(place.glob(f"*{ENDING}")) or any(place.glob(f"checkpoints/*{ENDING}")):
        return True
    own = any(file.suffix in WEIGHTS or file.name in CONFIGS for file in place.iterdir())
    return not own and any(place.rglob(f"*{ENDING}"))


def find_checkpoint(path: str | Path, prefer: str = "best") -> Path:
    """A ``.ckpt`` file, or that of a run's folder: ``prefer``, else the last, else the newest.

    Of several called so the one in the uppermost folder: a config's own callbacks write further down.
    Which it is of a folder of several runs, a warning says.

    Raises:
        ValueError: there is none.
    """
    file = Path(path)
    if file.is_dir():
        there = (p for p in file.rglob(f"*{ENDING}") if p.is_file())  # a link may lead nowhere
        found = sorted(there, key=lambda p: p.stat().st_mtime)
        if not found:
            raise ValueError(f"{path} holds no checkpoint (*{ENDING}).")
        file = found[-1]
        for name in ("last", prefer):
            if called := [p for p in found if p.stem == name]:
                file = min(reversed(called), key=lambda p: len(p.parts))
        runs = {Path(*p.parts[: -1 - (p.parent.name == "checkpoints")]) for p in found}
        if len(runs) > 1 and Path(path) not in runs:
            LOG.warning("%s holds %d runs; %s is taken.", path, len(runs), file)
    if not file.is_file():
        raise ValueError(f"{path} does not exist.")
    return file


def read_checkpoint(file: Path, any_module: bool = False, weights: bool = True) -> dict[str, Any]:
    """All that a file holds, as plain values and tensors; nothing in it is executed.

    Args:
        any_module: a checkpoint of Lightning's own will do, be it of no task of ours.
        weights: read those that lie beside the file too, of a checkpoint in parts (see
            :mod:`family.pretrained.parts`); without, that they are there is checked alone. What else lies
            there, such as the optimizer's state, is not read.

    Raises:
        ValueError: no checkpoint of ours, or one whose parts are not there.
    """
    refuse_pointer(file)
    content = read_file(file, any_module)
    if in_parts(content):
        if weights:
            fill(file, content, ["state_dict"])
        else:
            check_parts(file, content)
    return content


def read_file(file: Path, any_module: bool) -> dict[str, Any]:
    """See :func:`read_checkpoint`; without what lies beside it."""
    try:
        # Mapped: weights that nobody asks for are never read.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        weights, record = content["state_dict"], content.get("family")
        whole = is_whole(record)
        if whole:
            add_length(file, content)
        if (any_module and isinstance(weights, dict)) or (whole and are_weights(weights)):
            return content
    except Exception:  # a broken file may end in any error of its readers
        pass
    raise ValueError(f"{file} is not a checkpoint of this project.")


def add_length(file: Path, content: dict[str, Any]) -> None:
    """Say in the record of a language model of before how long the texts of its training were, where
    the options of its data are known: from the checkpoint, or the run's config."""
    record = content["family"]
    kind = record.get("kind") or str(record["task"]).rpartition(".")[2]
    if kind != "LanguageModeling" or record.get("pretrained") or "generation" in record["assets"]:
        return
    parts = (part for part in content.values() if isinstance(part, dict))
    options: Any = next((part["options"] for part in parts if "options" in part), {})
    config = file.parent.parent / "config.yaml"
    if "context" not in options and config.is_file():
        try:
            options = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]["init_args"]
        except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
            options = {}
    length = (options or {}).get("context")
    if isinstance(length, int) and length > 0:
        record["assets"]["generation"] = {"trained_tokens": length}


def open_run(path: str | Path) -> Run:
    """The checkpoint of a file or of a run's folder.

    Raises:
        ValueError: there is none, or it is not one of ours.
    """
    file = find_checkpoint(path)
    content = read_checkpoint(file)
    record, named = content["family"], content["state_dict"]
    # The module of a stranger is the model, as a whole.
    prefix = "" if record.get("whole") else "model."
    state = {n.removeprefix(prefix): value for n, value in named.items() if n.startswith(prefix)}
    return Run(file, record, state)


# --- The model that a record describes ---


def find_class(path: str) -> type[nn.Module]:
    """The model's class that a path names.

    Raises:
        ValueError: there is none, or it is no model: what a checkpoint names must call nothing else.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"the model {path} cannot be found: {error}.") from None
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ValueError(f"the model {path} is no class of torch.nn.Module.")
    return found


def described(
    spec: Mapping[str, Any], arguments: dict[str, Any], origin: str | Path = "the checkpoint"
) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class of a model and all its arguments, with those that the data gave.

    Args:
        spec: ``class_path`` and ``init_args``.
        arguments: what the data decided.
        origin: what to call the checkpoint in an error.

    Raises:
        ValueError: a model that was handed in, which nothing can describe; see :func:`find_class` and
            :func:`accepted` too.
    """
    path = spec.get("class_path")
    if path is None or spec.get("init_args", {}) is None:
        name = "model" if path is None else path.rpartition(".")[2]
        raise ValueError(
            f"{origin} was trained around a {name} handed in from Python, which a checkpoint cannot "
            f"describe: give Task.load_from_checkpoint({str(origin)!r}, model=...) one like it."
        )
    model = find_class(path)
    given = ready(model, spec.get("init_args") or {})
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(value.get("class_path"), str):
            given[name] = build_model(value, {}, origin)  # a part that is a module by itself
    if is_member(model) and given.get("pretrained"):
        given["pretrained"] = False  # nothing is fetched: the checkpoint's weights follow
    return model, {**given, **accepted(model, arguments, given)}


def build_model(
    spec: Mapping[str, Any], arguments: dict[str, Any], origin: str | Path = "the checkpoint"
) -> nn.Module:
    """The model of a class path and its arguments, see :func:`described`.

    Raises:
        ValueError: see there; or arguments that its class refuses.
    """
    model, given = described(spec, arguments, origin)
    try:
        return model(**given)
    except TypeError as error:
        raise ValueError(f"{origin}: {error}.") from error


def accepted(
    build: Callable[..., nn.Module], arguments: dict[str, Any], known: Collection[str] | None = None
) -> dict[str, Any]:
    """Of what the data decides, what a model takes: a CNN, say, asks for no size of pictures.

    Args:
        build: a class, or a function that makes a model.
        known: the arguments that are known of it, with those that its ``**`` stands for. Where there
            are none of the latter, it stands for any name, unless this is a network of timm or
            torchvision, whose parts would refuse ours.

    Raises:
        ValueError: it takes no number of classes or of tokens.
    """
    parameters = inspect.signature(build).parameters
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    behind = {*(known or ())} - {*parameters}
    if rest and not behind and build.__module__.split(".")[0] not in ("timm", "torchvision"):
        return arguments
    names = {*parameters, *behind, *(NEEDED if rest else ())}
    for name in NEEDED:
        if name in arguments and name not in names:
            maker = getattr(build, "__qualname__", type(build).__qualname__)
            raise ValueError(f"model: {maker} takes no {name}, which the data decides.")
    return {name: value for name, value in arguments.items() if name in names}


# --- With its weights ---


def trained_class(run: Run) -> type[nn.Module]:
    """The class of a run's model.

    Raises:
        ValueError: see :func:`described`.
    """
    with damaged(run.file):
        return described(run.record["model"], run.record["arguments"], run.file)[0]


def published(run: Run) -> Published:
    """The run of a member, as a published model is found.

    Raises:
        ValueError: a model that is no member of the family, or a record that is damaged.
    """
    with damaged(run.file):
        return found_in(run)


def found_in(run: Run) -> Published:
    member, arguments = described(run.record["model"], run.record["arguments"], run.file)
    if not is_member(member):
        raise ValueError(f"{run.file} holds a {member.__name__}, which is no member of the family.")
    state = run.state
    if run.record.get("lora") is not None:
        state = rebuilt(run).state_dict()
    assets = run.assets
    preprocess = assets.get("preprocess")
    return Published(
        Format(MODEL_TYPE, member, fields=(), names=same_names),
        arguments,
        Weights(state, str(run.file)),
        labels=assets.get("labels"),
        category_ids=assets.get("category_ids"),
        preprocess=None if preprocess is None else as_preprocess(preprocess),
        tokenizer=tokenizer_of(assets),
        generation=generation_of(assets.get("generation")),
        threshold=assets.get("threshold"),
        languages=LanguageTokens.from_fields(assets.get("languages")),
        problem_type=assets.get("problem_type"),
        things=assets.get("things"),
    )


def rebuilt(run: Run) -> nn.Module:
    """The model of a run, member or not, with its weights, in eval mode; LoRA is merged.

    Raises:
        ValueError: see :func:`build_model`; or weights that do not fit.
    """
    model = build_model(run.record["model"], run.record["arguments"], run.file)
    lora = run.record.get("lora")
    if lora is not None:
        add_lora(model, **lora)
    try:
        model.load_state_dict(run.state)
    except RuntimeError as error:
        name = type(model).__name__
        raise ValueError(f"{run.file} does not fit a {name}: {misfit(error)}") from None
    merge_lora(model, remove=True)
    return model.eval()


def misfit(error: RuntimeError) -> str:
    """The first of what PyTorch says of weights that do not fit a model."""
    return " ".join(str(error).splitlines()[1].split())


def equipped(run: Run) -> Any:
    """:func:`rebuilt`, with what goes with it."""
    with damaged(run.file):
        return equip(rebuilt(run), run.assets)


def equip(model: Any, assets: Mapping[str, Any]) -> Any:
    """Give a model tokenizer, preprocessing and labels of a checkpoint, unless it has its own."""
    preprocess = assets.get("preprocess")
    for name, value in (
        ("tokenizer", tokenizer_of(assets)),
        ("preprocess", None if preprocess is None else as_preprocess(preprocess)),
        ("labels", assets.get("labels")),
        ("problem_type", assets.get("problem_type")),
        ("generation", generation_of(assets.get("generation"))),
        ("category_ids", assets.get("category_ids")),
        ("things", assets.get("things")),
        ("language_tokens", LanguageTokens.from_fields(assets.get("languages"))),
    ):
        if getattr(model, name, None) is None:
            setattr(model, name, value)
    return model


def tokenizer_of(assets: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer that a checkpoint carries; of translation that of the sources, whose ``target`` is
    that of the translations."""
    texts = assets.get("tokenizers")
    if not texts:
        return None
    first = texts.get("text") or texts["source"]
    tokenizer = Tokenizer.from_json(first)
    if texts.get("target", first) != first:
        tokenizer.target = Tokenizer.from_json(texts["target"]).target
    if assets.get("max_tokens"):
        tokenizer.max_tokens = assets["max_tokens"]
    return tokenizer
