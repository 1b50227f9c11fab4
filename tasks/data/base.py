"""What every data module offers to tasks, checkpoints and resumed runs."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from tasks.data.batching import LoaderProgress
from tasks.data.stored import Stored
from tasks.errors import UserError


class FamilyData(pl.LightningDataModule):
    """A data module, of which checkpoints carry what inference needs and how far a run came.

    What is costly and the same in every process (tokenizers, the list of classes) is made once:
    Lightning calls :meth:`prepare_data` on one process a node, and :meth:`setup` takes over from the
    first what its :meth:`assets` say. Where a checkpoint brings them (:meth:`use_assets`, before
    both), nothing is made. Without a trainer they are made when something is first asked that needs
    them: ``setup``, ``assets``, ``model_arguments`` or a loader.

    Its samplers take ``self.progress``; a resumed run then goes on with the next batch. Runs of other
    seeds (Lightning's ``seed_everything``) see the same data in another order.
    """

    task: str
    """The task that its batches are for."""
    decided: tuple[str, ...] = ()
    """Options that made what a checkpoint carries (:meth:`assets`), which :meth:`use_assets` puts in
    their place: with a checkpoint they must be what they were."""
    problem_type: str | None = None
    """What their labels teach a head of classes to say (:mod:`family.heads.problem`); None is as usual."""
    options: dict[str, Any] | None = None
    """What the module was made with, as plain values; the command line fills it in."""
    seed: int
    """Of the data themselves: what is generated, and the order of a run of seed 0."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = LoaderProgress(self)
        self.run_seed = int(os.environ.get("PL_GLOBAL_SEED", 0))

    @property
    def order_seed(self) -> int:
        """What the order of batches, and augmentation, depend on."""
        return self.seed + self.run_seed

    # --- What one process makes and all have ---

    def prepare_data(self) -> None:
        """Make what all processes share, where no checkpoint brought it; again, it does nothing.

        A subclass adds what it writes to disk.
        """
        with self.mistakes_wait():
            self.assets()

    def setup(self, stage: str | None = None) -> None:
        """Take over what the first process has made.

        A subclass then reads the splits of the stage, so that a mistake in the files ends the run
        before it began.

        Args:
            stage: "fit", "validate", "test" or "predict"; None is as "fit".

        Raises:
            UserError: the data are not as they must be; in every process.
        """
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return
        made: dict[str, Any] | UserError | None = None
        if trainer.is_global_zero:
            try:
                made = self.assets()
            except UserError as error:
                made = error
        made = self.from_first(made)
        if isinstance(made, UserError):
            raise made
        if not trainer.is_global_zero:
            self.use_assets(made)

    def from_first(self, value: Any) -> Any:
        """What the first process of a run has in the place of ``value``; all must call it."""
        if self.trainer is None or self.trainer.world_size == 1:
            return value
        return self.trainer.strategy.broadcast(value)

    def mistakes_wait(self) -> AbstractContextManager[None]:
        """Around ``prepare_data``: leave it to ``setup`` to raise a UserError, where others wait.

        They would end with an error of their own, for the lack of this process.
        """
        several = self.trainer is not None and self.trainer.world_size > 1
        return suppress(UserError) if several else nullcontext()

    # --- What the data decide, and what a checkpoint carries of them ---

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model: ``vocab_size``, ``num_classes``, ``image_size`` ..."""
        raise NotImplementedError

    def assets(self) -> dict[str, Any]:
        """What inference needs beside the model, as plain values: all that a checkpoint has of the data.

        Keys: ``tokenizers`` (name -> JSON), ``labels`` (names of the classes in the order of their
        ids), ``problem_type``, ``preprocess`` (the fields of
        :class:`~family.inputs.preprocess.Preprocess`),
        ``generation`` (as in a ``generation_config.json``), and what a task adds.
        """
        raise NotImplementedError

    def use_assets(self, assets: dict[str, Any]) -> None:
        """Take what a checkpoint carries in place of making it from the data.

        Raises:
            UserError: the data contradicts it (another list of classes).
        """
        raise NotImplementedError

    # --- What a look at the data finds ---

    def stored(self, split: str) -> Stored | None:
        """A split as it is stored, for ``family check``; None where nothing is known of it."""
        return None

    def degenerate(self, split: str) -> list[str]:
        """What is there but teaches nothing, such as boxes without area, in a sentence each."""
        return []

    # --- Loaders, and how far a run is with them ---

    def loader(self, split: str) -> DataLoader[Any]:
        """The batches of "train", "val" or "test"."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        loader = self.loader("train")
        self.progress.begin(loader.batch_sampler)
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.loader("test")

    def state_dict(self) -> dict[str, Any]:
        options = {} if self.options is None else {"options": self.options}
        return {**self.progress.state_dict(), "run_seed": self.run_seed, **options}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.progress.load_state_dict(state)
        self.run_seed = state.get("run_seed", 0)  # the progress is one in this order
