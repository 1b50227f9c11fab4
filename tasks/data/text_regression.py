"""Texts, or pairs of texts, and a number for each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from family.heads.problem import REGRESSION
from tasks.data.label_lists import number
from tasks.data.labelled_text_data import LabelledTextData
from tasks.data.labelled_texts import LabelledText
from tasks.data.shape_pairs import asked_shapes
from tasks.data.text_files import Column


class TextRegressionData(LabelledTextData):
    """Texts, or pairs of texts, and a number for each, tokenized, in batches of like length.

    A batch is that of :class:`TextClassificationData`:

    - ``input_ids (batch, tokens)`` int64, ``mask (batch, tokens)`` bool, and, of pairs,
      ``token_types (batch, tokens)`` int64;
    - ``labels (batch,)`` float32: the numbers, as they are;
    - ``text``, ``pair`` and ``line``: lists.

    Args:
        root: as :class:`LabelledTextData`; None is the built-in world of shapes: how many, by a
            sentence, are on top or elsewhere, as a question asks.
        label_column: without it a column called label, score or similarity.
        options: of :class:`LabelledTextData`, for the other columns, and of
            :class:`~tasks.data.text_data.TextData`.
    """

    task = "TextRegression"
    num_classes = 1
    """Of the model: its one class is the number."""
    usual_labels = ("label", "score", "similarity")

    def __init__(
        self, root: str | None = None, label_column: Column = None, **options: Any
    ) -> None:
        super().__init__(root, label_column=label_column, **options)
        self.problem_type = REGRESSION

    def generated(self, count: int, split: str) -> list[LabelledText]:
        return asked_shapes(count, self.seed, split, numbers=True)

    def kinds(self, rows: list[LabelledText]) -> tuple[Sequence[Hashable], Sequence[str]]:
        return [0] * len(rows), [row.group or row.text for row in rows]

    def labels(self, split: str) -> list[float]:
        """The number of each text.

        Raises:
            UserError: a label that is none.
        """
        return [number(row.label, row.where) for row in self.rows(split)]

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size`` and ``num_classes``."""
        return {**super().model_arguments, "num_classes": self.num_classes}

    def use_assets(self, assets: dict[str, Any]) -> None:
        """As of a checkpoint; a published head may say the sigmoid of its number."""
        super().use_assets(assets)
        self.problem_type = assets.get("problem_type") or REGRESSION

    def mean(self) -> float:
        """Of the training split's numbers."""
        return float(np.mean(self.labels("train")))
