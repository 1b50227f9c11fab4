"""Numeric series as tables have them: layouts, splits by series and by time, gaps, and what is refused."""

from __future__ import annotations

import json
import warnings
from datetime import date, timedelta

import numpy as np
import pytest
import torch

import tasks
from family.inputs.series import SeriesPreprocess
from tasks.data import series_shapes
from tasks.data.series_files import Columns, read_series
from tasks.errors import UserError


def write(path, *rows):
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def long_table(path, names="abcdefghij", steps=4):
    """A series a letter, of unequal length; the second channel is ten times the first."""
    rows = ["series,time,x,y,label"]
    for i, name in enumerate(names):
        for t in range(steps + i % 3):
            rows.append(f"{name},{t},{i + t / 8},{10 * (i + t / 8)},{'odd' if i % 2 else 'even'}")
    return write(path, *rows)


def batches(data, split):
    return list(data.loader(split))


def test_a_step_a_line_and_a_series_a_line_are_the_same(tmp_path):
    rows = [([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], "u"), ([7.0, 8.0], [9.0, 0.5], "v")]
    lines = ["id,time,x,y,class"]
    for i, (x, y, label) in enumerate(rows):
        lines += [f"s{i},{t},{a},{b},{label}" for t, (a, b) in enumerate(zip(x, y, strict=True))]
    (tmp_path / "long").mkdir()
    long = write(
        tmp_path / "long/train.csv", lines[0], *reversed(lines[1:])
    )  # times put it in order
    lists = tmp_path / "train.jsonl"
    lists.write_text(
        "".join(
            json.dumps({"id": f"s{i}", "x": x, "y": y, "class": c}) + "\n"
            for i, (x, y, c) in enumerate(rows)
        )
    )
    wide = write(
        tmp_path / "wide.csv",
        "class,x_0,x_1,x_2,y_0,y_1,y_2,id",
        "u,1,2,3,4,5,6,s0",
        "v,7,8,,9,.5,,s1",
    )
    found = [sorted(read_series(file, Columns())) for file in (long, lists, wide)]
    for some in found:
        assert [(one.name, one.label, one.channels) for one in some] == [
            ("s0", "u", ("x", "y")),
            ("s1", "v", ("x", "y")),
        ]
        for one, (x, y, _) in zip(some, rows, strict=True):
            assert np.array_equal(one.values, np.stack([x, y], 1))
    bare = write(tmp_path / "bare.csv", "0,1,2,label", "1,2,3,u", "1,2,,v")
    assert [len(one.values) for one in read_series(bare, Columns())] == [3, 2]


def test_dates_put_steps_in_order(tmp_path):
    file = write(
        tmp_path / "a.csv", "series,date,x,label", "a,2024-02-01,2,u", "a,2024-01-31T12:00,1,u"
    )
    assert read_series(file, Columns())[0].values[:, 0].tolist() == [1, 2]


