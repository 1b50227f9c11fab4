"""What data modules of pictures, or of clips, share: splits that are held out, classes, and what a checkpoint carries
of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from family.heads.problem import MULTI
from family.inputs.preprocess import Preprocess
from tasks.data.base import FamilyData
from tasks.data.kept import as_files
from tasks.data.label_lists import check_same_problem
from tasks.data.labelled_images import Labelled, refuse_other_set
from tasks.data.splits import SPLITS, called, divide_pictures, hashes, pattern, shares_of
from tasks.data.stored import Stored
from tasks.errors import UserError, closest

MEMORY = 1 << 30
"""Bytes that the decoded pictures of a split may take."""


class LabelledData(FamilyData):
    """A subclass says by ``_read`` what a split is as it is stored, and sets ``preprocess`` and ``examples``.

    Args:
        root, val_fraction, test_fraction, split_seed, group, train_fraction, columns: see
            :class:`~tasks.data.labelled_image_data.LabelledImageData`.
    """

    preprocess: Preprocess
    examples: int
    problem_type: str | None = None
    """What a label says, see :mod:`family.heads.problem`."""

    def __init__(
        self,
        root: str | None,
        val_fraction: float,
        test_fraction: float,
        split_seed: int | None,
        group: str | None,
        train_fraction: float = 1.0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < train_fraction <= 1:
            raise UserError(
                f"data.train_fraction must be above 0 and at most 1, not {train_fraction}."
            )
        self.root = as_files(root, columns)
        self.kept = root is not None and self.root != Path(root)
        """Whether the data were kept otherwise, and stand in tables now."""
        self.shares = shares_of(val_fraction, test_fraction)
        self.split_seed, self.group = split_seed, pattern("group", group)
        self.train_fraction = train_fraction
        self.known: dict[str, Labelled | None] = {}

    # --- What there is -----------------------------------------------------------------------

    def _read(self, split: str) -> Labelled | None:
        raise NotImplementedError

    def _stored(self, split: str) -> Labelled | None:
        """A split as it is stored; None where there is none."""
        if split not in self.known:
            self.known[split] = self._read(split)
        return self.known[split]

    def _count(self, split: str) -> int:
        """The examples of a split of the built-in world."""
        return self.examples if split == "train" else max(100, self.examples // 10)

    def _kinds(self, train: Labelled) -> list[int]:
        """By which examples are held out: of each class its share; none have all the same."""
        return []

    def _in_order(self, found: Labelled, split: str) -> Labelled:
        """The labels by the run's list of classes, where there is one."""
        return found

    def split(self, name: str) -> Labelled:
        """The examples of "train", "val" or "test".

        Raises:
            UserError: there is none, nothing is held out, or a class that "train" has not.
        """
        found = self._stored(name)
        if name == "val" and found is None and self.shares["val"] == 0:
            return self.split("test")
        shares = {s: n for s, n in self.shares.items() if n and self._stored(s) is None}
        train = self._stored("train") if name in (*shares, "train") else None
        if train is not None and shares:
            kinds = self._kinds(train)
            parts = divide_pictures(train.names, shares, self.split_seed, self.group, kinds)
            found = train.part(parts[name])
        if found is None:
            raise self.no_split(name)
        if name == "train" and self.train_fraction < 1:
            count = max(1, round(self.train_fraction * len(found.names)))
            chosen = hashes(found.names).argsort(kind="stable")[:count]
            found = found.part(sorted(chosen.tolist()))
        return self._in_order(found, name)

    def no_split(self, name: str) -> UserError:
        """What to say where a split is not there."""
        return UserError(f"{self.root} has no {name} split ({' or '.join(SPLITS[name])}).")

    # --- What Lightning and tasks ask for ----------------------------------------------------

    def assets(self) -> dict[str, Any]:
        said = {} if self.problem_type is None else {"problem_type": self.problem_type}
        return {**said, "preprocess": dataclasses.asdict(self.preprocess)}

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.preprocess = Preprocess.from_dict(assets["preprocess"])

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        # Read now, so that a mistake in the files ends the run before it began.
        if stage in (None, "fit"):
            self.split("train")
        if stage in (None, "fit", "validate"):
            self.split("val")

    def stored(self, split: str) -> Stored:
        found, background = self.split(split), self.preprocess.background

        def label(i: int) -> Any:
            return np.asarray(found.labels[i]).tobytes()

        return Stored(len(found.names), lambda i: found.read(i, background), label=label)

    def predict_dataloader(self) -> DataLoader[Any]:
        none = self._stored("test") is None and not self.shares["test"]
        return self.loader("val" if none else "test")


class ClassData(LabelledData):
    """Each example has a class or, where ``problem_type`` says so, any of several labels."""

    given: list[str] | None = None
    """The classes of a checkpoint."""

    def _kinds(self, train: Labelled) -> list[int]:
        return [] if self.problem_type == MULTI else train.labels.tolist()

    def _in_order(self, found: Labelled, split: str) -> Labelled:
        """The labels by the run's list of classes."""
        if found.classes == self.classes:
            return found
        for name in found.classes:
            if name not in self.classes:
                raise UserError(
                    f"the class {name!r} of the {split} split in {self.root} is none of the "
                    f"{len(self.classes)} classes of train.{closest(name, self.classes)}"
                )
        ids = np.array([self.classes.index(name) for name in found.classes])
        if self.problem_type == MULTI:
            labels = np.zeros((len(found.names), len(self.classes)), np.float32)
            labels[:, ids] = found.labels
        else:
            labels = ids[found.labels]
        return dataclasses.replace(found, classes=self.classes, labels=labels)

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of the labels: a checkpoint's, or those of the training split."""
        if self.given is None:
            train = self._stored("train")
            if train is None:
                raise self.no_split("train")
            return train.classes
        return self.given

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model."""
        return {"num_classes": len(self.classes), "image_size": self.preprocess.size}

    def assets(self) -> dict[str, Any]:
        return {"labels": list(self.classes), **super().assets()}

    def class_counts(self) -> list[int]:
        """The training examples of each class."""
        labels = self.split("train").labels
        if self.problem_type == MULTI:
            return labels.sum(0).astype(int).tolist()
        return np.bincount(labels, minlength=len(self.classes)).tolist()

    def _width(self) -> int:
        """How many numbers a label may become."""
        return len(self.classes)

    def use_assets(self, assets: dict[str, Any]) -> None:
        check_same_problem(self.problem_type, assets)
        labels, train = list(assets["labels"]), self._stored("train")
        # Their order may be any: examples know their class by name.
        if train is not None:
            where = str(self.root or "the built-in data")
            refuse_other_set(labels, train.classes, where)
        self.given = labels
        super().use_assets(assets)


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split, by any of its names; "train" is the root itself, where no split has one."""
    names = [name for some in SPLITS.values() for name in some]
    if split == "train" and not any((root / name).is_dir() for name in names):
        return root
    folder = root / called(split, lambda name: (root / name).is_dir())
    return folder if folder.is_dir() else None
