"""What a run shows on the screen: Lightning's bar and table, without what says nothing here."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from pytorch_lightning.callbacks import Callback, RichModelSummary, RichProgressBar
from rich import get_console
from rich.table import Table

from tasks.runs.numbers import short


class Bar(RichProgressBar):
    """Without a version, and without the number of epochs where steps end a run."""

    def _get_train_description(self, current_epoch: int) -> str:
        most = self.trainer.max_epochs
        said = f"Epoch {current_epoch}" + (f"/{most - 1}" if most is not None and most > 0 else "")
        return f"{said:{len(self.validation_description)}}"

    def get_metrics(self, *given: Any) -> dict[str, Any]:
        found = super().get_metrics(*given)
        found.pop("v_num", None)
        return found


class Summary(RichModelSummary):
    """The parts of a task that have weights, and how many."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        *rest: Any,
        **more: Any,
    ) -> None:
        columns = {name.strip(): values for name, values in summary_data}
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("Name", "Type", "Params"):
            table.add_column(name.lower(), justify="right" if name == "Params" else "left")
        rows = zip(columns["Name"], columns["Type"], columns["Params"], strict=True)
        for row in rows:
            if row[2].strip() not in ("0", "--"):
                table.add_row(*row)
        get_console().print(table)
        frozen = total_parameters - trainable_parameters
        print(
            f"{short(trainable_parameters)} parameters learn"
            + (f", {short(frozen)} do not" if frozen else "")
            + f"; {model_size:.3g} MB"
        )


def quiet(callbacks: list[Callback], given: list[Callback]) -> list[Callback]:
    """Callbacks of a trainer with ours in the place of Lightning's own, where a config has no other."""
    made = []
    for one in callbacks:
        if one not in given and type(one) is RichProgressBar:
            one = Bar()
        elif one not in given and type(one) is RichModelSummary:
            one = Summary()
        made.append(one)
    return made


def quiet_warnings() -> None:
    """Leave out what Lightning says that does not hold here."""
    warnings.filterwarnings("ignore", message=".*treespec")
    # Our samplers resume, cover every example, and a resumed run keeps its own checkpoints.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
    warnings.filterwarnings("ignore", message=".*custom batch sampler")
    warnings.filterwarnings("ignore", message="The dirpath has changed")
    warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(worth_a_line)
    # Of each checkpoint it says that it is written whole.
    connector = "pytorch_lightning.trainer.connectors.checkpoint_connector"
    logging.getLogger(connector).setLevel(logging.WARNING)


def worth_a_line(record: logging.LogRecord) -> bool:
    """Keep a log record, unless it recommends a product, or says what is not there."""
    said = record.getMessage()
    return "Tip:" not in said and "available: False" not in said
