"""What a config builds, without running it."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentError
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tasks.cli import FOLDER, FamilyCLI
from tasks.compare.config import Config, lay_over, undotted
from tasks.config_errors import sentence
from tasks.errors import UserError
from tasks.optim import build_optimizer

ANYWHERE = undotted(
    {
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.strategy": "auto",
        "trainer.precision": "32-true",
        "trainer.num_nodes": 1,
    }
)
"""What lets a model be counted where it will not run, such as a cluster's front end."""


@dataclass
class Described:
    """What a config builds."""

    parameters: int
    monitor: tuple[str, str]
    lr: float


class Dry(FamilyCLI):
    """Reads a config and builds task and data as ``family fit`` does, and stops there."""

    def _run_subcommand(self, subcommand: str) -> None:
        os.environ.pop(FOLDER, None)


def describe(name: str, config: Config) -> Described:
    """Build a variant's model.

    Raises:
        UserError: what ``family fit`` would say of the config, led by the variant's name.
    """
    anywhere = lay_over(config, ANYWHERE)
    try:
        with quietly(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yaml"
            file.write_text(yaml.safe_dump(anywhere, sort_keys=False), encoding="utf-8")
            cli = Dry(
                pl.LightningModule,
                pl.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                seed_everything_default=0,
                args=["fit", "--config", str(file)],
            )
            task = cli.model
            model = task.model or task.build(**model_arguments(config, cli.datamodule))
            options = (task.lr, task.weight_decay, task.betas, False, task.layer_decay)
            build_optimizer(task.optimizer_name, model, *options)
    except (UserError, ArgumentError, MisconfigurationException) as error:
        said = str(error) if isinstance(error, UserError) else sentence(str(error))
        raise UserError(f"variants.{name}: {said}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"variants.{name}: model: {error}") from None
    return Described(sum(p.numel() for p in model.parameters()), task.monitor, task.lr)


_ARGUMENTS: dict[str, dict[str, Any]] = {}


def model_arguments(config: Config, data: Any) -> dict[str, Any]:
    """What data of these options decides of a model; read once, however many variants share it."""
    key = json.dumps(config.get("data"), sort_keys=True, default=str)
    if key not in _ARGUMENTS:
        _ARGUMENTS[key] = data.model_arguments
    return dict(_ARGUMENTS[key])


@contextmanager
def quietly() -> Iterator[None]:
    """Without what Lightning says of the devices at hand."""
    names = ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in (*names, "lightning_fabric.utilities.seed")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
