"""A run lives in one folder: config, logs, checkpoints, samples, final metrics."""

from __future__ import annotations

import json
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only, rank_zero_warn

from family.files import no_room, whole, write_picture, write_text
from family.pretrained.parts import SHARDS, folder_of, in_parts
from tasks.errors import NotFiniteError
from tasks.runs.gathering import gather
from tasks.runs.tables import write_table
from tasks.runs.writing import WholeCSVLogger

OWN = "own"
"""Where in the folder of checkpoints those lie that a config's own callbacks write."""


def new_run_folder(parent: Path, name: str) -> Path:
    """A folder that does not exist yet, named by task, config and time."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder, number = parent / f"{name}-{stamp}", 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{stamp}-{number}"
    return folder


def run_loggers(folder: Path) -> list[Any]:
    """CSV and TensorBoard logs inside the run's folder."""
    return [
        WholeCSVLogger(str(folder), name="", version="logs"),
        TensorBoardLogger(str(folder), name="", version="logs"),
    ]


class LastCheckpoint(Checkpoint):
    """Keep the last state: at each validation and end of an epoch, and when training is cut short.

    ``--ckpt_path`` goes on from it. Lightning's own ``save_last`` writes only along with a new best.
    Where one of several processes fails, it waits for none: the first writes what it has alone, and
    where each has but a part of it, what the last validation left stays. Weights that are not finite are
    never kept.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.began, self.stepping = folder / "last.ckpt", 0, -1

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.began = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.stepping = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save(trainer, since=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save(trainer, since=0)

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, NotFiniteError) and (self.file.exists() or not finite(module)):
            return  # the weights of now are those that led there
        if self.stepping == trainer.global_step:
            return  # in the midst of the optimizer's step: some weights have made it
        if no_room(exception) is not None and self.file.exists():
            return
        if trainer.world_size == 1 or isinstance(exception, SIGTERMException):
            self._save(trainer, self.began)  # all processes end here
        elif isinstance(trainer.strategy, DDPStrategy) and trainer.is_global_zero:
            self._save(trainer, self.began, alone=True)

    def _save(self, trainer: pl.Trainer, since: int, alone: bool = False) -> None:
        """Keep what was made since a step; a run that goes on may have a validation alone to make."""
        if trainer.state.fn != "fit" or trainer.global_step <= since:
            return
        good = finite(trainer.lightning_module)
        if not (good if alone else trainer.strategy.reduce_boolean_decision(good)):
            rank_zero_warn(
                f"no checkpoint at step {trainer.global_step}: its weights are not finite."
            )
        elif alone:  # ``save_checkpoint`` waits for the others
            content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.checkpoint_io.save_checkpoint(content, self.file)
        else:
            trainer.save_checkpoint(self.file)


def finite(module: torch.nn.Module) -> bool:
    """Whether all weights are, of which a process may have but a part."""
    mine = (getattr(weight, "_local_tensor", weight) for weight in module.parameters())
    return all(bool(weight.isfinite().all()) for weight in mine)


class BestCheckpoint(ModelCheckpoint):
    """Keep the best state, beside any ``ModelCheckpoint`` of a config, be it by the same metric.

    A run that goes on in another folder takes the best of before along, where it lies beside the checkpoint
    that is gone on from and is the one that this knows.
    """

    before: Path | None = None
    """Where it would lie."""
    there: bool = False
    """Whether this run's folder has one already, as all processes know before the first one copies any."""

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.ckpt_path is not None:
            self.before = Path(trainer.ckpt_path).parent / f"{self.filename}{self.FILE_EXTENSION}"
            kept = self.dirpath is not None and (Path(self.dirpath) / self.before.name).exists()
            self.there = trainer.strategy.broadcast(kept)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        score, path = state.get("best_model_score"), self.before
        kept = None if path is None or self.dirpath is None else Path(self.dirpath) / path.name
        if path is None or kept is None or self.there:
            return super().load_state_dict(state)
        super().load_state_dict({**state, "dirpath": None})  # what it names is not here
        if score is None or not path.is_file():
            return
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        parts = folder_of(path, content) if in_parts(content) else None
        if parts is not None and not parts.is_dir():
            return  # without its weights it is none
        theirs = content["callbacks"]
        found = theirs.get(self.state_key, theirs.get(self._legacy_state_key, {}))
        if not torch.equal(torch.as_tensor(found.get("best_model_score", torch.nan)), score):
            return  # of after this checkpoint
        self.best_k_models = {str(kept): score}
        self.kth_best_model_path = self.best_model_path = str(kept)
        self.kth_value = self.best_model_score = score
        if not getattr(rank_zero_only, "rank", 0):
            kept.parent.mkdir(parents=True, exist_ok=True)
            if parts is not None:
                shutil.copytree(parts, kept.parent / content[SHARDS], dirs_exist_ok=True)
            with whole(kept) as new:
                shutil.copyfile(path, new)

    @property
    def _legacy_state_key(self) -> str:  # type: ignore[override]
        """As checkpoints of before call its state."""
        return self.state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)


def checkpoints(folder: Path, monitor: tuple[str, str] | None) -> list[Checkpoint]:
    """The last, and the best by a metric and "max" or "min", in ``folder``; without a metric the last
    alone."""
    last: list[Checkpoint] = [LastCheckpoint(folder)]
    if monitor is None:
        return last
    name, mode = monitor
    best = BestCheckpoint(
        folder, filename="best", monitor=name, mode=mode, enable_version_counter=False
    )
    return [best, *last]


