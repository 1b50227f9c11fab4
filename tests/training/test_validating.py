"""What a validation shows is of one state of weights, and it changes nothing of what is learnt."""

from __future__ import annotations

import copy
import math
import threading
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader

import family
from tasks.cli import main
from tasks.errors import NotFiniteError
from tasks.language_modeling import LanguageModeling
from tasks.runs.folder import LastCheckpoint

FIT = [
    "fit",
    "--config=gpt/shapes",
    "--model.model.init_args.config.dim=16",
    "--model.model.init_args.config.depth=1",
    "--model.model.init_args.config.heads=2",
    "--model.model.init_args.config.ffn_dim=32",
    "--model.model.init_args.config.dropout=0.2",
    "--data.root=text.txt",
    "--data.tokenizer=char",
    "--data.context=16",
    "--data.batch_size=2",
    "--trainer.accelerator=cpu",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("a small red star and a large blue circle\n" * 80)


class Shown(LanguageModeling):
    """Remembers its weights wherever a validation could show something of them."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.met: list[torch.Tensor] = []
        self.drawn: list[float] = []

    def meet(self):
        self.met.append(self.model.head.weight.detach().clone())

    def on_validation_start(self):
        self.meet()

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.meet()

    def validation_step(self, batch, index):
        super().validation_step(batch, index)
        self.drawn.append(float(torch.rand(())))  # as what samples
        self.meet()


def task(**options):
    torch.manual_seed(0)
    options = {"warmup_steps": 0, "schedule": "constant", "lr": 1e-2, **options}
    model = family.gpt_nano(20, dim=16, depth=1, heads=2, max_tokens=8, dropout=0.3)
    return Shown(model, **options)


def loader():
    ids = torch.randint(0, 20, (24, 9), generator=torch.Generator().manual_seed(1))
    return DataLoader([(row[:-1], row[1:]) for row in ids], batch_size=4)


def trained(folder, every, *callbacks, steps=6, one=None, **options):
    one = one or task()
    options = {"num_sanity_val_steps": 0, "enable_checkpointing": False, **options}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        limit_val_batches=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **options,
    )
    torch.manual_seed(2)
    trainer.fit(one, loader(), loader())
    return one, trainer


def test_training_does_not_depend_on_how_often_one_validates(tmp_path):
    """Nor on the check before it: dropout draws the same, whatever loaders and validation draw."""
    never, *others = (
        trained(tmp_path, every, num_sanity_val_steps=sanity)[0]
        for every, sanity in ((6, 0), (2, 0), (3, 2))
    )
    for other in others:
        assert all(map(torch.equal, never.model.parameters(), other.model.parameters()))
    assert set(others[0].drawn[::2]) == {never.drawn[0]}  # and each validation draws alike


@pytest.mark.slow
def test_a_run_of_ours_that_samples_does_not_either(tmp_path):
    states = []
    for every in (2, 4):
        more = [f"--trainer.val_check_interval={every}", "--trainer.max_steps=4"]
        main([*FIT, *more, f"--run_folder=run{every}"])
        file = f"run{every}/checkpoints/last.ckpt"
        states.append(torch.load(file, weights_only=True)["state_dict"])
        assert (tmp_path / f"run{every}" / "samples" / "step-000004.txt").is_file()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("start", [None, 4])
def test_all_that_a_validation_shows_is_of_one_state_of_weights(tmp_path, start):
    """The average; the weights of now until there is one."""
    average = EMAWeightAveraging(decay=0.5, update_starting_at_step=start)
    plain, _ = trained(tmp_path, 2)
    found, _ = trained(tmp_path, 2, average)
    if start:
        average = EMAWeightAveraging(decay=0.5, update_starting_at_step=start)
        found, _ = trained(tmp_path, 2, average)
    validations = [found.met[i : i + 4] for i in range(0, len(found.met), 4)]
    assert len(validations) == 3
    for shown in validations:
        assert all(torch.equal(shown[0], other) for other in shown)
    raw = plain.met[::4]
    same = [torch.equal(shown[0], now) for shown, now in zip(validations, raw, strict=True)]
    assert same == ([True, True, False] if start else [False, False, False])
    assert torch.equal(found.model.head.weight, validations[-1][0])


def test_a_checkpoint_before_the_first_average_holds_what_was_validated(tmp_path):
    average = EMAWeightAveraging(update_starting_at_step=100)
    found, trainer = trained(tmp_path, 2, average)
    begun = task().build.model.head.weight
    assert not torch.equal(found.model.head.weight, begun)
    assert torch.equal(found.model.head.weight, found.met[-1])
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    held = torch.load(tmp_path / "it.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(held["model.head.weight"], found.met[-1])


def test_what_is_cut_in_a_validation_has_its_own_weights_again(tmp_path):
    class Cut(Shown):
        def validation_step(self, batch, index):
            super().validation_step(batch, index)
            if self.global_step == 4:
                self.before = average._average_model.module.model.head.weight.detach().clone()
                raise RuntimeError("the power went")

    average, one = EMAWeightAveraging(decay=0.5), task()
    one.__class__ = Cut
    with pytest.raises(RuntimeError, match="power"):
        trained(tmp_path, 2, average, one=one)
    assert torch.equal(one.model.head.weight, one.before)
    assert torch.equal(average._average_model.module.model.head.weight, one.met[-1])


def test_a_run_whose_loss_is_not_finite_ends_before_it_samples(monkeypatch, capsys):
    def diverging(self, *batch):
        if self.global_step == 4:  # behind what training itself looks at
            with torch.no_grad():
                self.model.head.weight.fill_(math.nan)

    monkeypatch.setattr(LanguageModeling, "on_train_batch_end", diverging)
    more = ["--trainer.val_check_interval=2", "--trainer.max_steps=6", "--run_folder=run"]
    with pytest.raises(SystemExit):
        main([*FIT, *more])
    assert "val/loss is nan at step 4: the run ends, and its last good" in capsys.readouterr().err
    for name in ("last", "best"):
        held = torch.load(f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert held["global_step"] == 2
        assert all(value.isfinite().all() for value in held["state_dict"].values())


def test_weights_that_are_not_finite_are_never_kept(tmp_path):
    class Diverging(Shown):
        def on_train_batch_end(self, *batch):
            if self.global_step == 2:
                with torch.no_grad():
                    self.model.head.weight.fill_(math.nan)

    one = task()
    one.__class__ = Diverging
    with pytest.raises(NotFiniteError, match="val/loss is nan at step 2"):
        trained(tmp_path, 2, LastCheckpoint(tmp_path), one=one, enable_checkpointing=True)
    assert not (tmp_path / "last.ckpt").exists()


def test_a_copy_shares_the_builders_of_a_task_and_no_weights():
    """A builder of the command line leads to processes and locks, which an average of weights must not copy."""
    made = LanguageModeling(partial(family.gpt_nano, threading.Lock()), lr=0.5)
    made.model = torch.nn.Linear(2, 3)
    around = LanguageModeling(family.gpt_nano(vocab_size=5))
    around.adapt_model()
    for task in (made, around):
        other = copy.deepcopy(task)
        assert other.lr == task.lr and other.options is not task.options
        for ours, theirs in zip(task.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(ours, theirs) and ours.data_ptr() != theirs.data_ptr()
    assert copy.deepcopy(made).build is made.build
    assert copy.deepcopy(around).build.model is not around.model
