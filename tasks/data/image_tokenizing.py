"""Pictures alone: folders, lists of files, and the world of shapes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader

from family.inputs.preprocess import Preprocess
from tasks.data.augment import ClassificationAugment
from tasks.data.captions import IMAGE_COLUMNS, TABLES, choose, picture_folder, table_rows
from tasks.data.images import OnBad, check_images, list_images, picture_size
from tasks.data.labelled_data import MEMORY, LabelledData
from tasks.data.labelled_image_data import LabelledBatches
from tasks.data.labelled_images import Labelled, decode, labelled_shapes, read_path
from tasks.data.sampling import ExampleBatches, Pick, batch_loader
from tasks.data.splits import SPLITS, called
from tasks.data.stored import Stored
from tasks.data.text_files import read_text
from tasks.errors import UserError, at_least, user_errors

LISTS = (".txt", *TABLES)
"""What names the files of pictures: one a line, or a table that has a column of them."""
HALF = (0.5, 0.5, 0.5)


class ImageTokenizingData(LabelledData):
    """Pictures alone, of one size.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: in -1..1;
    - ``file``, in evaluation: the pictures' names.

    Where there is no validation split, a part of the training split is held out, chosen by the
    hash of each picture's name.

    Args:
        root: a folder of pictures, which may have folders of its own (where those are called as splits,
            ``train``, ``val``, ``test``, they are these); or of lists of files, ``SPLIT.txt`` with one a
            line, ``SPLIT.tsv``, ``.csv`` or ``.jsonl`` with a column of them; or one such list. None is the
            built-in world of shapes.
        image_size: of the model's input, ``height`` and ``width`` or one number for both: a picture is
            resized to cover it, and its centre cut out.
        image_column: of a table; without it one of a usual name is found.
        val_fraction, test_fraction: the shares held out of "train" for a split that is not there; no
            val_fraction validates on test.
        split_seed: None holds out by a hash of each picture's name: it stays where it is when others are
            added. A number draws the shares exactly.
        group: a regular expression; pictures in whose names it finds the same are held out together.
        augment: "flip" mirrors half of the training pictures.
        background: what shows through transparent pictures, red, green and blue of 0 to 255; the model
            keeps it.
        on_bad: a picture that cannot be read ends the run ("stop") or is left out ("skip").
        cache: keep decoded pictures in memory, where a split's take at most a gigabyte.
        examples: training pictures of the built-in world.
    """

    task = "ImageTokenizing"
    decided = ("image_size", "background")

    def __init__(
        self,
        root: str | None = None,
        image_size: int | tuple[int, int] = 48,
        batch_size: int = 64,
        image_column: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int | None = None,
        group: str | None = None,
        augment: Literal["none", "flip"] = "none",
        background: tuple[int, int, int] = (255, 255, 255),
        on_bad: OnBad = "stop",
        cache: bool = True,
        examples: int = 8000,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(root, val_fraction, test_fraction, split_seed, group)
        at_least(1, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        with user_errors():
            size, below = picture_size(image_size), tuple(background)
            self.preprocess = Preprocess(size, "crop", HALF, HALF, background=below)  # type: ignore[arg-type]
        self.batch_size, self.column = batch_size, image_column
        self.augment, self.on_bad, self.cache = augment, on_bad, cache
        self.examples, self.seed, self.num_workers = examples, seed, num_workers

    # --- What there is -----------------------------------------------------------------------

    def _read(self, split: str) -> Labelled | None:
        root = self.root
        if root is None:
            return labelled_shapes(self._count(split), self.preprocess.size, self.seed, split)
        if root.is_file() and root.suffix in LISTS:
            return self._listed(root, split) if split == "train" else None
        if not root.is_dir():
            what = (
                "is neither a folder nor a list of pictures" if root.exists() else "does not exist"
            )
            raise UserError(f"data.root {root} {what} (a list ends in {', '.join(LISTS)}).")
        found = source(root, called(split, lambda name: source(root, name)))
        if found is not None:
            return self._listed(found, split) if found.is_file() else self._folder(found)
        others = any(source(root, name) for names in SPLITS.values() for name in names)
        return self._folder(root) if split == "train" and not others else None

    def _folder(self, folder: Path) -> Labelled:
        paths = list_images(folder)
        if not paths:
            raise UserError(f"{folder} has no pictures.")
        return self._pictures(paths, folder)

    def _listed(self, file: Path, split: str) -> Labelled:
        """The pictures that a list names."""
        if file.suffix == ".txt":
            names = [line.strip() for line in read_text(file).split("\n") if line.strip()]
        else:
            rows = list(table_rows(file))
            columns = list(rows[0][1]) if rows else []
            name = choose(file, columns, self.column, IMAGE_COLUMNS, "image_column")
            empty = next((line for line, row in rows if not row.get(name)), None)
            if empty is not None:
                raise UserError(f"{file} line {empty} names no picture in the column {name!r}.")
            names = [row[name] for _, row in rows]
        if not names:
            raise UserError(f"{file} names no pictures.")
        folder = picture_folder(file, names, split)
        return self._pictures([folder / name for name in dict.fromkeys(names)], folder)

    def _pictures(self, paths: list[Path], folder: Path) -> Labelled:
        """Those that can be read; they have no classes."""
        paths = [paths[i] for i in check_images(paths, self.on_bad)]
        inside = [path.is_relative_to(folder) for path in paths]
        names = [
            (path.relative_to(folder) if within else path).as_posix()
            for path, within in zip(paths, inside, strict=True)
        ]
        return Labelled([], np.zeros(len(paths), int), names, partial(read_path, paths))

    # --- What Lightning and tasks ask for ----------------------------------------------------

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``image_size``."""
        return {"image_size": self.preprocess.size}

    def stored(self, split: str) -> Stored:
        return super().stored(split)._replace(label=None)

    def loader(self, split: str) -> DataLoader[Any]:
        train, pictures, store = split == "train", self.split(split), None
        fits = len(pictures.names) * 3 * int(np.prod(self.preprocess.size)) <= MEMORY
        if self.cache and fits:
            pictures, store = decode(pictures, self.preprocess, self.on_bad)
        augment = ClassificationAugment(self.preprocess, 1, self.augment) if train else None
        dataset = PictureBatches(
            pictures, self.preprocess, augment, None, store, self.on_bad, self.order_seed
        )
        batches = ExampleBatches(
            len(dataset), self.batch_size, train, self.order_seed, self.progress, drop_last=train
        )
        return batch_loader(dataset, batches, self.num_workers)


class PictureBatches(LabelledBatches):
    """Whole batches of :class:`ImageTokenizingData`: as with classes, but without."""

    def __getitems__(self, picks: list[Pick]) -> dict[str, Any]:
        batch = super().__getitems__(picks)
        del batch["labels"]
        return batch


def source(root: Path, name: str) -> Path | None:
    """The folder or list of a split of this name; None where there is neither."""
    if (root / name).is_dir():
        return root / name
    return next((file for end in LISTS if (file := root / f"{name}{end}").is_file()), None)
