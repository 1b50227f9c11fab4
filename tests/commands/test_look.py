"""``family look``: a page and a figure, or one sentence."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tasks.cli import main
from tasks.data.shapes import draw, sample

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(sample(3, split="test"), 64).save("picture.png")
    return tmp_path


def test_a_page_and_a_figure(capsys):
    main(["look", str(RUNS / "translation"), "un cercle rouge", "--png", "map.png", "--layer", "1"])
    assert "The page is look.html." in capsys.readouterr().out
    assert "un cercle rouge" in Path("look.html").read_text("utf-8")
    assert Image.open("map.png").width > 100


def test_a_picture(capsys):
    main(["look", str(RUNS / "image_classification"), "picture.png", "--out", "vit.html"])
    assert "relevance" in Path("vit.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["translation_lstm", "un"], "nothing in a LSTMSeq2Seq attends"),
        (["translation", " "], "the text is empty"),
        (["translation", "un", "--question", "what?"], "leave --question out"),
        (["image_classification", "picture.png", "--question", "what?"], "leave --question out"),
        (["image_classification", "none.png"], "none.png is no file"),
        (["image_classification", "picture.png", "--out", "."], "--out . must be a file"),
        (["language_modeling", "red", "--head", "0"], "--head must be at least 1"),
        (["language_modeling", "red", "--head", "99"], "head 99 is not there"),
        (["language_modeling", "red", "--png", "a.xyz"], "a.xyz cannot be written"),
        (["language_modeling", "red", "--to", "de"], "takes no target"),
    ],
)
def test_one_sentence(given, said, capsys):
    with pytest.raises(SystemExit):
        main(["look", str(RUNS / given[0]), *given[1:]])
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_it_draws_in_a_browser(folder):
    main(["look", str(RUNS / "translation"), "un cercle rouge"])
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
    page = (folder / "look.html").as_uri()
    command = ["chromium", *flags, "--dump-dom", page]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert dom.count('class="word') > 5 and "attends to what is lit" in dom
