"""From what a user names - a folder, a hub id, a model in memory - to a model of ours."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor, nn

from family.adapt.resize import class_arguments, fresh_head, resize
from family.models.member import Facts, agrees, build, facts_of, is_member
from family.pretrained import adapters, gguf, libraries, named, runs, saved, sentence
from family.pretrained.configs import flat, put
from family.pretrained.convert import build_unfilled, fill
from family.pretrained.formats import as_format
from family.pretrained.found import Published, from_hub_folder
from family.pretrained.languages import read_languages
from family.pretrained.precision import check_stored, common_dtype
from family.pretrained.table import Format
from family.pretrained.text import read_tokenizer
from family.pretrained.weights import ANY, PICKLED_FILES, Weights, read_json

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_FILES = [
    "*.json",
    "model*.safetensors",
    adapters.WEIGHTS,
    "open_clip_model.safetensors",
    "*_Dense/*.safetensors",
    "*.txt",
    "*.model",
    "*.spm",
    "*.jinja",
    "*_Dense/*.bin",
]
"""What is fetched from a repository; pickled weights only where there are no others."""
WRITERS = ("transformers", "sentence_transformers")
"""Libraries whose models write themselves."""


def from_pretrained(
    source: str | Path | nn.Module | Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    task: str | None = None,
    format: str | Format | None = None,
    config: Mapping[str, Any] | None = None,
) -> Any:
    """A published model, or that of a run, as a member of the family, in eval mode, with the same
    weights.

    Args:
        source: a folder in the hub's layout (transformers', timm's, open_clip's) or one that
            :func:`save_pretrained` wrote, the id of a repository on the hub, ``timm:NAME``, a model
            of transformers, timm or open_clip, or the weights of DETR, Segmenter or CLIP as their
            authors published them: a file, or a state in memory; a GGUF file of the Llama family, or
            a folder with one. Or LoRA adapters in peft's layout, a folder or a repository: the base
            that they name is read, from any of these, and adapted; all else is frozen. Or what was
            trained here: a ``.ckpt`` file, or a folder with one somewhere below, of which the best
            counts, else the newest. Its LoRA is merged; a model that is no member comes as it is.
        dtype: of all weights; None is what the config says, or else that of the file's first.
        image_size: another resolution, ``side`` or ``(height, width)``: learned positions are
            interpolated.
        num_classes: another number of classes: the head starts afresh.
        task: what these classes are for, where a model's head can be for more than one task: the classes
            of whole texts ("TextClassification") or of each token ("Tagging"), or, 1 of them, a number
            ("TextRegression"). None leaves it what it is.
        format: read a folder, a file or a state in memory by this format, whatever the config calls
            itself: a name, or a :class:`~family.pretrained.Format` of your own.
        config: the fields of that format, where they lie in no file, or in place of those of the file.

    Returns:
        the model; ``tokenizer``, ``preprocess``, ``labels``, ``problem_type`` (what a head of classes says,
        see :mod:`family.heads.problem`) and ``generation`` (see
        :class:`~family.generation.Generation`) are attached where the source has them, else None; of a
        detector ``threshold``, the least score of boxes that validation found best, if it did. Of a run
        with two tokenizers, ``tokenizer`` is that of the sources and ``tokenizer.target`` that of the
        translations. What translates between several languages has ``language_tokens``, see
        :class:`~family.models.languages.LanguageTokens`.

    Raises:
        ValueError: one sentence: no such source, a weight that is missing or left over or has
            another shape, an architecture or option that we do not support.

    Example:
        >>> model = family.llama(vocab_size=100, dim=32, depth=1, heads=2)
        >>> family.save_pretrained(model, "folder", format="llama")  # transformers loads it
        >>> again = family.from_pretrained("folder")
        >>> ids = torch.tensor([[1, 2, 3]])
        >>> torch.equal(again(ids), model.eval()(ids))
        True
    """
    check_arguments(dtype, num_classes)
    if task is not None and num_classes is None:
        raise ValueError(f"task={task!r} says what classes are for: give num_classes= too.")
    if format is None and config is not None:
        raise ValueError("config= holds the fields of a format: give that one too, format=.")
    place: AbstractContextManager[Published]
    if format is None and runs.is_run(source):
        run = runs.open_run(source)
        if not is_member(runs.trained_class(run)):
            return of_another_class(run, dtype, image_size=image_size, num_classes=num_classes)
        place = nullcontext(runs.published(run))
    elif format is None:
        place = opened(source, num_classes is not None)
    else:
        place = opened_as(source, as_format(format), config)
    with place as found:
        model = load(found, dtype, num_classes, task)
    if image_size is not None:
        resize(model, image_size)
    return model


def of_another_class(run: runs.Run, dtype: torch.dtype | None, **wanted: Any) -> Any:
    """The model of a run that is no member of the family.

    Raises:
        ValueError: it cannot be made another than it is.
    """
    for name, value in wanted.items():
        if value is not None:
            raise ValueError(
                f"{name}={value}: {run.file} holds a {runs.trained_class(run).__name__}, which is no "
                "member of the family."
            )
    model = runs.equipped(run)
    return model if dtype is None else model.to(dtype)


def load(
    found: Published,
    dtype: torch.dtype | None,
    num_classes: int | None,
    task: str | None = None,
) -> Any:
    """Build and fill the model of what was found."""
    layout, arguments, weights = found.layout, found.arguments, found.weights
    check_stored(layout, weights)
    dtype = dtype or common_dtype(found.dtype, weights)
    check_depth(arguments, weights)
    fresh: tuple[str, ...] = ()
    usual = {p.name: p.default for p in inspect.signature(layout.member).parameters.values()}
    before = {**usual, **arguments}
    facts = facts_of(layout.member) or Facts()
    if num_classes is not None and task is None:  # what its classes are for already
        task = facts.of(before).task
    check_task(layout.member, task, weights.origin)
    wanted = {} if num_classes is None else class_arguments(layout.member, num_classes, task)
    if not agrees(before, wanted):
        left_out = [name for name, value in wanted.items() if value is False and before.get(name)]
        fresh = fresh_head(layout.member, wanted["num_classes"], weights.origin, left_out)
        arguments = copy.deepcopy(arguments)
        # A head that says no more than how many classes there are is the usual one.
        head = facts.class_heads.get(str(task), {})
        usual_head = head.keys() <= {"num_classes"}
        new = layout.new_classes if usual_head else layout.new_heads.get(str(task), {})
        for name, value in {**wanted, **new}.items():
            put(arguments, name, value)
    if fresh:  # built with initial values, as the head keeps its own
        model: Any = build(layout.member, arguments).eval()
    else:
        model = build_unfilled(layout.member, arguments, found.origin or weights.origin)
    fill(model, layout, weights, dtype, fresh)
    model.eval()  # now with what its weights say
    if fresh:  # what is new is in the dtype of what is not
        model.to(next(model.parameters()).dtype)
    model.labels = None if fresh else found.labels
    model.problem_type = None if fresh else found.problem_type
    if found.category_ids is not None and not fresh:
        model.category_ids = found.category_ids
    if found.threshold is not None and not fresh:
        model.threshold = found.threshold
    if found.things is not None and not fresh:
        model.things = found.things
    model.preprocess, model.generation = found.preprocess, found.generation
    model.tokenizer = found.tokenizer if found.folder is None else read_tokenizer(found.folder)
    languages = found.languages
    if languages is None and found.folder is not None and model.tokenizer is not None:
        languages = read_languages(found.folder, model.tokenizer)
    if languages is not None:
        model.language_tokens = languages
    if found.adapter is not None:
        adapters.read_adapters(model, layout, found.adapter)
        model.tokenizer = read_tokenizer(found.adapter) or model.tokenizer
    return model


def check_task(member: type[nn.Module], task: str | None, origin: str) -> None:
    """Refuse a task that no head of a member is for.

    Raises:
        ValueError: see above.
    """
    facts = facts_of(member) or Facts()
    if task not in (None, facts.task, *facts.class_heads):
        made = f", made for {facts.task}" if facts.task else ""
        raise ValueError(f"{origin} is a {member.__name__}{made}, but this needs {task}.")


def check_arguments(dtype: Any, num_classes: Any) -> None:
    """Refuse what makes no model, whatever the source.

    Raises:
        ValueError: one sentence.
    """
    floating = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    if dtype is not None and not (floating and dtype.itemsize > 1):
        raise ValueError(
            f"dtype={dtype!r} is no floating-point type of torch with 16 bits or more."
        )
    whole = isinstance(num_classes, int) and not isinstance(num_classes, bool)
    if num_classes is not None and not (whole and num_classes > 0):
        raise ValueError(f"num_classes={num_classes!r} must be a whole number above 0.")


def check_depth(arguments: Mapping[str, Any], weights: Weights) -> None:
    """Refuse a config of more layers than there are weights, before memory fills with them.

    Raises:
        ValueError: so many layers cannot be in the file.
    """
    for name, value in flat(arguments).items():
        deep = name.endswith("depth") and isinstance(value, int)
        if deep and value > len(weights.places):
            raise ValueError(
                f"{weights.origin} has {len(weights.places)} weights, too few for {name}={value}."
            )


@contextmanager
def opened(
    source: str | Path | nn.Module | Mapping[str, Tensor], classes: bool
) -> Iterator[Published]:
    """What lies at a source, for as long as it is read; ``classes`` as in :func:`read_folder`."""
    if isinstance(source, str | Path):
        yield find(str(source), classes)
        return
    library = type(source).__module__.partition(".")[0]
    if library in WRITERS:
        with written(source) as folder:
            yield read_folder(folder, classes)
    elif library == "timm":
        yield libraries.timm_module(source)
    elif library == "open_clip":
        yield libraries.open_clip_module(source)
    elif isinstance(source, Mapping):
        yield libraries.original_state(source)
    else:
        raise ValueError(
            f"a {type(source).__module__}.{type(source).__name__} is no model of transformers, timm "
            "or open_clip."
        )


def find(source: str, classes: bool, adapted: bool = True) -> Published:
    """What lies at a source that is not in memory.

    Args:
        classes: as in :func:`read_folder`.
        adapted: it may be LoRA adapters.

    Raises:
        ValueError: it may not, and is.
    """
    if runs.is_run(source):
        return runs.published(runs.open_run(source))
    if source.startswith(libraries.TIMM):
        return libraries.timm_name(source.removeprefix(libraries.TIMM))
    if Path(source).is_file():
        file = gguf.find_gguf(Path(source))
        return libraries.original_file(Path(source)) if file is None else gguf.published(file)
    folder = find_folder(source)
    if adapters.is_adapter(folder) and not adapted:
        raise ValueError(f"{folder} is itself an adapter.")
    return read_folder(folder, classes)


@contextmanager
def opened_as(
    source: str | Path | nn.Module | Mapping[str, Tensor],
    layout: Format,
    config: Mapping[str, Any] | None,
) -> Iterator[Published]:
    """What lies at a source, by a format that is named."""
    if config is not None and not isinstance(config, Mapping):
        raise ValueError(f"config= must be an object of fields, not {config!r}.")
    if hasattr(source, "save_pretrained"):  # of transformers, or of a class built on it
        with written(source) as folder:
            yield named.read_folder(folder, layout, config)
    elif isinstance(source, nn.Module):
        raise ValueError(
            f"a {type(source).__module__}.{type(source).__name__} is no model of transformers: give "
            f"its state_dict(), and config=, to read it as format={layout.name!r}."
        )
    elif isinstance(source, Mapping):
        yield named.read_state(source, layout, config)
    elif Path(source).is_file():
        yield named.read_file(Path(source), layout, config)
    else:
        yield named.read_folder(find_folder(str(source), layout.files), layout, config)


@contextmanager
def written(model: Any) -> Iterator[Path]:
    """A folder by a library's own writer, which knows how names in memory relate to those of files."""
    with TemporaryDirectory() as place:
        model.save_pretrained(place)
        yield Path(place)


