"""Training by the ``family`` command: LightningCLI, whose runs live in one folder each."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentError
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from family.files import write_text
from family.pretrained.runs import misfit
from tasks.cli.configs import resolve_configs
from tasks.cli.exits import said_by_exit
from tasks.cli.help import asked, print_help
from tasks.cli.messages import check_nulls, sentence, unknown
from tasks.cli.older import MODE
from tasks.cli.optimizers import use_given
from tasks.cli.options import read
from tasks.cli.resuming import (
    check_ancestor,
    check_data,
    check_options,
    check_unfinished,
    name_of_run,
    of_a_run,
    of_the_run,
    put_home,
    seed_of,
    source_alone,
    use_options,
)
from tasks.data.base import FamilyData
from tasks.errors import NotFiniteError, UserError, at_least, between
from tasks.runs.checkpoints import (
    build_model,
    check_same_model,
    find_checkpoint,
    find_class,
    read_checkpoint,
)
from tasks.runs.ending import LastValidation, ending_together
from tasks.runs.folder import OWN, RunRecord, checkpoints, new_run_folder, run_loggers
from tasks.runs.screen import quiet, quiet_warnings
from tasks.runs.sources import is_published, used_alike
from tasks.runs.state import stated
from tasks.training.building import Given
from tasks.training.equipping import equip
from tasks.training.finetuning import load_source, restore
from tasks.training.problem import monitor_of
from tasks.training.task import Task
from tasks.training.trainer import Trainer

FOLDER = "FAMILY_RUN_FOLDER"
"""Tells the other processes of a run where it lives."""


class FamilyCLI(LightningCLI):
    """LightningCLI whose runs live in one folder each.

    Args:
        args: of the command line, with the paths of configs.
        command: the same as it was typed, for the record of the run.
    """

    command: Sequence[str] = ()

    def __init__(self, args: list[str], command: Sequence[str] = ()) -> None:
        self.given, self.command = args, command
        try:
            super().__init__(
                pl.LightningModule,
                pl.LightningDataModule,
                trainer_class=Trainer,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                seed_everything_default=0,
                args=args,
            )
        except MisconfigurationException as error:
            raise UserError(sentence(error)) from error

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.add_lightning_class_args(pl.LightningModule, "model", subclass_mode=True)
        # A module of the user's own may bring its loaders along.
        parser.add_lightning_class_args(
            pl.LightningDataModule, "data", subclass_mode=True, required=False
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_folder",
            type=str | None,
            default=None,
            help="where the run goes; must not exist (default: runs/NAME-TIME)",
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        # Mistakes come to us as exceptions, and leave as one sentence.
        ours = {"exit_on_error": False, "allow_abbrev": False, "parser_mode": MODE}
        return super().init_parser(**kwargs, **ours)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise UserError(sentence(error, args)) from error

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        between(0, 2**32 - 1, of="", seed_everything=int(seed or 0))
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Refuse what the parser or Lightning would pass over, or trip over in the midst of a run."""
        check_nulls(read(self.given))
        config = self.config[self.subcommand]
        for file in config.get("config") or []:
            for name in yaml.safe_load(Path(str(file)).read_text(encoding="utf-8")):
                if name not in config and name not in self.subcommands():
                    raise UserError(unknown(name, "", vars(config)))
        put_home(config)
        given = config.model.get("init_args") or {}
        if given.get("pretrained") is not None and source_alone(self.given):
            given["model"] = None  # of a config before: a source brings its own architecture
        trainer = config.trainer
        if not re.fullmatch(r"auto|-?\d+(, *\d+)*", str(trainer.devices).strip("[]")):
            raise UserError(
                "trainer.devices must be a number of devices, a list of their numbers or 'auto', "
                f"not {trainer.devices}."
            )
        on_cpu = trainer.accelerator == "cpu" or (
            trainer.accelerator == "auto" and not torch.accelerator.is_available()
        )
        if on_cpu and re.search(r"[\[,]", str(trainer.devices)):
            raise UserError(
                f"trainer.devices={trainer.devices} picks devices by number, but this runs on the CPU: "
                "give how many processes, 1 as a rule."
            )
        for name in ("accumulate_grad_batches", "log_every_n_steps"):
            at_least(1, of="trainer.", **{name: 1 if trainer[name] is None else trainer[name]})
        if trainer.val_check_interval == 0:
            raise UserError("trainer.val_check_interval must be above 0, not 0.")

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        self.folder = self._choose_folder()
        # A list of its own: the trainer adds its callbacks to the one in the config.
        given = self._listed("trainer.callbacks")
        if isinstance(self.datamodule, FamilyData):
            # Its samplers share the batches out themselves.
            kwargs["use_distributed_sampler"] = False
        loggers = [*run_loggers(self.folder), *self._listed("trainer.logger")]
        trainer: Any = super().instantiate_trainer(logger=loggers, **kwargs)
        folder = self.folder / "checkpoints"
        found = [c for c in trainer.callbacks if isinstance(c, ModelCheckpoint)]
        # Lightning adds one that keeps the newest alone, unless the config has its own, which stand beside
        # ours: in a folder where neither takes the other's names.
        wanted = bool(trainer.checkpoint_callbacks)
        defaults = [c for c in found if c not in given]
        kept = [c for c in trainer.callbacks if c not in defaults]
        trainer.callbacks = quiet(kept, given)
        self.record = RunRecord(self.folder, self._module_spec())
        equip(trainer)
        trainer.callbacks += [self.record, LastValidation()]
        if wanted:
            trainer.callbacks += checkpoints(folder, self._monitor())
        for callback in found:
            if callback.dirpath and Path(callback.dirpath).resolve() == folder.resolve():
                raise UserError(
                    f"trainer.callbacks: dirpath={callback.dirpath} of a ModelCheckpoint is where the run "
                    f"keeps its best and last one: leave it out, for {OWN} in it, or give another."
                )
            callback.dirpath = callback.dirpath or str(folder / OWN)
        return trainer

    def _listed(self, name: str) -> list[Any]:
        """What a config gives of a kind, be it one or several; whether there are any is not for it to say."""
        given = self._get(self.config_init, name)
        if given is None or isinstance(given, bool):
            return []
        return list(given) if isinstance(given, Iterable) else [given]

    def _monitor(self) -> tuple[str, str] | None:
        """The metric that the best checkpoint is chosen by, and "max" or "min"."""
        found = monitor_of(self.model, self.datamodule)
        if found is None or (isinstance(found, tuple) and len(found) == 2):
            return found
        raise UserError(
            f"{type(self.model).__name__}.monitor={found!r} must be a metric and how it is better, such "
            'as ("val/loss", "min").'
        )

    def _module_spec(self) -> dict[str, Any] | None:
        """Class path and arguments of a module that is no task of ours."""
        if isinstance(self.model, Task):
            return None
        return yaml.safe_load(self.resolved_yaml)["model"]  # plain values, as a file has them

    def _choose_folder(self) -> Path:
        """Where the run goes: the first process decides, and tells those that it starts."""
        if rank() and FOLDER in os.environ:
            return Path(os.environ[FOLDER])
        wanted = self.config[self.subcommand].run_folder
        folder = new_run_folder(Path("runs"), self._name()) if wanted is None else Path(wanted)
        if folder.exists() and not rank():
            raise UserError(f"run_folder {folder} exists: choose another, or remove it.")
        os.environ[FOLDER] = str(folder)
        return folder

    def _name(self) -> str:
        files = self.config[self.subcommand].get("config") or []
        return name_of_run(Path(str(files[0])), str(self.subcommand)) if files else "run"

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # Values that our classes refuse, quoted by the parser.
            raise UserError(sentence(error)) from error
        if self.datamodule is None and isinstance(self.model, Task):
            raise UserError(f"{type(self.model).__name__} needs data: give data.class_path.")
        if isinstance(self.model, Task):
            given = self.config[self.subcommand].model.init_args
            for name in ("model", *self.model.beside):
                if (spec := given.get(name)) is not None:
                    made = spec.as_dict() if hasattr(spec, "as_dict") else dict(spec)
                    find_class(made["class_path"])  # else no checkpoint could be loaded
                    setattr(self.model, f"{name}_spec", made)
            if self.model.model_spec and isinstance(self.model.build, Given):
                # A task that does not say the type of its model gets one built without the data.
                self.model.build = partial(built, self.model.model_spec)
        self._use_checkpoint()

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        config = self.config_init[subcommand]
        use_given(self.model, config.get("optimizer"), config.get("lr_scheduler"))

    def _use_checkpoint(self) -> None:
        """A checkpoint's tokenizers and classes go with its weights, whatever the data would make."""
        config, called = self.config[self.subcommand], self.config_init[self.subcommand]
        path, fit = config.get("ckpt_path"), self.subcommand == "fit"
        if isinstance(self.datamodule, FamilyData):
            use_options(self.datamodule, config.data.get("init_args") or {})
        if path is None and not fit:
            raise UserError(
                f"family {self.subcommand} needs --ckpt_path: a .ckpt file, the folder of a run, or "
                "a published model."
            )
        if not fit:
            check_ancestor(config, self.given)
        self.record.checkpoint = path
        other = path is not None and not fit and used_alike(path, self.model)
        if path is not None and not is_published(path) and not other:
            file = find_checkpoint(path, "last" if fit else "best")
            config.ckpt_path = called.ckpt_path = self.record.checkpoint = str(file)
            self._use_run(file, fit)
        elif not isinstance(self.model, Task):
            if path is not None:
                raise UserError(
                    f"--ckpt_path {path} is no checkpoint: give a .ckpt file, or a run."
                )
        elif path is not None and fit:
            raise UserError(
                f"--ckpt_path {path} is no checkpoint of ours to go on from; "
                f"--model.pretrained={path} would train on from published weights."
            )
        elif source := path or self.model.pretrained or self.model.parts:
            if not isinstance(self.datamodule, FamilyData):
                raise UserError(
                    f"{source} is read together with data of ours, which take its tokenizer and "
                    f"preprocessing: {type(self.datamodule).__name__} is none."
                )
            self.model.transplant = None if path else self.model.transplant
            called.ckpt_path = None
            load_source(self.model, self.datamodule, source, training=fit)

    def _use_run(self, file: Path, fit: bool) -> None:
        """Take from a run's checkpoint what its record says of model and data."""
        ours = isinstance(self.model, Task)
        content = read_checkpoint(file, any_module=not ours, weights=False)
        record = content.get("family", {})
        if ours:
            check_same_model(file, record, self.model)
            if fit:
                check_options(file, record, self.model)
            self.model.transplant = None  # what it brought is in the checkpoint
            restore(self.model, record)
        if fit:
            self._go_on(file, content)
        if isinstance(self.datamodule, FamilyData) and "assets" in record:
            check_data(file, content, self.datamodule)
            self.datamodule.use_assets(record["assets"])

    def _go_on(self, file: Path, content: dict[str, Any]) -> None:
        """Check that there is more to do, and that the config says what will be done."""
        config = self.config[self.subcommand]
        self.model.validated_again = check_unfinished(file, content, config.trainer)
        given = "seed_everything" in read(self.given)
        seed = config.seed_everything
        config.seed_everything = seed_of(file, content, self.datamodule, seed, given)

    def _parse_ckpt_path(self) -> None:
        """Lightning would read the whole checkpoint for options that ours do not hold."""

    def _run_subcommand(self, subcommand: str) -> None:
        if not rank():
            try:
                self.folder.mkdir(parents=True)
            except FileExistsError:
                raise UserError(
                    f"run_folder {self.folder} exists: another run just took it."
                ) from None
            try:
                write_text(self.folder / "config.yaml", self.resolved_yaml)
            except OSError:
                self._leave_name_free()
                raise
        facts = {
            "subcommand": subcommand,
            "command": list(self.command),
            "monitor": self._monitor(),
        }
        with stated(self.folder, facts, writes=not rank()), said_by_exit(self.folder):
            self._run_checked(subcommand)

    def _run_checked(self, subcommand: str) -> None:
        try:
            with ending_together(self.trainer):
                super()._run_subcommand(subcommand)
        except NotFiniteError:
            raise  # much was done
        except (UserError, MisconfigurationException):
            self._leave_name_free()
            raise
        except RuntimeError as error:
            if "Error(s) in loading state_dict" not in str(error):
                raise
            self._leave_name_free()
            said = f"the checkpoint does not fit the config's model: {misfit(error)}"
            raise UserError(said) from None

    def _leave_name_free(self) -> None:
        """Remove the folder of a call in which nothing was done yet, for the corrected one."""
        if not rank() and not any(self.folder.rglob("*.ckpt")):
            shutil.rmtree(self.folder)

    @property
    def resolved_yaml(self) -> str:
        """The resolved config as YAML, without what belongs to this call alone."""
        config = of_the_run(self.config[self.subcommand])
        return self._parser(self.subcommand).dump(config, skip_none=False)

    def after_fit(self) -> None:
        if not rank():
            print(f"The run is in {self.folder}.")

    after_validate = after_test = after_predict = after_fit


def built(spec: dict[str, Any], **arguments: Any) -> nn.Module:
    """The model of a class path, and of what the data decide."""
    return build_model(spec, arguments)


def rank() -> int:
    """The number of this process, before Lightning has started others: 0 alone."""
    return int(rank_zero_only.rank)  # type: ignore[attr-defined]


def run(arguments: list[str]) -> None:
    """Run ``family fit | validate | test | predict ...``, or ``family test RUN``, ``family resume RUN``.

    Raises:
        UserError: what the parser, Lightning or we refuse.
    """
    quiet_warnings()
    typed = ["family", *arguments]
    command, *rest = arguments
    if command == "resume" or (command != "fit" and rest and not rest[0].startswith("-")):
        arguments = of_a_run(command, rest)
    if asked(arguments):
        return print_help(command, arguments[1:])
    FamilyCLI(resolve_configs(arguments), typed)
