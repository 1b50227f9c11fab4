"""The page, in headless Chromium: type, drop a picture, read the answer."""

from __future__ import annotations

import base64
import shutil

import pytest

from tasks.serve.app import make_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
DONE = "#answer[aria-busy=false] > *"
DROP = """([url, name]) => {
  const bytes = Uint8Array.from(atob(url.split(",")[1]), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector(".drop").dispatchEvent(event);
}"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here"),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-gpu"]
        found = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(models, help):
    with help.running(make_app(models)) as found:
        yield found


@pytest.fixture
def page(browser, address):
    found, errors = browser.new_page(), []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("console", lambda said: said.type == "error" and errors.append(said.text))

    def go(place):
        found.goto(f"{address}/#{place}")
        found.wait_for_selector("form button")

    found.go = go
    yield found
    found.close()
    assert not errors


def test_type_and_read(page, models, tmp_path):
    page.go("Translation/translate")
    page.fill("#text", "a star")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#attention .tokens span")
    wanted = models["Translation"].predict(["a star"])[0]
    assert page.text_content("#answer p.text") == (wanted or "(nothing)")
    source = page.locator("#attention .tokens").nth(1).locator("span")
    assert source.count() == len("a star") + 1
    page.locator("#attention .tokens").nth(0).locator("span").nth(1).hover()
    assert page.locator("#attention .chosen").count() == 1
    assert "rgba" in source.nth(0).get_attribute("style")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 5000


def test_drop_a_picture_and_see_boxes(page, help, models):
    page.go("Detection/detect")
    page.evaluate(DROP, [help.url_of(help.noise(0, (64, 64))), "noise.png"])
    page.wait_for_selector(".thumbs img")
    page.click("summary")
    page.fill("#threshold", "0.1")
    page.click("button[type=submit]")
    page.wait_for_selector(DONE)
    found = models["Detection"].predict([help.noise(0, (64, 64))], threshold=0.1)[0]
    assert found and page.locator(".legend span").count() == len(found)
    drawn = page.evaluate("document.querySelector('#answer canvas').toDataURL()")
    assert len(base64.b64decode(drawn.partition(",")[2])) > 1000
    assert found[0]["label"] in page.get_attribute("#answer canvas", "aria-label")


@pytest.mark.parametrize(
    ("task", "action", "question"),
    [
        ("ImageClassification", "classify", None),
        ("Detection", "detect", None),
        ("Captioning", "caption", None),
        ("VisionChat", "ask", "what?"),
    ],
)
def test_what_was_read_is_lit(page, help, task, action, question):
    """Another name under the pointer lights other cells."""
    page.go(f"{task}/{action}")
    side = 64 if task == "Detection" else 16
    page.evaluate(DROP, [help.url_of(help.noise(0, (side, side))), "noise.png"])
    page.wait_for_selector(".thumbs img")
    if question:
        page.fill("#question", question)
    page.click("button[type=submit]")
    page.wait_for_selector("#attention canvas[aria-label]")
    assert page.locator("#answer .error").count() == 0, page.text_content("#answer")
    names, drawn = page.locator("#attention .tokens span"), set()
    for i in {0, names.count() - 1}:
        names.nth(i).hover()
        assert page.locator("#attention .chosen").count() == 1
        drawn.add(page.evaluate("document.querySelector('#attention canvas').toDataURL()"))
    assert len(drawn) == min(2, names.count())


def test_a_conversation_grows(page):
    page.go("LanguageModeling/chat")
    page.click("summary")
    page.fill("#max_new_tokens", "12")
    for turn in range(2):
        page.fill("#said", "hello")
        page.press("#said", "Enter")
        page.wait_for_selector(DONE)
        assert page.locator(".turn.user").count() == turn + 1
        assert page.locator(".turn.assistant").count() == turn + 1
    page.click("text=New conversation")
    assert page.locator(".turn").count() == 0


@pytest.mark.parametrize(
    ("task", "action", "texts"),
    [
        ("TextClassification", "classify", {"text": "a star", "pair": "a red star"}),
        ("TextRegression", "classify", {"text": "a star", "pair": "a red star"}),
        ("Tagging", "tag", {"text": "a star"}),
        ("MaskedLanguageModeling", "fill", {"text": "a [MASK]"}),
        ("QuestionAnswering", "answer", {"question": "what?", "context": "a star"}),
        ("RewardModeling", "reward", {"prompt": "a", "answer": "b"}),
        ("LanguageModeling", "generate", {"prompt": "a star"}),
        ("SentenceEmbedding", "embed", {"text": "a\nb"}),
        ("SentenceEmbedding", "search", {"query": "a", "text": "a\nb"}),
        ("TextToImage", "draw", {"text": "a star"}),
        ("ImageClassification", "classify", {}),
        ("VideoClassification", "classify", {}),
        ("Segmentation", "segment", {}),
        ("Captioning", "caption", {}),
        ("ImageTokenizing", "reconstruct", {}),
        ("VisualQuestions", "ask", {"question": "what?"}),
        ("ImageText", "search", {"query": "a star"}),
        ("Series", "series", {"text": "time,height,speed\n9:00,10,1.5\n9:01,12,2"}),
        ("Series", "series", {"text": "1.5; 10\n2; 12"}),
        ("Series", "series", {"text": '{"speed": [1.5, 2], "height": [10, 12]}'}),
        ("Unified", "draw", {"text": "a star"}),
    ],
)
def test_every_form_is_answered(page, help, task, action, texts):
    page.go(f"{task}/{action}")
    for name, value in texts.items():
        page.fill(f"#{name}", value)
    if page.locator(".drop").count():
        for i in range(4 if task == "VideoClassification" else 1):
            page.evaluate(DROP, [help.url_of(help.noise(i)), f"{i}.png"])
            page.wait_for_selector(f".thumbs img:nth-child({i + 1})")
    page.click("button[type=submit]")
    page.wait_for_selector(DONE)
    assert page.locator("#answer .error").count() == 0, page.text_content("#answer")


@pytest.mark.parametrize(
    ("task", "action", "texts", "pictures"),
    [
        ("Series", "series", {"text": "1.5,10\n2,12\n3,1"}, 0),
        ("VideoClassification", "classify", {}, 4),
        ("ImageText", "search", {"query": "a star"}, 2),
        ("TextToImage", "draw", {"text": "a star"}, 0),
        ("Unified", "caption", {}, 1),
        ("Unified", "translate", {"text": "a red star"}, 0),
    ],
)
def test_light_beside_every_kind_of_answer(page, help, task, action, texts, pictures):
    page.go(f"{task}/{action}")
    for name, value in texts.items():
        page.fill(f"#{name}", value)
    for i in range(pictures):
        page.evaluate(DROP, [help.url_of(help.noise(i)), f"{i}.png"])
        page.wait_for_selector(f".thumbs img:nth-child({i + 1})")
    page.click("button[type=submit]")
    page.wait_for_selector(DONE)
    assert page.locator("#answer .error").count() == 0, page.text_content("#answer")
    if action == "translate":
        return (
            None
            if page.text_content("#answer") == "(nothing)"
            else page.wait_for_selector(".tokens")
        )
    drawn = "document.querySelector('#attention canvas').toDataURL()"
    page.wait_for_selector("#attention canvas[aria-label]")
    if action == "search":
        before = page.evaluate(drawn)
        page.locator("#answer figure").nth(1).click()
        page.wait_for_function(f"before => {drawn} !== before", arg=before)


def test_mistakes_are_said(page):
    page.go("Tagging/tag")
    page.click("button[type=submit]")
    assert page.text_content("#answer .error") == "Write something first."
    page.go("Detection/detect")
    page.click("button[type=submit]")
    assert page.text_content("#answer .error") == "Drop a picture first."
    for text, said in {
        "1,x": "Line 1 has x, which is no number.",
        "[1": "This begins as JSON, but is none that can be read.",
        "id,speed,height\na,1,2\nb,1,2": "The table has 2 series: give the lines of one.",
    }.items():
        page.go("Series/series")
        page.fill("#text", text)
        page.click("button[type=submit]")
        page.wait_for_selector("#answer .error")
        assert page.text_content("#answer .error") == said