def test_parquet_is_read(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    columns = {"x": [[1.0, 2.0], [3.0]], "label": ["u", "v"]}
    (tmp_path / "data").mkdir()
    for split in ("train", "val"):
        pq.write_table(pa.table(columns), tmp_path / f"data/{split}-0.parquet")
    data = tasks.SeriesData("data")
    assert data.model_arguments == {"num_classes": 2, "channels": 1}
    assert batches(data, "val")[0]["step_mask"].tolist() == [[True, True], [True, False]]


def test_numbers_of_training_scale_all_splits(tmp_path):
    shares = {"val_fraction": 0.2, "test_fraction": 0.2}
    data = tasks.SeriesData(str(long_table(tmp_path / "all.csv").parent), batch_size=3, **shares)
    data.setup()
    names = [
        n for split in ("train", "val", "test") for b in batches(data, split) for n in b["series"]
    ]
    assert sorted(names) == list("abcdefghij")
    train = torch.cat([b["values"][b["step_mask"]] for b in data.loader("train")])
    used = np.concatenate([s.values for s in data.spans("train")])
    assert np.allclose(data.preprocess.channel_mean, used.mean(0))
    assert train[:, 0].allclose(train[:, 1], atol=1e-6)
    for batch in batches(data, "val"):
        assert (batch["values"][~batch["step_mask"]] == 0).all()
        for name, row, mask in zip(
            batch["series"], batch["values"], batch["step_mask"], strict=True
        ):
            own = next(s for s in data.spans("val") if s.series.name == name).values
            assert torch.equal(row[mask], data.preprocess(own))
    other = tasks.SeriesData(str(tmp_path))
    other.use_assets(json.loads(json.dumps(data.assets())))
    assert other.preprocess == data.preprocess and other.classes() == ["even", "odd"]
    assert data.class_counts() == [3, 3]


def test_numbers_are_learnt_at_one_scale_and_said_in_their_own(tmp_path):
    rows = ["series,x,mass,height"]
    rows += [f"{i},{t},{1000 + i},{i / 100}" for i in range(30) for t in range(3)]
    data = tasks.SeriesData(
        str(write(tmp_path / "a.csv", *rows)), target_columns=["mass", "height"]
    )
    data.setup()
    labels = torch.cat([batch["labels"] for batch in data.loader("val")])
    assert labels.shape == (3, 2) and labels[:, 0].allclose(labels[:, 1], atol=1e-4)
    said = data.preprocess.said(labels)
    for span, one in zip(data.spans("val"), said, strict=True):
        assert one == {
            "mass": pytest.approx(span.series.numbers[0], rel=1e-6),
            "height": pytest.approx(span.series.numbers[1], abs=1e-6),
        }
    assert data.model_arguments == {"num_classes": 2, "channels": 1}


@pytest.mark.parametrize("season", [1, 4])
def test_windows_never_reach_from_training_into_what_is_held_out(season):
    data = tasks.SeriesData(horizon=6, window=10, season=season, examples=200, batch_size=512)
    data.setup()
    spans = {split: data.spans(split)[0] for split in ("train", "val", "test")}
    assert [(s.first, s.last) for s in spans.values()] == [(0, 160), (160, 180), (180, 200)]
    level = series_shapes.long_series(200).values[:, 0]
    mean, std = level[:160].mean(), level[:160].std()
    assert data.preprocess.channel_mean == (pytest.approx(mean),)
    for split, span in spans.items():
        [batch] = batches(data, split) if split != "train" else [next(iter(data.loader("train")))]
        steps = [int(step) for step in batch["step"]]
        assert min(steps) == max(span.first, 10) and max(steps) == span.last - 6
        for i, step in enumerate(steps):
            seen = (level[step - 10 : step] - mean) / std
            assert batch["values"][i, :, 0].numpy() == pytest.approx(seen, abs=1e-5)
            assert batch["labels"][i].numpy() == pytest.approx(
                (level[step : step + 6] - mean) / std, abs=1e-5
            )
            back = [step - season + k % season for k in range(6)]
            assert batch["naive"][i].numpy() == pytest.approx((level[back] - mean) / std, abs=1e-5)


def test_several_channels_foretold_stand_one_after_the_other(tmp_path):
    start = date(2024, 1, 1)
    rows = [f"{start + timedelta(t)},{t},{-t}" for t in range(60)]
    file = write(tmp_path / "a.csv", "date,x,y", *rows)
    data = tasks.SeriesData(str(file), horizon=2, window=3, batch_size=99)
    data.setup()
    batch = batches(data, "test")[0]
    assert data.model_arguments == {"num_classes": 4, "channels": 2}
    said = data.preprocess.said(batch["labels"])[0]
    assert said == {"x": [54, 55], "y": [-54, -55]} and batch["step"][0] == "2024-02-24"
    alone = tasks.SeriesData(str(file), horizon=2, window=3, target_columns=["y"])
    assert alone.model_arguments == {"num_classes": 2, "channels": 2}


def test_gaps_are_filled_and_marked_or_refused(tmp_path):
    file = write(
        tmp_path / "train.csv", "series,x,label", "a,,u", "a,1,u", "a,NaN,u", "b,3,v", "b,5,v"
    )
    write(tmp_path / "val.csv", "series,x,label", "c,3,u")
    with pytest.raises(UserError, match=r"train.csv line 2 has no x: data.missing=fill takes"):
        tasks.SeriesData(str(tmp_path)).setup()
    data = tasks.SeriesData(str(tmp_path), missing="fill")
    data.setup()
    assert data.model_arguments["channels"] == 2
    batch = next(iter(data.loader("train")))
    seen = batch["values"][batch["series"].index("a")]
    one = (1 - 3) / np.std([1, 3, 5])
    assert seen.numpy() == pytest.approx(np.array([[0, 1], [one, 0], [one, 1]]))
    with pytest.raises(ValueError, match="no number at step 1 of 'x'"):
        SeriesPreprocess(("x",), (0.0,), (1.0,))([[1.0], [np.nan]])
    assert file.exists()


def test_the_last_steps_are_shown(tmp_path):
    data = tasks.SeriesData(examples=20, max_steps=7)
    data.setup()
    shown = next(iter(data.loader("val")))
    assert shown["values"].shape[1] == 7
    last = series_shapes.sample(0, 0, "val").values[-7:]
    assert torch.equal(
        shown["values"][0], SeriesPreprocess(**{**vars(data.preprocess), "max_steps": None})(last)
    )


HEAD = "series,time,x,label"


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (["series,x", "a,1"], {}, "train.csv has the columns series, x: data.label_column must name"),
        ([HEAD, "a,0,1,u"], {"channels": ["z"]}, "no column of the channel 'z', only: series, time, x, label"),
        ([HEAD, "a,0,much,u"], {}, "train.csv line 2 has x='much', which is no number below"),
        ([HEAD, "a,0,inf,u"], {}, "line 2 has x='inf', which is no number below"),
        ([HEAD, "a,0,1,u", "a,1,1,v"], {}, "the series 'a' has label='u' in line 2 but 'v' in line 3"),
        ([HEAD, "a,0,1,u", "a,0,1,u"], {}, "the series 'a' has two steps of one time, in lines 2 and 3"),
        ([HEAD, "a,soon,1,u"], {}, "time='soon', which is neither a number nor a date"),
        ([HEAD, ",0,1,u"], {}, "line 2 has an empty series"),
        ([HEAD, "a,0,1,"], {}, "line 2 has an empty label"),
        ([HEAD, "a,0,1,u", "b,0,1,u"], {}, "all series have the label 'u'"),
        ([HEAD, "a,0,1,u"], {"target_columns": ["label"]}, "has the label 'u', which is no number"),
        ([HEAD, "a,0,1,u"], {"target_columns": ["mass"]}, "no column 'mass' for data.target_columns"),
        ([HEAD, "a,0,1,u"], {"time_column": "tme"}, "no column 'tme' for data.time_column.* Did you mean 'time'"),
        (["x_0,x_1,label", "1,2,u", ",,v"], {}, "train.csv line 3 is a series without a step"),
        (["x_0,x_1,y_0,label", "1,2,3,u"], {}, "line 2 has channels of unequal length: x 2, y 1 steps"),
        (["x,y", "1,2"], {"label_column": "y"}, "a step a line needs data.series_column"),
        (["time,x", "0,1"], {"horizon": 2}, "no window of data.window=48 steps and the next data.horizon=2"),
        (["time,x", "0,1", "1,2"], {"horizon": 1, "window": 1, "target_columns": ["z"]}, "names 'z', which is none of the channels: x"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(tmp_path, rows, options, said):
    write(tmp_path / "train.csv", *rows)
    write(tmp_path / "val.csv", *rows)
    with pytest.raises(UserError, match=said), warnings.catch_warnings():
        warnings.simplefilter("error")
        tasks.SeriesData(str(tmp_path), **options).setup()


def test_another_split_must_be_alike(tmp_path):
    write(tmp_path / "train.csv", HEAD, "a,0,1,good", "b,0,1,bad")
    write(tmp_path / "val.csv", HEAD, "c,0,1,god")
    with pytest.raises(UserError, match=r"val.csv line 2 has the class 'god'.*Did you mean 'good'"):
        tasks.SeriesData(str(tmp_path)).setup()
    write(tmp_path / "val.csv", "series,time,y,label", "c,0,1,good")
    with pytest.raises(UserError, match=r"val.csv has no column of the channel 'x'"):
        tasks.SeriesData(str(tmp_path)).setup()
    with pytest.raises(UserError, match="has no test split, such as test.tsv"):
        tasks.SeriesData(str(tmp_path)).loader("test")
    with pytest.raises(UserError, match="data.missing='drop' is unknown"):
        tasks.SeriesData(missing="drop")
    with pytest.raises(UserError, match="data.season=60 is longer than data.window=48"):
        tasks.SeriesData(horizon=2, season=60)


def test_the_built_in_waves_need_both_channels():
    found = [series_shapes.sample(i, 3) for i in range(60)]
    assert {one.label for one in found} == {*series_shapes.CLASSES}
    again = series_shapes.sample(7, 3)
    assert np.array_equal(again.values, found[7].values) and again.label == found[7].label
    for one in found:
        if not one.label.startswith("sine"):
            continue
        first, second = one.values.T
        quarter = round(one.numbers[0] / 4)
        ahead = np.corrcoef(second[:-quarter], first[quarter:])[0, 1]
        assert (ahead > 0) == one.label.endswith("second")
