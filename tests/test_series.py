"""Numeric series, from fit to answers: classes, numbers, forecasts, and a model of one's own."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import family
import tasks
from tasks.cli import main
from tasks.data import series_shapes
from tasks.errors import UserError

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=200",
    "--model.model.init_args.config.dim=16",
    "--model.model.init_args.config.depth=1",
    "--model.model.init_args.config.heads=2",
    "--run_folder=run",
]
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def answers(capsys, *arguments):
    capsys.readouterr()
    main(["classify", "run", *arguments, "--format", "jsonl"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_parquet_at_the_command_line(folder, capsys, monkeypatch):
    """Read as the data module does; a page of one series of the same file; a sentence where no package reads it."""
    pa, datasets = pytest.importorskip("pyarrow"), pytest.importorskip("datasets")
    from pyarrow import parquet

    del datasets
    main(["fit", "--config=series/shapes", *SMALL])
    found = [series_shapes.sample(i, 5, "test") for i in range(3)]
    rows = [
        {"series": one.name, **dict(zip(one.channels, map(float, step), strict=True))}
        for one in found
        for step in one.values
    ]
    parquet.write_table(pa.Table.from_pylist(rows), "new.parquet")
    read = answers(capsys, "new.parquet")
    assert [{**row, "file": ""} for row in read] == [
        {**row, "file": ""} for row in answers(capsys, table(folder / "new.csv", found))
    ]
    main(["look", "run", "new.parquet", "--series", found[1].name, "--png", "look.png"])
    assert (
        read[1]["label"] in capsys.readouterr().out
        and found[1].name in Path("look.html").read_text()
    )
    for name, said in (("none", "new.parquet has no series"), (None, "pip install")):
        if name is None:
            monkeypatch.setitem(sys.modules, "datasets", None)
            Path("new.parquet").rename("other.parquet")
        given = ["--series", name] if name else []
        with pytest.raises(SystemExit):
            main(["look", "run", "new.parquet" if name else "other.parquet", *given])
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["classify", "run", "other.parquet"])
    assert "other.parquet needs datasets: pip install" in capsys.readouterr().err


def table(path, found):
    """A step a line, without labels."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["series", *found[0].channels])
        rows.writerows([one.name, *map(float, step)] for one in found for step in one.values)
    return str(path)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_classes_from_fit_to_classify(folder, capsys):
    main(["fit", "--config=series/shapes", *SMALL])
    metrics = json.loads((folder / "run/metrics-fit.json").read_text())["metrics"]
    assert {"val/accuracy", "val/f1_macro", "val/loss"} <= metrics.keys()
    found = [series_shapes.sample(i, 5, "test") for i in range(3)]
    rows = answers(capsys, table(folder / "new.csv", found))
    assert [row["series"] for row in rows] == [one.name for one in found]
    loaded = family.load("run")
    assert loaded.task == "Series" and loaded.labels == sorted(series_shapes.CLASSES)
    predicted = loaded.predict([one.values for one in found])
    by_channel = [dict(zip(one.channels, one.values.T.tolist(), strict=True)) for one in found]
    assert (
        loaded.predict(by_channel)
        == predicted
        == loaded.predict([o.values.tolist() for o in found])
    )
    for row, one in zip(rows, predicted, strict=True):
        assert row["label"] == one["label"] and row["score"] == pytest.approx(one["score"])
    main(["test", "run"])
    capsys.readouterr()
    main(["predict", "run", f"--data.root={folder / 'new.csv'}"])
    written = next(Path("runs").rglob("predictions.jsonl"), None) or next(
        folder.rglob("predictions.jsonl")
    )
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert [one["label"] for one in lines] == [one["label"] for one in predicted]
    for arguments, said in (
        (["new.txt"], "new.txt is no table of numeric series"),
        ([], "this model classifies numeric series: give tables of them"),
        (["gone.csv"], "gone.csv does not exist"),
    ):
        with pytest.raises(SystemExit):
            main(["classify", "run", *arguments])
        assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="series 1 has no channel 'second'"):
        loaded.predict([by_channel[0], {"first": [1.0]}])
    with pytest.raises(ValueError, match=r"series 0 is \(3, 1\), but must be \(steps, 2\)"):
        loaded.predict([np.zeros((3, 1))])
    family.save_pretrained(loaded.model, "kept")
    assert family.load("kept").predict(by_channel) == predicted


