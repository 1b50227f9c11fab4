"""A run that is resumed from any of its checkpoints sees what the unbroken run sees, once each."""

from __future__ import annotations

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from tasks.data.base import FamilyData
from tasks.data.batching import TokenBatches
from tasks.data.sampling import ExampleBatches, batch_loader
from tasks.runs.ending import LastValidation
from tasks.runs.folder import LastCheckpoint
from tasks.training.task import Task

COUNT = 22  # examples of an epoch; batches of 4 leave two over


class Rows:
    """Each example is its number."""

    def __getitems__(self, picks):
        return {"rows": torch.tensor([int(getattr(p, "index", p)) for p in picks])}

    def __len__(self):
        return COUNT


class Numbers(FamilyData):
    def __init__(self, kind="examples", size=4, workers=0):
        super().__init__()
        self.kind, self.batch_size, self.workers = kind, size, workers

    @property
    def model_arguments(self):
        return {}

    def assets(self):
        return {}

    def loader(self, split):
        train = split == "train"
        if self.kind == "examples":
            batches = ExampleBatches(COUNT, self.batch_size, train, 1, self.progress)
            return batch_loader(Rows(), batches, self.workers)
        lengths = [1 + i % 5 for i in range(COUNT)]
        batches = TokenBatches(lengths, 4 * self.batch_size, train, 1, self.progress)
        return DataLoader(Rows(), batch_sampler=batches, collate_fn=lambda batch: batch)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)


class Follow(Task):
    """Fit a line, and note which examples were seen."""

    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(Line, lr=0.1, schedule="constant", warmup_steps=0, **options)
        self.seen = []

    def loss(self, batch):
        x = batch["rows"].float()[:, None] / COUNT
        return {"loss": (self.model.line(x) - x.sin()).square().mean()}

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        self.seen.append((self.global_step, self.current_epoch, batch["rows"].tolist()))
        return loss

    def validation_step(self, batch, index):
        loss = self.loss(batch)["loss"]
        self.log("val/loss", loss)
        self.seen_in_validation()

    def seen_in_validation(self):
        pass


class Breaks(pl.Callback):
    """Fails once so many batches were trained on, in one hook or another."""

    def __init__(self, after, hook):
        self.after = after
        setattr(self, hook, self.fails)

    def fails(self, trainer, *_):
        if trainer.lightning_module.seen and len(trainer.lightning_module.seen) == self.after:
            raise RuntimeError("the power went")


