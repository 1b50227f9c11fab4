"""Pictures and their classes: folders, tars, tables, torchvision's layouts, and the world of shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from family.heads.problem import MULTI
from tasks.data.label_lists import LabelColumns
from tasks.data.labelled_data import ClassData, split_folder
from tasks.data.labelled_image_data import LabelledImageData
from tasks.data.labelled_images import (
    READERS,
    TARS,
    Labelled,
    labelled_folder,
    labelled_shapes,
    labelled_tar,
    labelled_torchvision,
)
from tasks.data.picture_tables import find_table, labelled_table
from tasks.data.splits import SPLITS
from tasks.errors import UserError, at_least

Layout = Literal[
    "auto", "folder", "tar", "table", "cifar10", "cifar100", "fashion_mnist", "imagenet"
]


class ImageClassificationData(ClassData, LabelledImageData):
    """Pictures and their classes, or of each any of several labels.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: normalised by ``mean`` and ``std``;
    - ``labels (batch,)`` int64: ids of the classes; in training with ``mixup`` or ``cutmix``
      ``(batch, classes)`` float32, probabilities; with ``multi_label`` ``(batch, classes)`` float32, 1 for
      each label that a picture has;
    - ``file``, in evaluation: the pictures' names.

    Args:
        root: where the data lies; None is the built-in world of shapes: which covers most of the picture, or,
            with ``multi_label``, which are in it.
        layout: "folder" (``root/SPLIT/CLASS/*.jpg``, or ``root/CLASS/*.jpg``), "tar"
            (``root/SPLIT.tar`` or ``.tar.gz``, a folder a class inside), "table" (``root/SPLIT.csv``,
            ``.tsv`` or ``.jsonl``, or one of everything: a picture's file and its label in a line), or
            torchvision's "cifar10", "cifar100", "fashion_mnist", "imagenet"; "auto" looks at what is
            there, and takes a table where an option is of tables alone. SPLIT is train or training; val,
            valid, validation or dev; test or testing.
        mixup, cutmix: their strengths; labels become ``(batch, classes)`` probabilities.
        multi_label: a picture has any of the labels, or none: a table's ``label_column`` holds a list.
        image_column, label_column: of a table; without them columns with usual names are found.
        label_separator: between the labels of a list; one in brackets is JSON.
        label_columns: in place of a list, a column of 0 and 1 for each label.
        options: of :class:`~tasks.data.labelled_image_data.LabelledImageData`.
    """

    task = "ImageClassification"

    def __init__(
        self,
        root: str | None = None,
        image_size: int | tuple[int, int] = 32,
        layout: Layout = "auto",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        multi_label: bool = False,
        image_column: str | None = None,
        label_column: str | None = None,
        label_separator: str = ",",
        label_columns: list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, image_size, **options)
        at_least(0, mixup=mixup, cutmix=cutmix)
        self.asked_layout, self.image_column = layout, image_column
        self.columns = LabelColumns(label_column, label_separator, tuple(label_columns or ()))
        self.problem_type = self.columns.problem(multi_label)
        self.extras |= {"mixup": mixup, "cutmix": cutmix}

    # --- What there is -----------------------------------------------------------------------

    @property
    def layout(self) -> str:
        """The layout of ``root``.

        Raises:
            UserError: none that is known.
        """
        if self.root is None:
            return "shapes"
        if self.asked_layout != "auto":
            return self.asked_layout
        table = find_table(self.root, "train")
        told = self.kept or self.problem_type or self.image_column or self.columns.one
        if table is not None and told:
            return "table"
        if not self.root.is_dir():
            what = "is no folder" if self.root.exists() else "does not exist"
            raise UserError(f"data.root {self.root} {what}.")
        for layout, (_, inside) in READERS.items():
            if (self.root / inside).exists():
                return layout
        if self._tar("train") is not None:
            return "tar"
        if any(path.is_dir() for path in self.root.iterdir()):
            return "folder"
        if table is not None:
            return "table"
        raise UserError(
            f"{self.root} holds neither train/CLASS/*.jpg, CLASS/*.jpg, train.tar[.gz], a table nor a "
            "layout of torchvision's (CIFAR, Fashion-MNIST, ImageNet)."
        )

    def _tar(self, split: str) -> Path | None:
        assert self.root is not None
        found = (self.root / f"{name}{end}" for name in SPLITS[split] for end in TARS)
        return next((path for path in found if path.is_file()), None)

    def _read(self, split: str) -> Labelled | None:
        layout = self.layout
        if self.root is None:
            several = self.problem_type == MULTI
            size = self.preprocess.size
            return labelled_shapes(self._count(split), size, self.seed, split, several)
        if layout == "table":
            table = find_table(self.root, split)
            if table is None:
                return None
            several = self.problem_type == MULTI
            columns = self.columns
            return labelled_table(table, split, self.image_column, columns, several, self.on_bad)
        if self.problem_type == MULTI:
            raise UserError(
                f"data.multi_label needs a table of pictures and labels, but {self.root} has the layout "
                f"{layout}, of one class each."
            )
        if layout == "tar":
            tar = self._tar(split)
            return None if tar is None else labelled_tar(tar, self.on_bad)
        if layout == "folder":
            folder = split_folder(self.root, split)
            return None if folder is None else labelled_folder(folder, self.on_bad)
        absent = "test" if layout == "imagenet" else "val"
        if split == absent:
            return None
        return labelled_torchvision(layout, self.root, split, self.on_bad)
