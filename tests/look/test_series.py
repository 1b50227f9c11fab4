"""What is shown of numeric series: the curves, and the steps that were read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import family
from family.inputs.series import SeriesPreprocess
from family.look import attention_maps, relevance, view_of
from family.look import view as module
from family.look.curves import HEIGHT, WIDTH, curves
from family.look.figure import save_figure
from family.look.page import page_of

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
CONFIG = family.TransformerConfig(dim=16, depth=2, heads=2, position="rotary")


def ready(classes=3, **fields):
    torch.manual_seed(0)
    known = {"channels": ("speed", "height"), "channel_mean": (1, 9), "channel_std": (2, 3)}
    preprocess = SeriesPreprocess(**{**known, **fields})
    model = family.SeriesTransformer(classes, CONFIG, channels=preprocess.width, patch_size=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.preprocess = preprocess
    if preprocess.targets:
        model.problem_type = "regression"
    return family.load(model, task="Series")


def series(steps):
    return np.random.default_rng(0).normal(size=(steps, 2)) * 3 + [1, 9]


def test_classes(tmp_path):
    one, given = ready(), series(10)
    view = view_of(one, series=given)
    side = view.sides[0]
    assert side.tokens == [0, 1, 2] and side.grid == (1, 3) and side.covers == (1, 1.2)
    assert side.named[0] == "patch 1 of the steps 1 to 4" and side.named[2].endswith("9 to 10")
    values = one.preprocess(given)[None]
    own = attention_maps(one.model, values)["transformer"].own
    torch.testing.assert_close(view.panels[0].maps[-1], own[-1][0])
    best = one.predict([given])[0]
    assert view.relevance[0]["class"] == best["label"]
    told = relevance(one.model, values)[0]
    torch.testing.assert_close(
        torch.tensor(view.relevance[0]["values"]), told / told.max(), atol=1e-3, rtol=0
    )
    assert "patch 1 of the steps" in page_of(view, "it")
    save_figure(view, tmp_path / "series.png")


def test_what_is_foretold_and_what_raises_it():
    """Of a longer series than is shown, its last steps by their own numbers; what was missing is not a curve."""
    targets = {"targets": ("height",), "target_mean": (9,), "target_std": (3,), "horizon": 5}
    one = ready(5, **targets, max_steps=8, fill=True)
    given = series(20)
    given[15, 0] = np.nan
    view = view_of(one, series=given)
    side = view.sides[0]
    assert side.named == ["patch 1 of the steps 13 to 16", "patch 2 of the steps 17 to 20"]
    assert side.covers == (1, 8 / 13)
    said = one.predict([given])[0]["height"]
    begin, end = view.answer[0].removeprefix("height ").split(" \N{HORIZONTAL ELLIPSIS} ")
    assert [float(begin), float(end)] == pytest.approx([said[0], said[-1]], rel=1e-3)
    names = [one["class"] for one in view.relevance]
    assert names == ["height, 1 step on", "height, 5 steps on"]
    values = one.preprocess(given)[None]

    class Last(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, values):
            return self.model(values)[:, 4:5]

    told = relevance(Last(one.model), values, target=0)[0]
    torch.testing.assert_close(
        torch.tensor(view.relevance[1]["values"]), told / told.max(), atol=1e-3, rtol=0
    )


def test_numbers_of_a_whole_series():
    targets = {"targets": ("mass", "age"), "target_mean": (9, 1), "target_std": (3, 1)}
    one, given = ready(2, **targets), series(8)
    view = view_of(one, series=given)
    said = one.predict([given])[0]
    found = {name: float(value) for name, value in map(str.split, view.answer)}
    assert found == pytest.approx(said, abs=1e-3)
    assert [told["class"] for told in view.relevance] == ["mass", "age"]


def test_curves():
    """Blue ink rises where the numbers do; what is foretold stands behind the last step."""
    ink = np.asarray(curves(["up"], [[0.0], [1.0], [2.0]], {"up": [2.0, 2.0, 2.0]}), int)
    assert ink.shape == (HEIGHT, WIDTH, 3)
    blue = (ink[..., 2] - ink[..., 0] > 100)[30:]
    heights = [np.nonzero(blue[:, x])[0] for x in (WIDTH // 12, WIDTH * 5 // 12)]
    assert heights[0].mean() > heights[1].mean() + 100
    behind = blue[:, WIDTH // 2 :].any(0)
    assert 0.3 < behind.mean() < 0.8  # dashes
    assert not (np.asarray(curves(["flat"], [[3.0]])) == 255).all()


def test_refusals(monkeypatch):
    one = ready()
    with pytest.raises(ValueError, match="give it a series"):
        view_of(one)
    with pytest.raises(ValueError, match="must be \\(steps, 2\\)"):
        view_of(one, series=[[1.0]])
    with pytest.raises(ValueError, match="reads no series"):
        view_of(family.load(RUNS / "language_modeling"), "a", series=series(4))
    monkeypatch.setattr(module, "MOST", 10)
    with pytest.raises(ValueError, match="of 3 tokens .* a shorter text or series"):
        view_of(one, series=series(10))
    one.model.embedding = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="has no patches of steps"):
        view_of(one, series=series(10))
