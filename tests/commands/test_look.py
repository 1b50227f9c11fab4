"""``family look``: a page and a figure, or one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

import family
from family.look import view_of
from tasks.cli import main
from tasks.data.shapes import draw, sample

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


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
        (["translation", "un", "--task", "draw"], "leave the task out"),
        (["translation", "un", "--series", "a"], "leave --series out"),
    ],
)
def test_one_sentence(given, said, capsys):
    with pytest.raises(SystemExit):
        main(["look", str(RUNS / given[0]), *given[1:]])
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-gpu"]
        found = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


@pytest.fixture
def page(browser, folder):
    """A page that is to fail nowhere."""
    found, errors = browser.new_page(), []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("console", lambda said: said.type == "error" and errors.append(said.text))
    yield found
    found.close()
    assert not errors


HEAT = (
    "one => [...one.querySelectorAll('.word')].map(word => word.style.getPropertyValue('--heat'))"
)


@pytest.mark.slow
def test_a_word_under_the_pointer_asks(page, folder):
    """Other words are lit, those that its row of the map says."""
    main(["look", str(RUNS / "translation"), "un cercle rouge"])
    view = view_of(family.load(RUNS / "translation"), "un cercle rouge")
    page.goto((folder / "look.html").as_uri())
    rows = view.panels[0].maps[-1].mean(0)
    seen = set()
    for i in (0, 2, 1):
        page.locator("#sides .side").nth(0).locator(".word").nth(i).hover()
        words = page.locator("#sides .side").nth(0).locator(".word")
        assert "query" in words.nth(i).get_attribute("class").split()
        assert page.locator("#sides .word.query").count() == 1
        assert view.sides[1].tokens[i] in page.text_content("#hint")
        heat = page.locator("#sides .side").nth(1).evaluate(HEAT)
        shares = [float(one.rstrip("%")) / 100 for one in heat]
        assert shares == pytest.approx((rows[i] / rows[i].max()).tolist(), abs=0.03)
        seen.add(tuple(heat))
    assert len(seen) == 3
    page.click("text=logit lens")
    assert page.locator("#lens td").count() > 5 and page.locator("#maps").is_hidden()


@pytest.mark.slow
def test_who_asks_stays_from_panel_to_panel(page, folder):
    """So that one word can be followed through the times of a drawing, or from what is read to what was written."""
    main(["look", str(RUNS / "translation"), "un cercle rouge"])
    view = view_of(family.load(RUNS / "translation"), "un cercle rouge")
    asking = [panel.queries for panel in view.panels]
    assert asking == [1, 0, 1]
    page.goto((folder / "look.html").as_uri())
    page.locator("#sides .side").nth(0).locator(".word").nth(0).hover()
    page.locator("#tabs button").nth(2).click()
    assert page.evaluate("state.query") == 0
    page.locator("#tabs button").nth(1).click()
    assert page.evaluate("state.query") == page.evaluate("firstQuery(shown())")


@pytest.mark.slow
def test_a_box_under_the_pointer_asks(page, folder):
    main(["look", str(RUNS / "detection"), "picture.png"])
    view = view_of(family.load(RUNS / "detection"), picture=Image.open("picture.png"))
    page.goto((folder / "look.html").as_uri())
    page.wait_for_function("pictures.size && [...pictures.values()].every(one => one.complete)")
    canvas = page.locator("#sides canvas")
    width, height = (canvas.bounding_box()[side] for side in ("width", "height"))
    asked = set()
    for found in view.boxes:
        left, top, right, bottom = found["box"]
        at = {"x": (left + right) / 2 * width, "y": (top + bottom) / 2 * height}
        canvas.hover(position=at)
        inside = [
            one["row"]
            for one in view.boxes
            if one["box"][0] <= at["x"] / width <= one["box"][2]
            and one["box"][1] <= at["y"] / height <= one["box"][3]
        ]
        query = page.evaluate("state.query")
        assert query in inside
        asked.add(query)
        words = page.locator("#sides .word")
        assert "query" in words.nth(query).get_attribute("class").split()
    assert asked