class RunRecord(pl.Callback):
    """Write samples and pictures at each validation, the last metrics as JSON, tables of a test, and
    predictions as JSON lines and CSV, boxes also as COCO's array, masks as files.

    Args:
        module: class path and arguments of a module that is no task of ours, for its checkpoints:
            trained on data of ours, they can then be used as those of a task.
    """

    def __init__(self, folder: Path, module: dict[str, Any] | None = None) -> None:
        self.folder, self.module = folder, module
        self.checkpoint: str | None = None
        """What was evaluated, or gone on from; the command line fills it in."""
        self.known: dict[str, float] = {}
        """The metrics of the checkpoint that a run goes on from."""
        self.predictions: list[dict[str, Any]] = []
        self.others: list[Any] = []
        self.start = time.perf_counter()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["metrics"] = self._metrics(trainer)
        data: Any = getattr(trainer, "datamodule", None)
        if self.module is not None and hasattr(data, "assets"):
            checkpoint["family"] = {
                "task": self.module["class_path"],
                "kind": getattr(data, "task", ""),
                "model": self.module,
                "arguments": {},
                "assets": data.assets(),
                "whole": True,
            }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.known = checkpoint.get("metrics", {}) if trainer.state.fn == "fit" else {}

    def _metrics(self, trainer: pl.Trainer) -> dict[str, float]:
        """What was found last, be it before a cut."""
        return self.known | {n: float(value) for n, value in trainer.callback_metrics.items()}

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.start = time.perf_counter()
        report = getattr(module, "transplanted", None)
        if report is not None and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "transplant.md", report.text())

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        if trainer.state.fn == "validate":
            self._write(trainer, module, "validate")
        folder = self.folder / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"step-{trainer.global_step:06d}"
        samples = getattr(module, "samples", [])
        if samples:
            text = "\n\n".join(samples) + "\n"
            write_text(folder / f"{name}.txt", text)
        pictures = getattr(module, "pictures", {})
        for kind, picture in pictures.items():
            write_picture(folder / f"{name}-{kind}.png", picture)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                board, step = logger.experiment, trainer.global_step
                for i, sample in enumerate(samples):
                    board.add_text(f"samples/{i}", f"    {sample}".replace("\n", "\n    "), step)
                for kind, picture in pictures.items():
                    board.add_image(kind, np.asarray(picture), step, dataformats="HWC")

    def on_predict_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *batch: Any
    ) -> None:
        if outputs is None:
            return
        if not (isinstance(outputs, list) and all(isinstance(one, dict) for one in outputs)):
            self.others.append(outputs)  # of a module that is no task of ours, whatever it gives
            return
        for made in outputs:
            for name, value in made.items():
                if isinstance(value, Image.Image):  # a file each, not all of them in memory
                    made = {**made, name: self._picture(value, name, made, trainer.global_rank)}
            self.predictions.append(made)

    def _picture(self, picture: Image.Image, kind: str, made: dict[str, Any], process: int) -> str:
        """Write ``masks/NAME.png``, called as the picture it was made of; the path in the folder."""
        name = str(made.get("file", f"{process}-{len(self.predictions)}"))
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        path = Path(name) if inside else Path(Path(name).name)
        place = f"{kind}s" / path.with_suffix(".png")
        (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while (self.folder / place).exists():  # a.jpg beside a.png, or of other folders
            place = place.with_name(f"{path.name}{f'-{number}' * (number > 1)}.png")
            number += 1
        write_picture(self.folder / place, picture)
        return place.as_posix()

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.others:
            self.folder.mkdir(parents=True, exist_ok=True)
            rank = f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
            with whole(self.folder / f"predictions{rank}.pt") as new, new.open("wb") as file:
                torch.save(self.others, file)
        predictions = gather(self.predictions)
        # Batches of like length come in another order than the file.
        predictions.sort(key=lambda made: made.get("line", 0))
        if trainer.is_global_zero and (predictions or not self.others):
            self.folder.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(made, ensure_ascii=False) + "\n" for made in predictions]
            write_text(self.folder / "predictions.jsonl", "".join(lines))
            write_table(self.folder / "predictions.csv", predictions)
            if predictions and {"id", "answer"} <= predictions[0].keys():  # as SQuAD's script does
                answers = {made["id"]: made["answer"] for made in predictions}
                text = json.dumps(answers, ensure_ascii=False, indent=2) + "\n"
                write_text(self.folder / "squad-predictions.json", text)
            if predictions and "bbox" in predictions[0]:  # as COCO's own programs read them
                array = json.dumps(predictions, ensure_ascii=False) + "\n"
                write_text(self.folder / "coco-results.json", array)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._write(trainer, module, "fit")

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._write(trainer, module, "test")
        tables = getattr(module, "tables", {}) if trainer.is_global_zero else {}
        for name, rows in tables.items():
            write_table(self.folder / f"test-{name}.csv", rows)

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {
            "step": trainer.global_step,
            "seconds": round(time.perf_counter() - self.start, 1),
            "metrics": self._metrics(trainer),
            "signatures": getattr(module, "signatures", {}),
        }
        if self.checkpoint is not None:
            record["checkpoint"] = self.checkpoint
        text = json.dumps(record, indent=2) + "\n"
        write_text(self.folder / f"metrics-{stage}.json", text)
