"""What a config builds, without running it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tasks.cli.building import Dry, quietly
from tasks.cli.messages import sentence
from tasks.compare.config import Config
from tasks.errors import UserError
from tasks.training.optim import build_optimizer
from tasks.training.problem import monitor_of

ANYWHERE = ("--trainer.accelerator=cpu", "--trainer.precision=32-true")
"""What lets a model be counted where it will not run, such as a cluster's front end."""


@dataclass
class Described:
    """What a config builds."""

    parameters: int
    monitor: tuple[str, str]
    lr: float


def describe(name: str, config: Config, test: bool = False) -> Described:
    """Build a variant's model.

    Args:
        test: its data must have a test split.

    Raises:
        UserError: what ``family fit`` would say of the config, led by the variant's name.
    """
    try:
        with quietly(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yaml"
            file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
            made = Dry(str(file), ANYWHERE)
            task = made.model
            arguments = model_arguments(config, made.datamodule, test)
            model = task.model or task.build_model(arguments)
            options = (task.lr, task.weight_decay, task.betas, False, task.layer_decay)
            build_optimizer(task.optimizer_name, model, *options)
    except (UserError, MisconfigurationException) as error:
        said = str(error) if isinstance(error, UserError) else sentence(error)
        raise UserError(f"variants.{name}: {said}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"variants.{name}: model: {error}") from None
    return Described(
        sum(p.numel() for p in model.parameters()), monitor_of(task, made.datamodule), task.lr
    )


_ARGUMENTS: dict[str, dict[str, Any]] = {}
_TESTED: set[str] = set()


def model_arguments(config: Config, data: Any, test: bool) -> dict[str, Any]:
    """What data of these options decides of a model; read once, however many variants share it."""
    key = json.dumps(config.get("data"), sort_keys=True, default=str)
    if key not in _ARGUMENTS:
        _ARGUMENTS[key] = data.model_arguments
    if test and key not in _TESTED:
        data.test_dataloader()  # what is missing shows now, not after the first training
        _TESTED.add(key)
    return dict(_ARGUMENTS[key])