def fit(folder, data, steps=14, resume=None, callbacks=(), **options):
    task = Follow()
    trainer = pl.Trainer(
        max_steps=steps,
        **{"max_epochs": -1, **options},
        accelerator="cpu",
        logger=False,
        callbacks=[LastCheckpoint(folder), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(task, data, ckpt_path=resume)
    return task


class Validations(pl.Callback):
    """By steps: the loss of the whole of the validation, and what loggers would write as the step."""

    def __init__(self):
        self.made, self.logged = {}, []

    def on_before_zero_grad(self, trainer, *_):
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        self.logged.append(step == trainer.global_step)

    def on_validation_end(self, trainer, module):
        self.made[trainer.global_step] = float(trainer.callback_metrics["val/loss"])


class Validated(Numbers):
    def val_dataloader(self):
        return self.loader("val")


CUTS = [
    *(("on_train_batch_start", n) for n in (2, 3, 6, 12)),
    *(("on_after_backward", n) for n in (3, 5, 12)),
    *(("on_train_batch_end", n) for n in (2, 4, 6, 7)),
    ("on_validation_start", 1),
    ("on_validation_start", 2),
    *(("seen_in_validation", n) for n in (3, 6, 8)),
    ("on_validation_batch_end", 6),
    ("on_train_epoch_start", 2),
]
INTERVALS = [
    {"steps": 13, "val_check_interval": 2, "check_val_every_n_epoch": None},
    {"steps": -1, "max_epochs": 3, "val_check_interval": 4},
]


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("limits", INTERVALS)
def test_cut_anywhere_it_trains_and_is_validated_as_if_unbroken(tmp_path, limits, accumulate):
    def go(folder, *callbacks, **more):
        found = Validations()
        callbacks = [found, LastValidation(), *callbacks]
        options = {**limits, "accumulate_grad_batches": accumulate, **more}
        return found, partial(fit, folder, Validated(), callbacks=callbacks, **options)

    validated, run = go(tmp_path / "whole")
    whole = run()
    for hook, number in CUTS:
        folder, place = tmp_path / f"{hook}-{number}", (hook, number)
        before, run = go(folder, Cut(hook, number))
        with pytest.MonkeyPatch.context() as patch:
            if hook == "seen_in_validation":
                patch.setattr(Follow, hook, Cut(hook, number).counts)
            with pytest.raises(RuntimeError, match="the power went"):
                run()
        if not (folder / "last.ckpt").exists():
            assert number <= accumulate  # before the first step
            continue
        after, run = go(tmp_path / "rest", resume=folder / "last.ckpt")
        rest = run()
        first = rest.seen[0][0]
        assert rest.seen == [seen for seen in whole.seen if seen[0] >= first], place
        assert same(rest, whole), place
        made = {step: loss for step, loss in before.made.items() if step <= first} | after.made
        assert made == validated.made, place
        assert all(after.logged), place


class Cut(pl.Callback):
    """Fails where a hook is called for the n-th time."""

    def __init__(self, hook, number):
        self.left = number
        setattr(self, hook, self.counts)

    def counts(self, *_):
        self.left -= 1
        if not self.left:
            raise RuntimeError("the power went")


def test_a_checkpoint_of_after_the_last_epoch_begins_with_the_next(tmp_path):
    limits = {"steps": -1, "max_epochs": 3}
    whole = fit(tmp_path, Numbers(), **limits)
    task = fit(tmp_path, Numbers(), steps=-1, max_epochs=1)
    task.trainer.save_checkpoint(tmp_path / "after.ckpt")
    rest = fit(tmp_path / "rest", Numbers(), resume=tmp_path / "after.ckpt", **limits)
    assert rest.seen == whole.seen[6:] and same(rest, whole)


def test_the_last_epochs_last_validation_is_made_up_for(tmp_path):
    found = Validations()
    run = partial(fit, tmp_path, steps=-1, max_epochs=2, val_check_interval=5)
    with pytest.raises(RuntimeError, match="the power went"):
        cut = Cut("on_validation_start", 3)
        run(Validated(), callbacks=[found, LastValidation(), cut])
    assert list(found.made) == [5, 11]
    run(Validated(), callbacks=[found, LastValidation()], resume=tmp_path / "last.ckpt")
    assert list(found.made) == [5, 11, 12]


def same(a, b):
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("kind", ["examples", "tokens"])
def test_from_a_checkpoint_of_every_step(tmp_path, kind, accumulate):
    every = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    go = partial(fit, accumulate_grad_batches=accumulate)
    whole = go(tmp_path, Numbers(kind), callbacks=[every])
    for step in (1, 3, 5, 6, 7, 12):
        rest = go(tmp_path / "rest", Numbers(kind), resume=tmp_path / f"step={step}.ckpt")
        assert rest.seen == [seen for seen in whole.seen if seen[0] >= step], step
        assert same(rest, whole), step


@pytest.mark.parametrize(
    "hook", ["on_train_batch_start", "on_train_batch_end", "on_validation_end"]
)
@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_after_an_exception_in_any_hook(tmp_path, hook, accumulate):
    go = partial(fit, accumulate_grad_batches=accumulate, val_check_interval=2)
    whole = go(tmp_path / "whole", Numbers())
    for after in (2, 3, 6, 7):
        folder = tmp_path / str(after)
        with_break = [Breaks(after, hook)]
        try:
            go(folder, Numbers(), callbacks=with_break)
            continue  # the hook is not at every batch
        except RuntimeError:
            pass
        rest = go(tmp_path / "rest", Numbers(), resume=folder / "last.ckpt")
        first = rest.seen[0][0]
        assert rest.seen == [seen for seen in whole.seen if seen[0] >= first], after
        assert same(rest, whole), after


@pytest.mark.parametrize("kind", ["examples", "tokens"])
@pytest.mark.parametrize("size", [3, 7])
def test_in_batches_of_another_size(tmp_path, kind, size):
    """Each example of an epoch once, whatever its batches were; later epochs as if never broken."""
    fit(tmp_path, Numbers(kind), steps=2)
    first = fit(tmp_path / "whole", Numbers(kind), steps=2).seen
    rest = fit(tmp_path, Numbers(kind, size), steps=20, resume=tmp_path / "last.ckpt")
    epoch = [row for _, e, rows in first + rest.seen if e == 0 for row in rows]
    assert sorted(epoch) == list(range(COUNT))
    anew = fit(tmp_path / "anew", Numbers(kind, size), steps=20)
    second = [[rows for _, e, rows in run.seen if e == 1] for run in (rest, anew)]
    shorter = min(map(len, second))
    assert shorter > 2 and second[0][:shorter] == second[1][:shorter]
    # And twice in an epoch.
    fit(tmp_path, Numbers(kind), steps=2)
    then = fit(tmp_path / "b", Numbers(kind, size), steps=3, resume=tmp_path / "last.ckpt").seen
    last = fit(tmp_path / "c", Numbers(kind), steps=12, resume=tmp_path / "b/last.ckpt").seen
    epoch = [row for _, e, rows in first + then + last if e == 0 for row in rows]
    assert sorted(epoch) == list(range(COUNT))


def test_a_checkpoint_of_before_counts_batches(tmp_path):
    whole = fit(tmp_path, Numbers(), steps=14)
    fit(tmp_path, Numbers(), steps=3)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del content["Numbers"]["parts"]
    torch.save(content, tmp_path / "old.ckpt")
    rest = fit(tmp_path, Numbers(), resume=tmp_path / "old.ckpt")
    assert rest.seen == whole.seen[3:] and same(rest, whole)


def test_in_the_midst_of_a_later_epoch_of_a_run_that_counts_epochs(tmp_path):
    """Its schedule asks for the length of an epoch before the trainer knows where it is."""
    limits = {"max_epochs": 3, "steps": -1}
    every = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    for data in (partial(Numbers, "tokens"), partial(Numbers, workers=1)):
        whole = fit(tmp_path, data(), callbacks=[every], **limits)
        rest = fit(tmp_path / "rest", data(), resume=tmp_path / "step=8.ckpt", **limits)
        assert rest.seen == whole.seen[8:] and same(rest, whole)
        (tmp_path / "step=8.ckpt").unlink()


@pytest.mark.parametrize("limits", [{}, {"max_epochs": 3, "steps": -1}])
def test_at_the_end_of_an_epoch_with_workers_that_read_ahead(tmp_path, limits):
    class Each(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.save_checkpoint(tmp_path / f"end-{trainer.global_step}.ckpt")

    every = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=6, save_top_k=-1)
    whole = fit(tmp_path, Numbers(), callbacks=[every, Each()], **limits)
    for file in ("step=6", "end-6"):
        data = Numbers(workers=1)
        rest = fit(tmp_path / "rest", data, resume=tmp_path / f"{file}.ckpt", **limits)
        assert rest.seen == whole.seen[6:], file
        assert same(rest, whole)


@pytest.mark.parametrize("kind", ["examples", "tokens"])
def test_overfitting_sees_the_same_batch_at_each_epoch(tmp_path, kind):
    task = fit(tmp_path, Numbers(kind), steps=3, max_epochs=3, overfit_batches=1)
    rows = [rows for _, _, rows in task.seen]
    assert len(rows) == 3 and rows[0] == rows[1] == rows[2]
