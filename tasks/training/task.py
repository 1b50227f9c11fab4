"""What every task shares: the model built for the data, optimizer, schedule, checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from family.accelerate import accelerate
from family.checks import first_line
from family.inference.loaded import assets_of
from family.inputs.preprocess import Preprocess
from tasks.errors import UserError, at_least, between
from tasks.training.building import Given, build_for, check_precision
from tasks.training.counting import Counting
from tasks.training.equipping import equip, share_once
from tasks.training.finetuning import LoRA, adapt
from tasks.training.logs import watched, written
from tasks.training.optim import build_optimizer, check_matrices, keep_options
from tasks.training.record import copied, loaded_task, record_of, remember_options
from tasks.training.resuming import settle
from tasks.training.schedules import build_schedule
from tasks.training.sharding import FSDP2
from tasks.training.transplant import Report, Transplant, carry_out

STEPS = ("training_step", "validation_step", "test_step", "predict_step")


def by_names(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that gets its batch by the names of its fields, whatever the loader gives."""

    @functools.wraps(step)
    def named(self: Task, batch: Any, *place: Any, **more: Any) -> Any:
        return step(self, self.by_name(batch), *place, **more)

    return named


class Task(Counting):
    """Train a model; subclasses say by which loss, and how well it does.

    A Lightning module like any other: ``trainer.fit(task, data)`` takes a data module of ours or of
    the user's own, or a plain DataLoader whose batches have the task's fields, by name or, in their
    order, as a tuple. With ours the data decide what the model is built for; otherwise the model says
    so itself. What inference needs beside it (names of classes, a tokenizer, preprocessing) comes from
    our data module, or from the model's ``labels``, ``tokenizer`` and ``preprocess``.

    Args:
        model: the model, or what builds it, a class or a function; our data modules hand in what they
            decide (a vocabulary size, a number of classes, the size of pictures).
        lr: the peak of the schedule.
        optimizer: "adamw", "adam", "muon", or any of timm's.
        schedule: "constant", "inverse_sqrt", "cosine", "linear" or "wsd", after a linear warm-up.
        min_lr_ratio: where "cosine", "linear" and "wsd" end, as a share of the peak.
        compile: compile the model with torch.compile.
        pretrained: train on from published weights, in the place of ``model``: anything that
            :func:`family.from_pretrained` takes, such as the id of a model on the hub.
        freeze: patterns of the names of parameters that do not learn, such as ``embedding.*``.
        layer_decay: each layer learns slower by this factor than the one above it (BEiT: 0.65 to
            0.9), see :func:`~tasks.training.optim.layer_factors`.
        lora: train adapters alone, see :class:`~tasks.training.finetuning.LoRA`.
        transplant: parts of another kind of model, see :class:`~tasks.training.transplant.Transplant`.
    """

    monitor = ("val/loss", "min")
    """The metric by which the best checkpoint is chosen."""
    trains: tuple[str, ...] = ()
    """Further tasks whose members it trains."""
    gives: str = ""
    """The task by whose name commands know its models, where that is another: they are used alike."""
    parts: tuple[str, ...] = ()
    """Sources whose models :meth:`made_of` puts together, in the place of one ``pretrained``."""
    fields: tuple[str, ...] = ()
    """What stands where in a batch that is a tuple; those that may be left out come last."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            remember_options(cls)
        for step in STEPS:
            if step in vars(cls):
                setattr(cls, step, by_names(vars(cls)[step]))

    def __init__(
        self,
        # A module is callable too; the parser would build one at once, were it named here.
        model: Callable[[int], nn.Module] | None = None,
        lr: float = 1e-3,
        optimizer: str = "adamw",
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        schedule: str = "cosine",
        warmup_steps: int = 100,
        min_lr_ratio: float = 0.0,
        compile: bool = False,
        pretrained: str | None = None,
        freeze: list[str] | None = None,
        layer_decay: float | None = None,
        lora: LoRA | None = None,
        transplant: Transplant | None = None,
    ) -> None:
        super().__init__()
        if model is not None and pretrained is not None:
            raise UserError(
                f"model.pretrained={pretrained} brings its own architecture: leave model.model out."
            )
        if lora is not None and (freeze or not (pretrained or self.parts)):
            other = "beside model.freeze" if freeze else "without model.pretrained"
            raise UserError(f"model.lora {other}: it freezes all weights of a published model.")
        if transplant is not None and pretrained is not None:
            raise UserError(
                f"model.transplant beside model.pretrained={pretrained}: choose where weights come from."
            )
        at_least(0, of="model.", lr=lr, warmup_steps=warmup_steps, weight_decay=weight_decay)
        between(0, 1, of="model.", min_lr_ratio=min_lr_ratio, beta1=betas[0], beta2=betas[1])
        if layer_decay is not None:
            between(0, 1, of="model.", layer_decay=layer_decay)
        self.build: Any = Given(model) if isinstance(model, nn.Module) else model
        self.pretrained = pretrained
        self.freeze_patterns, self.layer_decay, self.lora = list(freeze or []), layer_decay, lora
        self.transplant = transplant
        self.transplanted: Report | None = None
        """What became of each weight of a transplant."""
        self.model: Any = None
        self.lr, self.optimizer_name, self.weight_decay = lr, optimizer, weight_decay
        self.betas, self.schedule, self.warmup_steps = betas, schedule, warmup_steps
        self.min_lr_ratio, self.compile_model = min_lr_ratio, compile
        self.model_spec: dict[str, Any] = {}
        """Class path and arguments of the model; the command line fills it in."""
        self.samples: list[str] = []  # predictions as text, of the last validation
        self.pictures: dict[str, Image.Image] = {}
        """Predictions as pictures, by name, of the last validation."""
        self.signatures: dict[str, str] = {}
        """How each metric was computed, where there is more than one way."""
        self.kept: dict[str, Any] | None = None  # the assets of the checkpoint it was loaded from
        self.decided: dict[str, Any] = {}  # what the data of that checkpoint decided of the model
        self._adapted = self._prepared = False
        self.given: dict[str, Any] | None = None
        """By class path, an optimizer and a schedule in the place of its own; as ``model_spec``."""
        self.taught: tuple[int, list[dict[str, Tensor]]] = (-1, [])  # a step, its parts' numbers
        self._watched = False  # whether the bar or a callback sees the numbers of every step

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copied(self, memo)

    options: dict[str, Any]
    """What the task was made with, by name."""
    validated_again = False
    """Whether a run goes on from its end, whose metrics are still to be written."""
    beside: tuple[str, ...] = ()
    """Options that build another model than the task's; of each, ``OPTION_spec`` is as ``model_spec``."""

    # --- Data and model ----------------------------------------------------------------------

    def made_of(self, source: nn.Module) -> nn.Module:
        """The model that is trained, of a source's: that, or a part of it."""
        return source

    @property
    def data(self) -> Any:
        """The data module of the run; None where it goes without one."""
        return None if self._trainer is None else getattr(self._trainer, "datamodule", None)

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decide of the model; without data of ours, what those of the checkpoint did."""
        return getattr(self.data, "model_arguments", self.decided)

    def assets(self) -> dict[str, Any]:
        """What inference needs beside the model, as plain values, see
        :meth:`tasks.data.base.FamilyData.assets`; a data module of the user's own data has ``class_names`` at most."""
        if hasattr(self.data, "assets"):
            return self.data.assets()
        found = assets_of(self.model) if self.kept is None else self.kept
        names = getattr(self.data, "class_names", None)
        if not names:
            return found
        return {**found, "labels": list(names), "category_ids": list(range(len(names)))}

    @property
    def num_classes(self) -> int | None:
        """By the data, or else by the model; None where neither says it."""
        own = getattr(self.model, "num_classes", None)
        return self.model_arguments.get("num_classes", own)

    def label_names(self, count: int) -> list[str]:
        """Names of so many classes; their numbers, where nobody gives names."""
        return self.assets().get("labels") or [str(i) for i in range(count)]

    def tokenizer(self, name: str = "text") -> Any:
        """The tokenizer of "text", "source" or "target"; None where neither data nor model has one."""
        of_data = getattr(self.data, "tokenizer" if name == "text" else f"{name}_tokenizer", None)
        own = of_data or getattr(self.model, "tokenizer", None)
        return own.target if name == "target" and own is not None else own

    def restored(self, pixel_values: Tensor) -> Tensor:
        """Pixels as uint8, for looking at; stretched, where nobody says how they were normalised."""
        fields = self.assets().get("preprocess")
        if fields is not None:
            return Preprocess.from_dict(fields).restore(pixel_values)
        low, high = pixel_values.amin(), pixel_values.amax()
        return ((pixel_values - low) / (high - low).clamp(min=1e-6) * 255).to(torch.uint8)

    def build_model(self, arguments: dict[str, Any] | None = None) -> nn.Module:
        """The model, built for what the data decide.

        Args:
            arguments: in place of the data's own.

        Raises:
            UserError: there is nothing to build it from, or values that do not fit.
        """
        if self.build is None:
            raise UserError(
                "the task has no model: give model.model, what builds one, or "
                "model.pretrained, which the command line (or tasks.training.finetuning.load_source) reads."
            )
        try:
            decided = self.model_arguments if arguments is None else arguments
            return build_for(self.build, decided, self.model_spec)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise UserError(f"model: {first_line(error)}.") from error

    def adapt_model(self) -> None:
        """Build the model, where it is not there, and change in it what the options say; once."""
        if self.model is None:
            self.model = self.build_model()
        if self._adapted:
            return
        self._adapted = True
        if self.transplant is not None:
            self.transplanted = carry_out(self.model, self.transplant)
        adapt(self.model, self.lora, self.freeze_patterns)

    def renew(self, arguments: dict[str, Any]) -> None:
        """Begin with a new model, built for other arguments than the data's; one that was handed in
        stays."""
        if isinstance(self.build, Given):
            return self.configure_model()
        self.model, self._adapted, self._prepared = self.build_model(arguments), False, False
        self.configure_model()

    def configure_model(self) -> None:
        self.adapt_model()
        check_precision(self.model, str(self.trainer.precision))
        if self._prepared:
            return
        self._prepared = True
        if self.trainer.strategy.root_device.type == "cpu":
            accelerate(self.learner)
        if self.compile_model:
            for part in self.compiled_parts():
                part.compile()  # in place: names in checkpoints stay as they are
        if isinstance(self.trainer.strategy, FSDP2):
            self.trainer.strategy.share_out(self.learner)

    @property
    def learner(self) -> nn.Module:
        """All that is trained: the model, and what a task trains beside it."""
        return self.model

    def compiled_parts(self) -> list[nn.Module]:
        """What training calls of the model."""
        return [self.model]

    # --- Training ----------------------------------------------------------------------------

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What a batch teaches: "loss", which is minimised, and beside it what a log should show.

        Pure: it asks for no trainer and logs nothing.
        """
        raise NotImplementedError

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        batch = self.told(self.by_name(batch))
        terms = self.loss(batch)
        self.log_training(terms)
        return self.weighed(terms["loss"], batch)

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        super().on_train_batch_start(batch, index)
        # Lightning loses count when a run is resumed; it is the step that loggers write.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    def setup(self, stage: str) -> None:
        super().setup(stage)
        equip(self.trainer)
        self.taught = -1, []  # those of a fit before are of no step of this one
        self._watched = watched(self.trainer)
        share_once(self.trainer, self.data)

    def by_name(self, batch: Any) -> Any:
        """A batch that is a tuple, by the names of its fields.

        Raises:
            UserError: it has more parts than the task has fields.
        """
        if not isinstance(batch, tuple | list) or not self.fields:
            return batch
        if len(batch) > len(self.fields):
            raise UserError(
                f"the loader gives batches of {len(batch)} parts, but {type(self).__name__} knows "
                f"{', '.join(self.fields)}: give dictionaries by these names."
            )
        return dict(zip(self.fields, batch, strict=False))

    def log_mean(self, values: dict[str, Tensor], count: int, prog_bar: bool = True) -> None:
        """Log what was found of ``count`` examples or tokens, for the mean over a split."""
        # A float: whole numbers Lightning rounds down when it shares them out among processes.
        self.log_dict(
            values,
            on_step=False,
            on_epoch=True,
            batch_size=float(count),  # type: ignore[arg-type]
            sync_dist=True,
            prog_bar=prog_bar,
        )

    def log_training(self, terms: dict[str, Tensor]) -> None:
        """Log the numbers of a training step that somebody sees, see :mod:`tasks.training.logs`; where
        gradients come in several parts, their mean so far. Of several processes it is the first's."""
        if self.taught[0] != self.global_step:
            self.taught = self.global_step, []
        parts = self.taught[1]
        parts.append({name: value.detach() for name, value in terms.items()})
        if not (self._watched or written(self.trainer, self.global_step + 1)):
            return
        for name, value in parts[-1].items():
            if len(parts) > 1:
                value = torch.stack([part[name] for part in parts if name in part]).mean()
            self.log(f"train/{name}", value, prog_bar=name == "loss")

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule. A resumed run takes their state from the checkpoint; ``lr``,
        ``weight_decay``, ``betas`` and the schedule are its own, from the step where it goes on."""
        if self.optimizer_name == "muon":
            check_matrices(self.trainer.strategy)
        fused = "mixed" not in str(self.trainer.precision)
        optimizer = keep_options(
            build_optimizer(
                self.optimizer_name,
                self.learner,
                self.lr,
                self.weight_decay,
                self.betas,
                fused,
                self.layer_decay,
            )
        )
        total = self.trainer.estimated_stepping_batches
        schedule = build_schedule(
            self.schedule, optimizer, self.warmup_steps, total, self.min_lr_ratio
        )
        planned = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": planned}

    # --- Checkpoints -------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["family"] = record_of(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        state = checkpoint.get(type(self.data).__qualname__, {})
        settle(checkpoint, state.get("batches"), self.validated_again)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: None = None,
        strict: bool = True,
        weights_only: bool = True,
        **options: Any,
    ) -> Self:
        """The task of a checkpoint, its model built and filled, ready for a trainer or for its own
        methods.

        Args:
            checkpoint_path: a ``.ckpt`` file, or the folder of a run.
            strict: refuse weights that are missing or left over.
            hparams_file, weights_only: Lightning's; a checkpoint has its own options, and is always read
                as weights alone.
            options: of the task, in place of those that it was trained with; ``model`` where it was
                trained around a module that a checkpoint cannot describe.

        Raises:
            UserError: no checkpoint of ours, one of another task, or weights that do not fit.
        """
        task = loaded_task(cls, Path(checkpoint_path), options, strict)
        return task.eval().to(map_location or "cpu")