def read_folder(folder: Path, classes: bool) -> Published:
    """What a folder holds.

    Args:
        classes: it is to tell classes apart: of what encodes sentences, take the encoder alone.
    """
    return (read_adapted if adapters.is_adapter(folder) else read_model)(folder, classes)


def read_model(folder: Path, classes: bool) -> Published:
    """The model of a folder; ``classes`` as in :func:`read_folder`."""
    if sentence.is_sentence_folder(folder):
        encoder = sentence.encoder_folder(folder)
        return from_hub_folder(encoder) if classes else sentence.published(folder)
    if not (folder / "config.json").is_file():
        file = gguf.find_gguf(folder)
        if file is not None:
            return gguf.published(file)
        if (folder / libraries.OPEN_CLIP).is_file():
            return libraries.open_clip_folder(folder)
        return libraries.original_file(libraries.only_file(folder))
    if saved.is_ours(folder):
        return saved.published(folder)
    config = read_json(folder / "config.json")
    return libraries.timm_folder(folder) if "architecture" in config else from_hub_folder(folder)


def read_adapted(folder: Path, classes: bool) -> Published:
    """What the adapters of a folder adapt: a model that lies there too, or the base that they name.

    Raises:
        ValueError: a base that is not to be had, or that is adapted itself; a sentence encoder.
    """
    base = adapters.base_of(folder)
    if sentence.is_sentence_folder(folder):
        raise ValueError(f"{folder} holds adapters of a sentence encoder, which is not supported.")
    if any((folder / name).is_file() for name in ANY):
        return replace(read_model(folder, classes), adapter=folder)
    try:
        return replace(find(base, classes, adapted=False), adapter=folder)
    except ValueError as error:
        raise ValueError(f"{folder / adapters.CONFIG}: its base cannot be had: {error}") from None


def find_folder(source: str, files: Sequence[str] = ()) -> Path:
    """A local folder, or that of a repository of the hub in the local cache.

    Args:
        files: that are wanted from there beside those that all formats share.

    Raises:
        ValueError: neither; what is in the cache serves without a network.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(source):
        raise ValueError(f"{source} does not exist, and is no id of a repository on the hub.")
    try:
        path = Path(huggingface_hub.snapshot_download(source, allow_patterns=[*HUB_FILES, *files]))
        if not list(path.rglob("*.safetensors")):
            pickled = [*PICKLED_FILES, adapters.PICKLED]
            huggingface_hub.snapshot_download(source, allow_patterns=pickled)
        return path
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{source} is no folder here, and could not be had from the hub: {reason}"
        ) from None
