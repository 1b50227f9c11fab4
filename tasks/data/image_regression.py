"""Pictures and a number for each: tables, and the world of shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from family.heads.problem import REGRESSION
from tasks.data.labelled_image_data import LabelledImageData
from tasks.data.labelled_images import Labelled, counted_shapes
from tasks.data.picture_tables import find_table, numbered_table
from tasks.errors import UserError


class ImageRegressionData(LabelledImageData):
    """Pictures and a number for each.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: normalised by ``mean`` and ``std``;
    - ``labels (batch,)`` float32: the numbers, as they are;
    - ``file``, in evaluation: the pictures' names.

    Args:
        root: a folder with a table for each split, ``SPLIT.csv``, ``.tsv`` or ``.jsonl``, a picture's file
            and its number in a line; or one table of everything, or the folder of it, of which shares are
            held out. None is the built-in world of shapes: how many are in the picture.
        image_column: without it a column with a usual name: file, file_name, image ...
        label_column: without it a column called label, score, value or target.
        options: of :class:`~tasks.data.labelled_image_data.LabelledImageData`.
    """

    task = "ImageRegression"
    num_classes = 1
    """Of the model: its one class is the number."""

    def __init__(
        self,
        root: str | None = None,
        image_size: int | tuple[int, int] = 32,
        image_column: str | None = None,
        label_column: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, image_size, **options)
        self.image_column, self.label_column = image_column, label_column
        self.problem_type = REGRESSION

    def _read(self, split: str) -> Labelled | None:
        if self.root is None:
            return counted_shapes(self._count(split), self.preprocess.size, self.seed, split)
        if not self.root.exists():
            raise UserError(f"data.root {self.root} does not exist.")
        table = find_table(self.root, split)
        if table is None:
            return None
        return numbered_table(table, split, self.image_column, self.label_column, self.on_bad)

    def mean(self) -> float:
        """Of the training split's numbers."""
        return float(np.mean(self.split("train").labels))

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model."""
        return {"num_classes": self.num_classes, "image_size": self.preprocess.size}

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.problem_type = assets.get("problem_type") or REGRESSION
        super().use_assets(assets)
