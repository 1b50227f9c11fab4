"""Texts, or pairs of texts, and their classes."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from tasks.data.label_lists import LabelColumns, check_same_problem, indicators, label_names
from tasks.data.labelled_text_data import Label, LabelledTextData
from tasks.data.labelled_texts import LabelledText, class_names, labelled_shapes, said_shapes
from tasks.data.shape_pairs import asked_shapes
from tasks.data.text_files import Column
from tasks.errors import UserError, closest, in_short, some_of


class TextClassificationData(LabelledTextData):
    """Texts, or pairs of texts, and their classes, or of each any of several labels, tokenized, in batches of
    like length.

    The classes are those of the training split, of a table that is divided those of all of it, in the
    order of their names, or of their numbers.

    A batch:

    - ``input_ids (batch, tokens)`` int64: between the special tokens that the tokenizer adds
      (``<bos>`` and ``<eos>``), padded at the right;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``token_types (batch, tokens)`` int64, of pairs: the segment of each token, by the tokenizer's
      template;
    - ``labels (batch,)`` int64: ids of the classes; with ``multi_label`` ``(batch, classes)`` float32, 1 for
      each label that a text has;
    - ``text``: list of the raw texts; ``pair``: of pairs, list of the second ones; ``line``: list of their
      rows from 0, in the table as it is stored.

    Args:
        root: a folder with a table for each split, ``SPLIT.tsv``, ``.csv`` or ``.jsonl``, whose
            first line names the columns (a ``.tsv`` of two columns may do without: a sentence, a
            tab, a label); or one table of everything, or the folder of it, which is divided: every
            class gives its share to "val" and to "test". None is the built-in world of shapes: which
            of two shapes is at the left or on top; or, with ``pair_column``, of whatever name, the
            answer to a question about a sentence; or, with ``multi_label``, which shapes a sentence says.
        multi_label: a text has any of the labels, or none: ``label_column`` holds a list.
        label_separator: between the labels of a list; one in brackets is JSON.
        label_columns: in place of a list, a column of 0 and 1 for each label.
        options: of :class:`LabelledTextData`, for the columns, and of
            :class:`~tasks.data.text_data.TextData`.
    """

    task = "TextClassification"

    def __init__(
        self,
        root: str | None = None,
        label_column: Column = None,
        multi_label: bool = False,
        label_separator: str = ",",
        label_columns: list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, label_column=label_column, **options)
        columns = LabelColumns(label_column, label_separator, tuple(label_columns or ()))
        self.problem_type = columns.problem(multi_label)
        self.several = columns if self.problem_type else None
        if self.several and root is None and self.pair_column is not None:
            raise UserError(
                "data.multi_label: built-in pairs have one class each, sentences several."
            )
        self.given: list[str] | None = None
        self._divided_classes: list[str] | None = None

    def generated(self, count: int, split: str) -> list[LabelledText]:
        if self.several:
            return said_shapes(count, self.seed, split)
        view = labelled_shapes if self.pair_column is None else asked_shapes
        return view(count, self.seed, split)

    def kinds(self, rows: list[LabelledText]) -> tuple[Sequence[Hashable], Sequence[str]]:
        # Of all parts; and one class alone is a clearer mistake than a split without rows.
        self._divided_classes = self._names(rows)
        kinds = [0 if self.several else row.label for row in rows]
        return kinds, [row.group or row.text for row in rows]

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of the ids: a checkpoint's, or those of the training split."""
        if self.given is None:
            rows = self.rows("train")
            self.given = self._divided_classes or self._names(rows)
        return self.given

    def _names(self, rows: list[LabelledText]) -> list[str]:
        """Of the classes, or of the labels."""
        if self.several is None:
            return class_names(rows)
        where = rows[0].where.rpartition(" line ")[0] or "the data"
        return label_names(lists_of(rows), self.several.each, where)

    def labels(self, split: str) -> Sequence[Label]:
        """The id of each text's class; or of several labels 1 for each that it has, else 0.

        Raises:
            UserError: a class that is none of ours.
        """
        if self.several:
            rows = self.rows(split)
            return indicators(lists_of(rows), self.classes, [row.where for row in rows]).tolist()
        ids = {name: i for i, name in enumerate(self.classes)}
        for row in self.rows(split):
            if row.label not in ids:
                raise UserError(
                    f"{row.where} has the label {in_short(row.label)}, which is none of the {len(ids)} "
                    f"classes ({some_of(self.classes, 5)}).{closest(row.label, ids)}"
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
        check_same_problem(self.problem_type, assets)
        super().use_assets(assets)
        self.given = assets.get("labels")

    def class_counts(self) -> list[int]:
        """The training texts of each class."""
        if self.several:
            return np.sum(self.labels("train"), axis=0).astype(int).tolist()
        return np.bincount(self.labels("train"), minlength=len(self.classes)).tolist()


def lists_of(rows: list[LabelledText]) -> list[list[str]]:
    """The labels of each row that has several."""
    return [json.loads(row.label) if row.label else [] for row in rows]
