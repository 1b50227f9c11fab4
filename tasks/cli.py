"""The ``family`` command."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentError
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from tasks.checkpoints import check_same_model, find_checkpoint, read_checkpoint
from tasks.commands import COMMANDS
from tasks.commands.listing import config_names
from tasks.config_errors import sentence
from tasks.errors import UserError
from tasks.run_folder import RunRecord, keep_best_and_last, new_run_folder, run_loggers

HERE = Path(__file__).parent
CONFIG_FOLDERS = (HERE / "configs", HERE.parent / "configs")
"""Where configs lie in a wheel, and in a checkout."""
DESCRIPTION = f"""Train and use the Transformer family. family fit --config TASK/NAME trains;
what was trained is used by: family {", ".join(COMMANDS)} (each with --help)."""


class FamilyCLI(LightningCLI):
    """LightningCLI whose runs live in one folder each."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_folder",
            type=str | None,
            default=None,
            help="where the run goes; must not exist (default: runs/NAME-TIME)",
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        # Mistakes come to us as exceptions, and leave as one sentence.
        return super().init_parser(**{**kwargs, "exit_on_error": False})

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config[self.subcommand]
        parent = Path("runs")
        folder = new_run_folder(parent, self._name())
        if config.run_folder is not None:
            folder = Path(config.run_folder)
            if folder.exists():
                raise UserError(f"run_folder {folder} exists: choose another, or remove it.")
        self.folder = folder
        trainer = super().instantiate_trainer(
            # Our samplers share the batches out among processes themselves.
            logger=run_loggers(folder),
            use_distributed_sampler=False,
            **kwargs,
        )
        trainer.callbacks.append(RunRecord(folder))
        keep_best_and_last(trainer, folder / "checkpoints", *self.model.monitor)
        return trainer

    def _name(self) -> str:
        files = self.config[self.subcommand].get("config") or []
        path = Path(str(files[0])) if files else Path("run")
        return f"{path.parent.name}-{path.stem}" if path.parent.name else path.stem

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # Values that our classes refuse, quoted by the parser.
            raise UserError(sentence(str(error))) from error
        spec = self.config[self.subcommand].model.init_args.model
        self.model.model_spec = spec.as_dict() if hasattr(spec, "as_dict") else dict(spec)
        self._use_checkpoint()

    def _use_checkpoint(self) -> None:
        """A checkpoint's tokenizers and classes go with its weights, whatever the data would make."""
        config = self.config[self.subcommand]
        path = config.get("ckpt_path")
        if path is None:
            if self.subcommand != "fit":
                raise UserError(f"family {self.subcommand} needs --ckpt_path, a .ckpt file.")
            return
        file = find_checkpoint(path)
        config.ckpt_path = self.config_init[self.subcommand].ckpt_path = str(file)
        record = read_checkpoint(file)["family"]
        check_same_model(file, record, type(self.model).__name__, self.model.model_spec)
        self.datamodule.use_assets(record["assets"])

    def before_fit(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "config.yaml").write_text(self.resolved_yaml, encoding="utf-8")

    @property
    def resolved_yaml(self) -> str:
        """The resolved config as YAML, without what belongs to this call alone."""
        config = self.config[self.subcommand].clone()
        for name in ("config", "run_folder"):
            config.pop(name, None)
        return self._parser(self.subcommand).dump(config, skip_none=False)

    def after_fit(self) -> None:
        print(f"The run is in {self.folder}.")

    after_validate = after_test = after_predict = after_fit


def no_advertisement(record: logging.LogRecord) -> bool:
    """Keep a log record, unless it recommends a product."""
    return "Tip:" not in record.getMessage()


def find_config(name: str) -> str:
    """A path as it is, or the name of a config that we ship: ``gpt/shapes``.

    Raises:
        UserError: there is no such config.
    """
    if Path(name).exists():
        return name
    for folder in CONFIG_FOLDERS:
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if candidate.is_file():
                return str(candidate)
    known = ", ".join(config_names(CONFIG_FOLDERS))
    raise UserError(f"--config {name}: no such file, nor a config of ours: {known}.")


def resolve_configs(arguments: list[str]) -> list[str]:
    """Replace the names of shipped configs by their paths."""
    resolved = list(arguments)
    for i, argument in enumerate(arguments):
        if argument.startswith("--config="):
            resolved[i] = "--config=" + find_config(argument.removeprefix("--config="))
        elif argument == "--config" and i + 1 < len(arguments):
            resolved[i + 1] = find_config(arguments[i + 1])
    return resolved


def main(arguments: list[str] | None = None) -> None:
    """Run ``family COMMAND ...``; a user's mistake prints one sentence and exits with 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in COMMANDS:
            COMMANDS[arguments[0]](arguments[1:], CONFIG_FOLDERS)
            return
        # We hand the arguments in, because names of configs became paths.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        warnings.filterwarnings("ignore", message=".*treespec")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(no_advertisement)
        FamilyCLI(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            parser_kwargs={"description": DESCRIPTION},
            seed_everything_default=0,
            args=resolve_configs(arguments),
        )
    except UserError as error:
        # A worker of a data loader sends its traceback along; the sentence is at the end.
        said = str(error).strip().splitlines()[-1].removeprefix("tasks.errors.UserError: ")
        print(f"family: {said}", file=sys.stderr)
        sys.exit(2)
    except ArgumentError as error:
        print(f"family: {sentence(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
