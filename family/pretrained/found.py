"""What was found at a source: a format, the arguments of a member, and weights to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from family.generation import Generation
from family.inputs.preprocess import Prepares
from family.inputs.tokenizer import Tokenizer
from family.models.languages import LanguageTokens
from family.models.member import Facts, facts_of
from family.pretrained.configs import to_arguments
from family.pretrained.formats import find_format
from family.pretrained.generation import read_generation
from family.pretrained.images import read_preprocess
from family.pretrained.precision import refuse_quantised
from family.pretrained.shared_fields import read_problem
from family.pretrained.sounds import read_sound
from family.pretrained.table import Format
from family.pretrained.weights import Weights, open_folder, read_json

JUDGED = ("TextClassification", "TextRegression", "ImageClassification", "ImageRegression")
"""Tasks whose heads may say classes, labels or a number, each of a whole input."""


@dataclass
class Published:
    """A model that is ready to be built.

    Args:
        layout: the format of the weights.
        arguments: of our member.
        weights: by the names of the format.
        folder: where a tokenizer may lie.
        labels: the names of the classes.
        category_ids: their ids in the data, where these are not counted from 0.
        things: the numbers of the classes of which instances are told apart, where not of all.
        preprocess: of pictures, of sound, or of numeric series.
        tokenizer: where it lies in no file of its own.
        adapter: the folder of its LoRA adapters, whose tokenizer goes first.
        origin: what to call the config in an error; None is the weights'.
        generation: the defaults of generation.
        threshold: the least score of boxes that are shown; or how much surer than the best answer it must
            be that there is none.
        languages: of a translation between several, where no tokenizer in a folder says them.
        dtype: what the config says of the weights' numbers; None leaves it to the weights.
        problem_type: what a head of classes says (:mod:`family.heads.problem`); None is as usual.
    """

    layout: Format
    arguments: dict[str, Any]
    weights: Weights
    folder: Path | None = None
    labels: list[str] | None = None
    category_ids: list[int] | None = None
    preprocess: Prepares | None = None
    tokenizer: Tokenizer | None = None
    adapter: Path | None = None
    origin: str | None = None
    generation: Generation | None = None
    threshold: float | None = None
    languages: LanguageTokens | None = None
    dtype: str | None = None
    problem_type: str | None = None
    things: list[int] | None = None


def described(
    layout: Format, config: Mapping[str, Any], weights: Weights, origin: str | None = None
) -> Published:
    """What a config, however it was had, makes of weights.

    Args:
        origin: what to call the config in an error; None is the weights'.
    """
    refuse_quantised(config, origin or weights.origin)
    weights = layout.opened(weights)
    names = {layout.renamed(name) for name in weights.places}
    arguments = to_arguments(layout, config, names, origin or weights.origin)
    return Published(layout, arguments, weights, origin=origin, dtype=said_dtype(config))


def said_dtype(config: Mapping[str, Any]) -> str | None:
    """What a config says of the weights' numbers, by today's name of the field or that of before."""
    found = config.get("dtype") or config.get("torch_dtype")
    return found if isinstance(found, str) else None


def beside(found: Published, config: Mapping[str, Any], folder: Path) -> Published:
    """The same with what else lies in the folder: names of classes, preprocessing, tokenizer."""
    found.folder, found.labels = folder, read_labels(config, found.arguments.get("num_classes", 0))
    facts = facts_of(found.layout.member) or Facts()
    if facts.of(found.arguments).task in JUDGED:
        found.problem_type = read_problem(config, found.arguments.get("num_classes", 0))
    found.preprocess = read_preprocess(folder, found.layout.image_processor) or read_sound(folder)
    if hasattr(found.layout.member, "generate"):
        found.generation = read_generation(folder, config)
    return found


def from_hub_folder(folder: Path) -> Published:
    """A folder with transformers' ``config.json``."""
    file = folder / "config.json"
    config = read_json(file)
    refuse_quantised(config, str(file))  # before the weights: their files may have other names
    layout = find_format(config, str(file))
    return beside(described(layout, config, open_folder(folder), str(file)), config, folder)


def read_labels(config: Mapping[str, Any], count: int) -> list[str] | None:
    """The names of so many classes from ``id2label``; None where it names no one."""
    found = config.get("id2label")
    if not isinstance(found, dict):
        return None
    try:
        ids = {int(number): str(name) for number, name in found.items()}
    except ValueError:
        return None
    # Detection's ids have gaps.
    labels = [ids.get(i, f"LABEL_{i}") for i in range(count)]
    return None if labels in ([], ["LABEL_0", "LABEL_1"]) else labels
