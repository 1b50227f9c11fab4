"""Batches of like length, by tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from tasks.errors import UserError

EPOCHS, BATCHES = "epoch_progress", "epoch_loop.batch_progress"
"""Where Lightning keeps how far it is, in a checkpoint's loops."""


def loading(trainer: Any) -> dict[str, Any]:
    """The loops of a checkpoint that a trainer has read and is still to take over; else nothing."""
    content = getattr(getattr(trainer, "_checkpoint_connector", None), "_loaded_checkpoint", {})
    return content.get("loops", {}).get("fit_loop", {})


class Part(NamedTuple):
    """Batches of an epoch that were made in one way, as a checkpoint holds them."""

    batches: int
    """Of each process."""
    processes: int | None
    """None, in a checkpoint of before, is as many as now."""
    size: Any
    """What the sampler says of its batches, see :class:`LoaderProgress`; None is as now."""


class LoaderProgress:
    """How far a run is with its data: the epoch, and the examples of it that were trained on.

    Saved with a checkpoint by the data module, so that a resumed run goes on with the next example,
    also in batches of another size or on another number of processes. A batch counts once it was
    trained on, in whatever hook a checkpoint is written; of gradients that are summed over several
    batches, once the optimizer has made its step.

    A sampler of training says by ``size``, a plain value, how large its batches are, by ``len`` how
    many an epoch has, and by ``left()`` how many are left of the current one.
    """

    def __init__(self, data: pl.LightningDataModule | None = None) -> None:
        self.data = data
        self.resumed: tuple[int, list[Part]] = (-1, [])
        self.size: Any = None
        self.first = 0
        """The batch, in the sizes of now, with which this run began its first epoch."""
        self.over = False
        """Whether that epoch was at its end, so that the first batches are those of the next."""

    @property
    def trainer(self) -> pl.Trainer | None:
        return None if self.data is None else self.data.trainer

    @property
    def epoch(self) -> int:
        """The epoch that is trained; after a resume at the end of one, the next."""
        if self.trainer is None:
            return 0
        saved = loading(self.trainer)
        epoch = int(saved[EPOCHS]["current"]["completed"] if saved else self.trainer.current_epoch)
        return epoch + (self.over and epoch == self.resumed[0])

    @property
    def order(self) -> int:
        """The epoch whose order the examples have: with ``trainer.overfit_batches`` the first's, always."""
        return 0 if getattr(self.trainer, "overfit_batches", 0) > 0 else self.epoch

    @property
    def parts(self) -> list[Part]:
        """What was done of this epoch before the run was resumed."""
        epoch, parts = self.resumed
        return parts if epoch == self.epoch else []

    def done(self, size: int) -> int:
        """Examples of this epoch, of all processes, that were done before; batches are of ``size``."""
        world = self.process[1]
        return sum(
            part.batches * (part.processes or world) * (size if part.size is None else part.size)
            for part in self.parts
        )

    @property
    def process(self) -> tuple[int, int]:
        """``(rank, processes)``."""
        return (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )

    def begin(self, sampler: Any) -> None:
        """Note how training makes its batches, and tell the trainer with which of them it goes on."""
        self.size = getattr(sampler, "size", None)
        if self.trainer is None or self.resumed[0] != self.epoch or not hasattr(sampler, "left"):
            return
        left = sampler.left()
        loop: Any = self.trainer.fit_loop
        self.first = len(sampler) - left
        saved, progress = loading(self.trainer), loop.epoch_loop.batch_progress
        epochs = loop.epoch_progress
        if saved:  # asked for the steps of an epoch, before the trainer takes its loops over
            progress, epochs = type(progress)(), type(epochs)()
            progress.load_state_dict(saved[BATCHES])
            epochs.load_state_dict(saved[EPOCHS])
        # Written between a step and its end: Lightning then counts the step itself.
        in_step = progress.total.completed == progress.total.processed - 1
        more = self.first - progress.current.completed - in_step
        for name in ("ready", "started", "processed", "completed"):
            setattr(progress.current, name, getattr(progress.current, name) + more)
        if not left:
            progress.is_last_batch = True
            ended = epochs.current.processed > epochs.current.completed
            self.over = in_step or (ended and self.trainer.max_steps == -1)
        if saved:
            saved[BATCHES] = progress.state_dict()

    def trained(self) -> int:
        """Batches of this epoch that this process has trained on, and that made a step."""
        assert self.trainer is not None
        epochs: Any = self.trainer.fit_loop.epoch_progress.current
        if epochs.started == epochs.completed:
            return 0  # what Lightning has counted is of the epoch before
        loop: Any = self.trainer.fit_loop.epoch_loop
        done = int(loop.batch_progress.current.processed)
        several = self.trainer.accumulate_grad_batches
        at_end = loop.batch_progress.is_last_batch and loop.batch_progress.current.ready == done
        at_end |= done == self.trainer.num_training_batches
        return done if at_end else max(self.first_of_epoch, done - done % several)

    @property
    def first_of_epoch(self) -> int:
        assert self.trainer is not None
        return self.first if self.resumed[0] == self.trainer.current_epoch else 0

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        epoch, done = self.trainer.current_epoch, self.trained()
        parts = list(self.resumed[1]) if self.resumed[0] == epoch else []
        now = Part(done - self.first_of_epoch, self.process[1], self.size)
        if parts and parts[-1][1:] == now[1:]:
            now = now._replace(batches=now.batches + parts.pop().batches)
        return {"epoch": epoch, "batches": done, "parts": [list(part) for part in (*parts, now)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # A checkpoint of before counts batches alone.
        parts = state.get("parts", [[state["batches"], None, None]])
        self.resumed, self.over = (state["epoch"], [Part(*part) for part in parts]), False


class TokenBatches(Sampler[list[int]]):
    """Batches of examples of like length; rows times the longest row is at most a budget.

    Each epoch shuffles anew: examples of equal length among each other, and the order of batches.
    The order depends on ``(seed, epoch)`` alone, so that a resumed run can skip what it has seen.
    All epochs of training have as many batches as the first, by which the trainer counts: where lengths
    fall otherwise, the fullest batches are halved, or some batches left out, other ones in each epoch.
    Several processes take turns at the batches and get equally many of them. Training leaves out
    what is over; in evaluation each example is in one batch of one process.

    Args:
        lengths: tokens of each example, the larger of source and target.
        tokens_per_batch: an example longer than this is a batch of its own.
        max_rows: at most so many examples a batch, however short they are.
        shuffle: False keeps the examples in the order of their lengths.
        progress: how far the run is.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tokens_per_batch: int,
        shuffle: bool = True,
        seed: int = 0,
        progress: LoaderProgress | None = None,
        max_rows: int | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.tokens_per_batch, self.shuffle, self.seed = tokens_per_batch, shuffle, seed
        self.progress, self.max_rows = progress or LoaderProgress(), max_rows
        self._counts: dict[tuple[int, int | None], int] = {}

    @property
    def size(self) -> list[Any]:
        return [self.tokens_per_batch, self.max_rows]

    def batches(self) -> list[list[int]]:
        """All batches of the current epoch."""
        return self._made(self.tokens_per_batch, self.max_rows)

    def chosen(self, epoch: int) -> np.ndarray:
        """The examples of an epoch, by their indices in rising order."""
        return np.arange(len(self.lengths))

    def _made(self, budget: int, max_rows: int | None) -> list[list[int]]:
        """All batches of the current epoch, of this size."""
        epoch = self.progress.order if self.shuffle else 0
        groups = self._grouped(self.chosen(epoch), epoch, budget, max_rows)
        return as_many(groups, self._count(budget, max_rows)) if epoch else groups

    def _count(self, budget: int, max_rows: int | None) -> int:
        """How many batches of this size the first epoch has, and so all."""
        key = budget, max_rows
        if key not in self._counts:
            self._counts[key] = len(self._grouped(self.chosen(0), 0, budget, max_rows))
        return self._counts[key]

    def _grouped(
        self, chosen: np.ndarray, epoch: int, budget: int, max_rows: int | None
    ) -> list[list[int]]:
        """The batches of some of the examples, by their indices in rising order."""
        random = np.random.default_rng([self.seed, epoch])
        lengths = self.lengths[chosen]
        noise = np.zeros(len(chosen))
        if self.shuffle:
            # A little noise on lengths, so that neighbours differ from epoch to epoch.
            noise = random.uniform(0, 1 + 0.1 * lengths)
        order = chosen[np.argsort(lengths + noise, kind="stable")]
        groups: list[list[int]] = [[]]
        longest = 0
        for index in order.tolist():
            length = max(longest, int(self.lengths[index]))
            rows = len(groups[-1])
            if rows and (length * (rows + 1) > budget or rows == max_rows):
                groups.append([])
                length = int(self.lengths[index])
            groups[-1].append(index)
            longest = length
        if self.shuffle:
            return [groups[i] for i in random.permutation(len(groups))]
        return groups

    def _rest(self) -> list[list[int]]:
        """The batches of all processes that are left of an epoch of training."""
        parts, (epoch, world) = self.progress.parts, (self.progress.order, self.progress.process[1])
        sizes = [self.size if part.size is None else list(part.size) for part in parts]
        sizes.append(self.size)
        groups = self._made(*sizes[0])
        for part, size, following in zip(parts, sizes[:-1], sizes[1:], strict=True):
            groups = groups[part.batches * (part.processes or world) :]
            if following != size and groups:  # from there on in other batches: the same examples
                left = np.sort(np.concatenate(groups))
                groups = self._grouped(left, epoch, *following)
        return groups

    def mine(self) -> list[list[int]]:
        """The batches of this process, in training those that are left of the epoch."""
        rank, world = self.progress.process
        if self.shuffle:
            batches = self._rest()
            batches = batches[: min(len(batches) // world, len(self)) * world]
        else:
            batches = equally_many(self.batches(), world)
        return batches[rank::world]

    def left(self) -> int:
        return len(self.mine())

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.mine())

    def __len__(self) -> int:
        """Of a whole epoch."""
        if not self.shuffle:
            return len(self.mine())
        return rounds(self._count(self.tokens_per_batch, self.max_rows), self.progress.process[1])


def as_many(batches: list[list[int]], count: int) -> list[list[int]]:
    """So many batches: the fullest are halved, or the last left out."""
    batches = batches[:count]
    while len(batches) < count:
        fullest = max(range(len(batches)), key=lambda i: len(batches[i]))
        rows = batches[fullest]
        batches[fullest] = rows[: len(rows) // 2]
        batches.append(rows[len(rows) // 2 :])
    return batches


def rounds(batches: int, processes: int) -> int:
    """How many batches of training each process gets, equally many.

    Raises:
        UserError: not even one: the others would wait for a process without any.
    """
    if batches < processes:
        raise UserError(
            f"the training data make {batches} batch{'es' * (batches != 1)}, too few for {processes} "
            "processes: make the batches smaller, or give fewer trainer.devices."
        )
    return batches // processes


def equally_many(batches: list[list[int]], processes: int) -> list[list[int]]:
    """Batches of evaluation, some of which are halved so that all processes get equally many.

    A process with fewer would not answer where a step of the others asks all, and one without any
    would have no metric to choose checkpoints by.
    Where all batches are of one example, the shortest are put together.

    Args:
        batches: in the order of their lengths.

    Raises:
        UserError: there are fewer examples than processes.
    """
    check_enough(sum(map(len, batches)), processes)
    batches = list(batches)
    while len(batches) % processes and max(map(len, batches)) > 1:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        rows = batches[largest]
        batches[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    for first in range(len(batches) % processes):
        batches[first : first + 2] = [batches[first] + batches[first + 1]]
    return batches


def check_enough(examples: int, processes: int) -> None:
    """Refuse to evaluate with more processes than examples: one would wait for metrics in vain.

    Raises:
        UserError: there are fewer examples than processes.
    """
    if examples < processes:
        raise UserError(
            f"evaluation has {examples} example{'s' * (examples != 1)}, too few for {processes} "
            "processes: give fewer trainer.devices."
        )


def token_loader(
    examples: Sequence[Any],
    batches: TokenBatches,
    collate: Callable[[list[Any]], Any],
    num_workers: int,
) -> DataLoader[Any]:
    """A loader of examples in batches of like length, each made by ``collate``."""
    return DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        generator=torch.Generator(),  # else it draws from training's random numbers
        persistent_workers=num_workers > 0,
    )