def test_forecasts_from_fit_to_the_steps_that_follow(folder, capsys):
    options = ["--data.horizon=3", "--data.window=12", "--data.season=6"]
    main(["fit", "--config=series/shapes", *SMALL, *options])
    metrics = json.loads((folder / "run/metrics-fit.json").read_text())["metrics"]
    assert {"val/mae", "val/rmse", "val/r2", "val/mae_naive", "val/rmse_naive"} <= metrics.keys()
    level = series_shapes.long_series(40)
    [row] = answers(capsys, table(folder / "new.csv", [level]))
    [found] = family.load("run").predict([level.values])
    assert row == {"file": str(folder / "new.csv"), "series": "level", **found}
    assert len(found["level"]) == 3 and all(10 < value < 30 for value in found["level"])
    # Only the last window is read.
    assert family.load("run").predict([level.values[-12:]]) == [found]


def test_errors_are_in_the_unit_of_the_data(folder):
    """Of a model that says the mean, and of one that says the truth."""
    data = tasks.SeriesData(target_columns=["period"], examples=300, batch_size=32)
    true = np.array([series_shapes.sample(i, 0, "val").numbers[0] for i in range(100)])
    mean = np.mean([series_shapes.sample(i).numbers[0] for i in range(300)])

    class Mean(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(num_classes))

        def forward(self, values, step_mask):
            return self.bias.expand(len(values), -1)

    task = tasks.Series(Mean)
    trainer = pl.Trainer(**QUIET)
    [found] = trainer.validate(task, datamodule=data, verbose=False)
    assert found["val/mae"] == pytest.approx(np.abs(true - mean).mean(), rel=1e-4)
    rmse = np.sqrt(np.mean((true - mean) ** 2))
    assert found["val/rmse"] == pytest.approx(rmse, rel=1e-4)
    assert found["val/r2"] == pytest.approx(1 - rmse**2 / true.var(), abs=1e-4)
    assert task.samples[0].startswith("val 0: {'period': ")
    task.model.problem_type = "regression"
    assert task.chance == 1.0


def test_a_naive_forecast_is_named_beside():
    data = tasks.SeriesData(horizon=5, window=12, season=6, examples=300, batch_size=32)
    task = tasks.Series(lambda n: Says("naive"), lr=1e-9)
    batch = next(iter(data.loader("val")))
    task.trainer = pl.Trainer(**QUIET)
    task.trainer.datamodule = data
    task.model = Says("naive")
    task.model.batch = batch
    task.log_mean = lambda *_: None
    logged = {}
    task.log = lambda name, value, **_: logged.update({name: value})
    task.evaluate(batch, "val")
    task.score("val")
    assert logged["val/mae"] == pytest.approx(logged["val/mae_naive"])
    assert logged["val/rmse"] == pytest.approx(logged["val/rmse_naive"])
    level = series_shapes.long_series(300).values[:, 0]
    steps = [int(step) for step in batch["step"]]
    errors = [abs(level[s + k] - level[s - 6 + k]) for s in steps for k in range(5)]
    assert logged["val/mae_naive"] == pytest.approx(np.mean(errors), rel=1e-4)


class Says(nn.Module):
    """Says what a field of its batch has."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self.field, self.batch = field, {}

    def forward(self, values, step_mask):
        return self.batch[self.field]


def test_a_model_and_tensors_of_ones_own_learn_without_our_data():
    torch.manual_seed(0)
    values = torch.randn(256, 9, 2)
    slope = (values[:, -1] - values[:, 0]).sum(-1)
    for labels, count in (((slope > 0).long(), 2), (slope, 1)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(18, count))
        task = tasks.Series(model, lr=3e-2, warmup_steps=0, schedule="constant")
        loader = DataLoader(TensorDataset(values, labels), batch_size=32)
        trainer = pl.Trainer(max_steps=80, **QUIET)
        trainer.fit(task, loader, loader)
        found = trainer.callback_metrics
        assert found["val/accuracy"] > 0.95 if count == 2 else found["val/r2"] > 0.95


def test_a_model_of_other_numbers_is_refused():
    task = tasks.Series(nn.Linear(1, 1))
    task.model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    batch = {"values": torch.zeros(4, 3, 2), "labels": torch.zeros(4, 2)}
    with pytest.raises(UserError, match=r"gives \(4, 3\) of 4 series.*\(4, 2\).*num_classes=2"):
        task.loss(batch)


def test_the_example_trains_through_its_class_path(folder, monkeypatch):
    examples = Path(__file__).parents[1] / "examples"
    monkeypatch.syspath_prepend(examples)
    main(["fit", "--config=series/shapes", f"--config={examples / 'time_series.yaml'}", *SMALL])
    model = family.load("run").model
    assert type(model).__name__ == "ConvolveThenAttend"
    values, mask = torch.randn(2, 9, 2), torch.ones(2, 9, dtype=torch.bool)
    mask[1, 5:] = False
    with torch.no_grad():
        short = model(values[1:, :5], mask[1:, :5])
        assert torch.allclose(model(values, mask)[1:], short, atol=1e-5)
