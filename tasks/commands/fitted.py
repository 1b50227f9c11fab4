"""A config fitted to data: what the data module of a task itself reads decides sizes, lengths and steps."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from family.inputs.pictures import size_of
from tasks.cli.building import Dry, quietly
from tasks.cli.options import read, taken
from tasks.compare.trial import try_out
from tasks.data.stored import Stored, look
from tasks.errors import UserError, user_errors

PATCH = 8
SIDES = (32, 128)
"""The least and the most pixels of a side that a few minutes on a CPU have time for."""
TOKENS = (16, 512)
VOCABULARY = (300, 8000)
CHARACTERS = 300
"""Distinct ones; texts with more are read in pieces of words, and so are large ones."""
LARGE = 5_000_000
STEPS = (200, 20_000)
EPOCHS = 60
"""Of small data more only repeats what is known."""
SAMPLE = 500


class Found:
    """What a data module says of its splits.

    Args:
        data: set up.
    """

    def __init__(self, data: Any) -> None:
        self.examples: dict[str, int] = {}
        self.words: set[str] = set()
        self.characters, self.letters = 0, set[str]()
        self.sides: list[tuple[int, int]] = []
        """Width and height."""
        self.train: Stored | None = None
        for split in ("train", "val", "test"):
            try:
                stored = data.stored(split)
            except UserError:
                if split == "test":
                    continue  # a run needs none
                raise
            if stored is not None:
                self.examples[split] = stored.examples
                self.train = stored if split == "train" else self.train
        if self.train is None or not self.train.examples:
            return
        chosen = np.linspace(0, self.train.examples - 1, min(SAMPLE, self.train.examples)).astype(
            int
        )
        for i in np.unique(chosen).tolist():
            self._see(self.train.content(i))
        self.characters = round(self.characters * self.train.examples / len(chosen))

    def _see(self, content: Any) -> None:
        if isinstance(content, Image.Image):
            self.sides.append(content.size)
        elif isinstance(content, Path):
            self.sides.append(size_of(content)[::-1])
        elif isinstance(content, str):
            self.words.update(content.split())
            self.letters.update(content)
            self.characters += len(content)
        elif isinstance(content, list | tuple):
            for part in content:
                self._see(part)


def fit_config(
    base: Path, task: str, root: str, options: Sequence[str], minutes: float
) -> tuple[str, list[str]]:
    """The text of a config, in which ``FILE`` stands for its name, and what was found, a line each.

    Args:
        base: the config that it begins with.
        root: of the data.
        options: of ``family fit``, which stand in it as they are.

    Raises:
        UserError: the data are not as the task reads them.
    """
    config = yaml.safe_load(base.read_text("utf-8"))
    own = {name: as_yaml(value) for name, value in read(options).items()}
    config["data"].setdefault("init_args", {})["root"] = str(Path(root).resolve())
    config["data"]["init_args"].pop("examples", None)
    for name, value in own.items():
        put(config, name, value)
    made = built(config)
    found = Found(made.datamodule)
    for name, value in choices(config, made.datamodule, found).items():
        if name not in own:
            put(config, name, value)
    made = built(config)
    longest = {k: v for k, v in lengths(config, made.datamodule).items() if k not in own}
    for name, value in longest.items():
        put(config, name, value)
    made = built(config) if longest else made
    said = [f"{split}: {count} examples" for split, count in found.examples.items()]
    said += told(made.datamodule, found)
    for name, value in steps(made, minutes).items():
        if name not in own:
            put(config, name, value)
    head = f"# {task} on {root}, by family new: {'; '.join(said)}.\n"
    head += "#   family check --config FILE\n#   family fit --config FILE\n"
    return head + yaml.safe_dump(config, sort_keys=False, width=100), said


def built(config: dict[str, Any]) -> Dry:
    """Task and data of a config, the data set up."""
    with tempfile.TemporaryDirectory() as folder, quietly():
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        made = Dry(str(file), ("--trainer.accelerator=auto",))
    made.datamodule.prepare_data()
    made.datamodule.setup("fit")
    return made


def as_yaml(value: Any) -> Any:
    return yaml.safe_load(value) if isinstance(value, str) else value


def put(config: dict[str, Any], path: str, value: Any) -> None:
    """Set an option by its path: ``data.max_tokens``, ``model.model.config.dim``."""
    place = config
    *parts, last = path.split(".")
    for part in parts:
        place = place.setdefault(part, {})
        if "class_path" in place and last != "class_path":
            place = place.setdefault("init_args", {})
    place[last] = value


def has(config: dict[str, Any], path: str) -> bool:
    """Whether a config gives an option."""
    place: Any = config
    for part in path.split("."):
        if not isinstance(place, dict) or part not in place:
            return False
        place = place[part]
        place = place.get("init_args", place) if isinstance(place, dict) else place
    return True


# --- What is chosen ---


def choices(config: dict[str, Any], data: Any, found: Found) -> dict[str, Any]:
    """Options for pictures of these sizes, texts of these words, and so many examples."""
    known, made = taken(type(data)), dict[str, Any]()
    if found.sides:
        width, height = (statistics.median(side) for side in zip(*found.sides, strict=True))
        shrink = min(1.0, SIDES[1] / max(width, height))
        rows, columns = (rounded(side * shrink, 2 * PATCH, SIDES) for side in (height, width))
        if has(config, "model.model.backbone"):  # strides of up to 32 pixels
            rows, columns = (rounded(side * shrink, 32, (64, 256)) for side in (height, width))
        square = rows == columns and not isinstance(
            config["data"]["init_args"].get("image_size"), list
        )
        if "image_size" in known:
            made["data.image_size"] = rows if square else [rows, columns]
    if found.words and "context" in known:  # one long text
        pieces = len(found.letters) > CHARACTERS or found.characters > LARGE
        made["data.tokenizer"] = "bpe" if pieces else "char"
    if found.words and "vocab_size" in known:
        low, high = VOCABULARY
        wanted = min(high, max(low, len(found.letters) + len(found.words) // 2))
        made["data.vocab_size"] = 100 * math.ceil(wanted / 100)
    train = found.examples.get("train", 0)
    given = config["data"]["init_args"].get("batch_size")
    if given and train and "context" not in known:
        made["data.batch_size"] = max(1, min(given, train // 4))
    if has(config, "model.model.queries"):
        most = max(map(len, boxes_of(data)), default=0)
        made["model.model.queries"] = max(20, 10 * math.ceil(1.5 * most / 10))
    return made


def boxes_of(data: Any) -> Iterable[Any]:
    """Of each training picture its boxes."""
    found = data.annotations("train")
    return (found.picture(i).boxes for i in range(len(found)))


def rounded(side: float, unit: int, bounds: tuple[int, int]) -> int:
    """A whole number of units, between bounds."""
    low, high = bounds
    return int(min(high, max(low, unit * round(side / unit))))


def lengths(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """The most tokens of a row, by those that there are, marks at its ends among them."""
    stored = data.stored("train")
    if stored is None or stored.texts is None or stored.limit is None:
        return {}
    with user_errors():
        longest = look(stored, SAMPLE).lengths.get("p99", 0) + 3
    low, high = TOKENS
    most = min(high, max(low, PATCH * math.ceil(longest / PATCH)))
    made = {"data.max_tokens": most}
    if has(config, "model.model.config.max_tokens") or most > 1024:
        made["model.model.config.max_tokens"] = most
    return made


def steps(made: Dry, minutes: float) -> dict[str, Any]:
    """As many as some minutes have time for on this machine, by the first of them."""
    trainer = made.config["fit"].trainer
    trial = try_out(made.model, made.datamodule, trainer)
    if trial.error:
        raise UserError(trial.error)
    each = (trial.step_seconds + trial.load_seconds) or 1.0
    low, high = STEPS
    most = max(low, min(high, EPOCHS * trial.batches))
    count = int(min(most, max(low, 60 * minutes / each)))
    count = 10 * (count // 10)
    interval = max(1, count // 4)
    return {
        "trainer.max_steps": count,
        "trainer.val_check_interval": interval,
        "trainer.log_every_n_steps": max(1, min(20, interval)),
        "model.warmup_steps": max(1, min(50, count // 10)),
    }


def told(data: Any, found: Found) -> list[str]:
    """What there is of it, for people."""
    said = []
    decided = data.model_arguments
    if "num_classes" in decided:
        names = list(data.assets().get("labels") or [])
        some = ", ".join(map(str, names[:5])) + " ..." * (len(names) > 5)
        said.append(f"{decided['num_classes']} classes" + (f" ({some})" if names else ""))
    if found.sides:
        width, height = (statistics.median(side) for side in zip(*found.sides, strict=True))
        said.append(f"pictures of {width:g} x {height:g} pixels (median)")
    if found.words:
        said.append(
            f"{found.characters:,} characters, {len(found.words):,} distinct words looked at"
        )
    if "vocab_size" in decided:
        said.append(f"{decided['vocab_size']} tokens in the vocabulary")
    return said
