"""``family classify CLIP --labels`` and ``family embed CLIP --out vectors.npy``, of many pictures, a few at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import family
from family.inputs import pictures as reading
from tasks.cli import main

RUN = Path(__file__).parents[1] / "fixtures/runs/image_text"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "many").mkdir()
    for i in range(9):
        pixels = random.integers(0, 255, (20, 24 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"many/{i}.png")
    return tmp_path / "many"


def test_any_labels(pictures, capsys):
    call = ["classify", str(RUN), "many", "--labels", "red circle, blue star", "--format", "jsonl"]
    main([*call, "--batch_size=4"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == 9 and set(found[0]["probabilities"]) == {"red circle", "blue star"}
    assert all(abs(sum(one["probabilities"].values()) - 1) < 1e-5 for one in found)
    main([*call, "--batch_size=1"])
    alone = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one, other in zip(found, alone, strict=True):
        assert one["label"] == other["label"] and one["score"] == pytest.approx(
            other["score"], rel=1e-4
        )
    main([*call, "--template", "{}", "--template", "a {}"])
    assert json.loads(capsys.readouterr().out.splitlines()[0])["score"] != found[0]["score"]


def test_an_array_of_vectors(pictures, monkeypatch):
    most = []
    held = reading.read_image

    def counted(path, **options):
        most.append(path)
        return held(path, **options)

    monkeypatch.setattr("tasks.commands.pictures.read_image", counted)
    main(["embed", str(RUN), "many", "--out=made/vectors.npy", "--batch_size=2"])
    rows = np.load("made/vectors.npy", mmap_mode="r")
    paths = Path("made/vectors.txt").read_text().splitlines()
    wanted = family.load(RUN).embed(pictures=paths)
    assert len(most) == 9 and rows.dtype == np.float32
    np.testing.assert_allclose(rows, wanted.numpy(), rtol=1e-4, atol=1e-6)
    assert paths == [str(Path("many") / f"{i}.png") for i in range(9)]
    main(["embed", str(RUN), "many", "--out=made/vectors.npy"])  # again
    Path("notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main(["embed", str(RUN), "many", "--out=notes.npy"])
    assert Path("notes.txt").read_text() == "mine" and not Path("notes.npy").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["classify", str(RUN), "many"], "give --labels"),
        (["classify", str(RUN), "many", "--labels=a,a"], "'a' is given twice"),
        (["classify", str(RUN), "many", "--labels=a", "--template=x"], "needs one {}"),
        (["classify", "x", "many", "--template=x"], "--template is for --labels"),
        (["embed", str(RUN), "many", "--out=a.npy", "--format=csv"], "leave --format csv out"),
    ],
)
def test_one_sentence(call, said, pictures, capsys):
    with pytest.raises(SystemExit) as ended:
        main(call)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and said in error and len(error.splitlines()) == 1
