"""Texts, or pairs of texts, and their classes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from tasks.data.labelled_text_data import LabelledTextData
from tasks.data.labelled_texts import LabelledText, class_names, labelled_shapes
from tasks.data.shape_pairs import asked_shapes
from tasks.errors import UserError, closest


class TextClassificationData(LabelledTextData):
    """Texts, or pairs of texts, and their classes, tokenized, in batches of like length.

    The classes are those of the training split, of a table that is divided those of all of it, in the
    order of their names, or of their numbers.

    A batch:

    - ``input_ids (batch, tokens)`` int64: between the special tokens that the tokenizer adds
      (``<bos>`` and ``<eos>``), padded at the right;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``token_types (batch, tokens)`` int64, of pairs: the segment of each token, by the tokenizer's
      template;
    - ``labels (batch,)`` int64: ids of the classes;
    - ``text``: list of the raw texts; ``pair``: of pairs, list of the second ones; ``line``: list of their
      rows from 0, in the table as it is stored.

    Args:
        root: a folder with a table for each split, ``SPLIT.tsv``, ``.csv`` or ``.jsonl``, whose
            first line names the columns (a ``.tsv`` of two columns may do without: a sentence, a
            tab, a label); or one table of everything, or the folder of it, which is divided: every
            class gives its share to "val" and to "test". None is the built-in world of shapes: which
            of two shapes is at the left or on top; or, with ``pair_column``, of whatever name, the
            answer to a question about a sentence.
        options: of :class:`LabelledTextData`, for the columns, and of
            :class:`~tasks.data.text_data.TextData`.
    """

    task = "TextClassification"

    def __init__(self, root: str | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.given: list[str] | None = None
        self._divided_classes: list[str] | None = None

    def generated(self, count: int, split: str) -> list[LabelledText]:
        view = labelled_shapes if self.pair_column is None else asked_shapes
        return view(count, self.seed, split)

    def kinds(self, rows: list[LabelledText]) -> tuple[Sequence[Hashable], Sequence[str]]:
        # Of all parts; and one class alone is a clearer mistake than a split without rows.
        self._divided_classes = class_names(rows)
        return [row.label for row in rows], [row.group or row.text for row in rows]

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of the ids: a checkpoint's, or those of the training split."""
        if self.given is None:
            rows = self.rows("train")
            self.given = self._divided_classes or class_names(rows)
        return self.given

    def labels(self, split: str) -> list[int]:
        """The id of each text's class.

        Raises:
            UserError: a class that is none of ours.
        """
        ids = {name: i for i, name in enumerate(self.classes)}
        for row in self.rows(split):
            if row.label not in ids:
                known = f"{', '.join(self.classes[:5])}{' ...' if len(ids) > 5 else ''}"
                raise UserError(
                    f"{row.where} has the label {row.label!r}, which is none of the {len(ids)} "
                    f"classes ({known}).{closest(row.label, ids)}"
                )
        return [ids[row.label] for row in self.rows(split)]

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size`` and ``num_classes``."""
        return {**super().model_arguments, "num_classes": len(self.classes)}

    def assets(self) -> dict[str, Any]:
        return {**super().assets(), "labels": list(self.classes)}

    def use_assets(self, assets: dict[str, Any]) -> None:
        """As of a checkpoint; without ``labels`` the classes are those of the training split."""
        super().use_assets(assets)
        self.given = assets.get("labels")

    def class_counts(self) -> list[int]:
        """The training texts of each class."""
        return np.bincount(self.labels("train"), minlength=len(self.classes)).tolist()
