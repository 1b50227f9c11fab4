"""Data sets of the user's own, by their class paths."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tasks.errors import UserError, at_least


class OwnData(pl.LightningDataModule):
    """Any ``torch.utils.data.Dataset`` for any task.

    An example is a dictionary with the fields of the task (``Task.fields``; each task's docstring has their
    shapes), without the axis of the batch, or a tuple in their order. Torch stacks them to batches; a data set
    whose examples differ in size brings a method ``collate(examples) -> batch``, which pads.

    ::

        family fit --config image_classification/shapes --data tasks.OwnData
            --data.train my.Photos --data.train.folder PHOTOS --data.val my.Photos --data.val.folder MORE
            --data.decides '{num_classes: 5, image_size: 48}'

    Args:
        train, val, test: the data sets, by class path; without ``val`` a run is not validated.
        decides: what data of ours say of a model themselves, as far as it asks for it: ``num_classes``,
            ``vocab_size``, ``image_size``.
        labels: the names of the classes, in the order of their numbers, which a checkpoint carries; None are the
            ``classes`` of ``train``, where it has as many as there are, as data sets of torchvision have.
        batch_size: examples of a batch.
        num_workers: processes that make batches.
    """

    def __init__(
        self,
        train: Dataset,
        val: Dataset | None = None,
        test: Dataset | None = None,
        decides: dict[str, Any] | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        labels: list[str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size)
        at_least(0, num_workers=num_workers)
        self.sets: dict[str, Any] = {"train": train, "val": val, "test": test}
        self.batch_size, self.num_workers = batch_size, num_workers
        self.model_arguments = dict(decides or {})
        self.class_names = self._class_names(train, labels)
        """As far as they are known."""
        if labels is not None:
            self.model_arguments.setdefault("num_classes", len(labels))

    def _class_names(self, train: Any, labels: list[str] | None) -> list[str] | None:
        """See the class.

        Raises:
            UserError: other than as many labels as classes, or one twice.
        """
        count = self.model_arguments.get("num_classes")
        if labels is None:
            names = getattr(train, "classes", None)
            if not isinstance(names, list | tuple) or len(names) != count:
                return None
            return [str(name) for name in names]
        if count not in (None, len(labels)):
            raise UserError(
                f"data.labels has {len(labels)} names, but data.decides says num_classes: {count}."
            )
        if len(set(labels)) < len(labels):
            twice = next(name for name in labels if labels.count(name) > 1)
            raise UserError(f"data.labels has {twice!r} twice.")
        return list(labels)

    def loader(self, split: str) -> DataLoader[Any]:
        """The batches of "train", "val" or "test".

        Raises:
            UserError: there is no such data set, or nothing in it.
        """
        found = self.sets[split]
        if found is None:
            raise UserError(f"data.{split} is not given: name a class of torch.utils.data.Dataset.")
        mapped = not isinstance(found, IterableDataset)
        if mapped and not len(found):
            raise UserError(f"data.{split}: {type(found).__name__} has no example.")
        return DataLoader(
            found,
            self.batch_size,
            shuffle=split == "train" and mapped,
            num_workers=self.num_workers,
            collate_fn=getattr(found, "collate", None),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader("train")

    def val_dataloader(self) -> Any:
        return [] if self.sets["val"] is None else self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self.loader("test")

    predict_dataloader = test_dataloader
