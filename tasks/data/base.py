"""What every data module offers to tasks, checkpoints and resumed runs."""

from __future__ import annotations

import os
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from tasks.data.batching import Place


class FamilyData(pl.LightningDataModule):
    """A data module whose place in the data is saved with a checkpoint.

    Its samplers take ``self.place``; a resumed run then goes on with the next batch. Runs of other
    seeds (Lightning's ``seed_everything``) see the same data in another order.
    """

    seed: int
    """Of the data themselves: what is generated, and the order of a run of seed 0."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Place(self)
        self.run_seed = int(os.environ.get("PL_GLOBAL_SEED", 0))

    @property
    def order_seed(self) -> int:
        """What the order of batches, and augmentation, depend on."""
        return self.seed + self.run_seed

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model: ``vocab_size``, ``num_classes``, ``image_size`` ..."""
        raise NotImplementedError

    def assets(self) -> dict[str, Any]:
        """What inference needs beside the model, as plain values, for the checkpoint.

        Keys: ``tokenizers`` (name -> JSON), ``labels`` (names of the classes in the order of their
        ids), ``preprocess`` (the fields of :class:`~family.inputs.preprocess.Preprocess`), and what
        a task adds.
        """
        raise NotImplementedError

    def use_assets(self, assets: dict[str, Any]) -> None:
        """Take what a checkpoint carries in place of making it from the data.

        Raises:
            UserError: the data contradicts it (another list of classes).
        """
        raise NotImplementedError

    def loader(self, split: str) -> DataLoader[Any]:
        """The batches of "train", "val" or "test"."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.loader("test")

    def state_dict(self) -> dict[str, Any]:
        return {**self.place.state_dict(), "run_seed": self.run_seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place.load_state_dict(state)
        self.run_seed = state.get("run_seed", 0)  # a place is one in this order
