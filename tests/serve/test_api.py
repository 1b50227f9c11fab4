"""The JSON API: each task answers as the library does, and all that is wrong is one sentence."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from family import Sampling, SeriesTransformer, TransformerConfig, load, record_attention
from family.inputs.series import SeriesPreprocess
from family.look import view_of
from tasks.serve.app import make_app
from tasks.serve.limits import Limits
from tasks.serve.served import ACTIONS, SEEN, WORDS, named

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
TEXTS = ["a red", "star"]


def close(found, wanted):
    """Equal, numbers but for what another batch changes."""
    if isinstance(wanted, dict):
        assert found.keys() >= wanted.keys()
        for name in wanted:
            close(found[name], wanted[name])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            close(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=1e-4)
    else:
        assert found == wanted


@pytest.fixture
def asked(client, models):
    def ask(task, action, **body):
        answer = client.post(f"/api/{action}", json={"model": task, **body})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == task
        return answer.json().get("answers", answer.json())

    return ask


def test_all_that_is_served_is_listed(client, models):
    found = client.get("/api/models").json()["models"]
    assert [one["name"] for one in found] == list(ACTIONS)
    by_task = {one["task"]: one for one in found}
    assert by_task["LanguageModeling"]["actions"] == ["chat", "generate"]
    assert by_task["TextClassification"]["reads"] == ["texts", "pairs"]
    assert by_task["Unified"]["actions"][0] == "caption"
    assert by_task["Translation"]["attention"] and not by_task["Detection"]["attention"]


@pytest.mark.parametrize(
    ("task", "action", "body", "given"),
    [
        ("Translation", "translate", {"texts": TEXTS, "beams": 2}, [[TEXTS], {"beams": 2}]),
        ("TextToText", "translate", {"texts": TEXTS}, [[TEXTS], {}]),
        ("Unified", "translate", {"texts": TEXTS}, [[], {"texts": TEXTS, "task": "translate"}]),
        (
            "MaskedLanguageModeling",
            "fill",
            {"texts": ["a [MASK]"], "top": 2},
            [[["a [MASK]"]], {"top": 2}],
        ),
        ("TextClassification", "classify", {"texts": TEXTS}, [[TEXTS], {}]),
        (
            "TextClassification",
            "classify",
            {"texts": TEXTS, "pairs": TEXTS},
            [[TEXTS], {"pairs": TEXTS}],
        ),
        ("TextRegression", "classify", {"texts": TEXTS}, [[TEXTS], {}]),
        ("Tagging", "tag", {"texts": TEXTS}, [[TEXTS], {}]),
        (
            "QuestionAnswering",
            "answer",
            {"questions": TEXTS, "contexts": TEXTS},
            [[TEXTS, TEXTS], {}],
        ),
        ("RewardModeling", "reward", {"prompts": TEXTS, "answers": TEXTS}, [[TEXTS, TEXTS], {}]),
    ],
)
def test_texts(asked, models, task, action, body, given):
    close(asked(task, action, **body), models[task].predict(*given[0], **given[1]))


@pytest.mark.parametrize(
    ("task", "action", "options"),
    [
        ("ImageClassification", "classify", {}),
        ("ImageRegression", "classify", {}),
        ("Detection", "detect", {"threshold": 0.1}),
        ("Captioning", "caption", {}),
        ("VisualQuestions", "ask", {"questions": TEXTS}),
        ("VisionChat", "ask", {"questions": TEXTS}),
        ("Unified", "detect", {}),
    ],
)
def test_pictures(asked, models, help, task, action, options):
    pictures = [help.noise(0), help.noise(1, (30, 30))]
    found = asked(task, action, pictures=[help.url_of(one) for one in pictures], **options)
    if task == "Unified":
        wanted = models[task].predict(pictures=pictures, task=action)
    else:
        wanted = models[task].predict(pictures, **options)
    if task == "VisionChat":
        wanted = [{"answer": one} for one in wanted]
    close(found, wanted)
    assert task == "Unified" or any(found)


def test_clips(asked, models, help):
    clip = [help.noise(i) for i in range(4)]
    found = asked("VideoClassification", "classify", clips=[[help.url_of(one) for one in clip]])
    close(found, models["VideoClassification"].predict([clip]))


def picture_of(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_pixels(asked, models, help):
    picture = help.noise(0)
    [found] = asked("Segmentation", "segment", pictures=[help.url_of(picture)])
    wanted = models["Segmentation"].predict([picture])[0].numpy()
    assert (np.asarray(picture_of(found["mask"])) == wanted).all()
    assert picture_of(found["overlay"]).size == picture.size
    assert sum(one["share"] for one in found["classes"]) == pytest.approx(1)
    assert found["classes"][0]["label"] == str(np.bincount(wanted.flatten()).argmax())


def test_pictures_that_are_made(asked, models, help):
    [two] = asked("TextToImage", "draw", texts=["a star"], num=2, seed=3)
    wanted = models["TextToImage"].predict(["a star"], num=2, seed=3)[0]
    assert [np.asarray(picture_of(one)).tolist() for one in two] == [
        np.asarray(one).tolist() for one in wanted
    ]
    assert [len(some) for some in asked("Unified", "draw", texts=["a star"] * 2, num=2)] == [2, 2]
    [[made]] = asked("ImageTokenizing", "reconstruct", pictures=[help.url_of(help.noise(0))])
    assert picture_of(made).size == (16, 16)


def test_vectors_and_what_is_near(asked, models, help):
    close(
        asked("SentenceEmbedding", "embed", texts=TEXTS),
        models["SentenceEmbedding"].embed(TEXTS).tolist(),
    )
    pictures = [help.noise(i) for i in range(3)]
    urls = [help.url_of(one) for one in pictures]
    loaded = models["ImageText"]
    close(asked("ImageText", "embed", pictures=urls), loaded.embed(pictures=pictures).tolist())
    found = asked("ImageText", "search", query="a star", pictures=urls)
    near = loaded.predict(pictures, ["a star"])[:, 0]
    assert [one["index"] for one in found] == near.argsort(descending=True).tolist()
    close([one["similarity"] for one in found], near.sort(descending=True).values.tolist())
    found = asked("SentenceEmbedding", "search", query=TEXTS[1], texts=TEXTS)
    assert found[0]["index"] == 1 and found[0]["similarity"] == pytest.approx(1)


def events(answer):
    parts = answer.text.split("\n\n")
    return [json.loads(part.removeprefix("data: ")) for part in parts if part]


def test_texts_that_grow(client, models):
    greedy = {"prompt": "a red", "temperature": 0, "max_new_tokens": 9}
    wanted = models["LanguageModeling"].predict(["a red"], max_new_tokens=9, sampling=Sampling())[0]
    whole = client.post("/api/generate", json=greedy).json()
    assert whole["text"] == wanted and whole["usage"]["prompt_tokens"] == 5
    told = events(client.post("/api/generate", json={**greedy, "stream": True}))
    assert "".join(one.get("text", "") for one in told) == wanted
    assert told[-1] == {"done": True, **{k: whole[k] for k in ("finish_reason", "usage")}}
    assert len(told) > 3  # piece by piece
    drawn = [
        client.post("/api/generate", json={**greedy, "temperature": 2, "seed": seed}).json()["text"]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    for small in ({"temperature": 1e-300}, {"temperature": 1, "top_p": 1e-300}):
        assert client.post("/api/generate", json={**greedy, **small}).json()["text"] == wanted


def test_a_conversation(client, models):
    messages = [{"role": "user", "content": "hello"}]
    body = {"messages": messages, "temperature": 0, "max_new_tokens": 8}
    model = models["LanguageModeling"].model
    ids = torch.tensor([model.tokenizer.chat_ids(messages)])
    stops = model.tokenizer.stop_ids()
    wanted = model.generate(ids, max_new_tokens=8, stop_ids=stops, sampling=Sampling())[0].tolist()
    found = client.post("/api/chat", json=body).json()
    assert found["text"] == model.tokenizer.decode(wanted)
    assert found["usage"] == {"prompt_tokens": ids.shape[1], "completion_tokens": len(wanted)}
    assert found["finish_reason"] == ("length" if len(wanted) == 8 else "stop")
    told = events(client.post("/api/chat", json={**body, "stream": True}))
    assert "".join(one.get("text", "") for one in told) == found["text"]


def test_attention_of_a_translation_is_that_of_decoding(client, models):
    loaded = models["Translation"]
    tokenizer, model = loaded.tokenizer, loaded.model
    answer = "two red"
    body = {"model": "Translation", "text": TEXTS[0], "other": answer}
    found = client.post("/api/attention", json=body).json()
    target = tokenizer.target.encode(answer)
    assert len(found["rows"]) == len(target) + 1 and "".join(found["columns"][:-1]) == TEXTS[0]
    source = torch.tensor([[*tokenizer.encode(TEXTS[0]), tokenizer.eos_id]])
    with record_attention(model) as maps, torch.no_grad():
        model(source, torch.tensor([[model.bos_id, *target]]))
    crossing = [name for name, one in model.named_modules() if getattr(one, "cross", False)]
    close(found["weights"], maps[crossing[-1]][0][0].mean(0).tolist())


@pytest.mark.parametrize(
    "task",
    [
        "TextClassification",
        "Tagging",
        "MaskedLanguageModeling",
        "LanguageModeling",
        "SentenceEmbedding",
    ],
)
def test_attention_of_a_text(client, task):
    text = "a [MASK] star" if task.startswith("Masked") else "a red star"
    found = client.post("/api/attention", json={"model": task, "text": text}).json()
    assert len(found["weights"]) == len(found["rows"]) and found["rows"] == found["columns"]
    for row in found["weights"]:
        assert sum(row) == pytest.approx(1, abs=0.01)


# --- What an answer about a picture was read from ---


def seen_as(task, action, help):
    """What is asked of the API, and of the view."""
    if task == "Series":
        series = [[1.5, 10], [2, 12], [None, 9]][:2] * 3
        return {"series": series}, {"series": series}
    if action == "draw":
        return {"text": "a star", "seed": 4}, {"text": "a star", "seed": 4}
    if task == "VideoClassification":
        clip = [help.noise(i) for i in range(4)]
        return {"clip": [help.url_of(one) for one in clip]}, {"clip": clip}
    text = {"text": "what"} if action in ("ask", "search") else {}
    picture = help.noise(5)
    return {"picture": help.url_of(picture), **text}, {"picture": picture, **text}


@pytest.mark.parametrize(
    ("task", "action"), [(task, action) for task in SEEN for action in SEEN[task]]
)
def test_what_was_read_of_a_picture(client, models, help, task, action):
    body, given = seen_as(task, action, help)
    if task == "Unified":
        given["task"] = WORDS.get(action, action)
    answer = client.post("/api/seen", json={"model": task, "action": action, **body})
    assert answer.status_code == 200, answer.text
    found, view = answer.json(), view_of(models[task], **given)
    if action == "draw":
        return close_to_words(found, view)
    panel = view.panels[0]
    keys, queries = view.sides[panel.keys], view.sides[panel.queries]
    cells = [i for i, token in enumerate(keys.tokens) if isinstance(token, int)]
    assert found["grid"] == list(keys.grid) and found["picture"].startswith("data:image/png")
    if view.relevance:
        told = [one for one in view.relevance if view.sides[one.get("side", 0)] is keys]
        assert found["rows"] == [one["class"] for one in told]
        wanted = [[one["values"][i] for i in cells] for one in told]
    else:
        assert found["rows"] == queries.tokens
        wanted = panel.maps[-1].mean(0)[:, cells].tolist()
    assert found["rows"] and len(found["weights"][0]) == keys.grid[0] * keys.grid[1]
    close([sorted(row) for row in found["weights"]], [sorted(row) for row in wanted])


def close_to_words(found, view):
    """Row i is how much each square read word i."""
    read = view.sides[1].tokens
    assert found["rows"] == [one for one in read if isinstance(one, str)]
    close(found["weights"], view.panels[0].maps[-1].mean(0)[:, : len(found["rows"])].T.tolist())


@pytest.mark.parametrize("task", ["TextToImage", "Unified"])
def test_the_light_lies_over_the_picture_that_was_drawn(client, task):
    body = {"model": task, "seed": 2}
    [[drawn]] = client.post("/api/draw", json={**body, "texts": ["a star"]}).json()["answers"]
    seen = client.post("/api/seen", json={**body, "text": "a star", "action": "draw"}).json()
    assert picture_of(drawn).tobytes() == picture_of(seen["picture"]).tobytes()


def test_attention_of_a_translation_by_a_model_for_everything(client, models):
    body = {"model": "Unified", "text": "a red star"}
    found = client.post("/api/attention", json=body).json()
    view = view_of(models["Unified"], "a red star", task="translate")
    assert found["rows"] == view.sides[1].tokens and found["columns"] == view.sides[0].tokens
    close(found["weights"], view.panels[0].maps[-1].mean(0).tolist())


def test_series(asked, models):
    """Written in three ways; several together, of unequal length."""
    loaded, rows = models["Series"], [[1.5, 10.0], [2.0, 12.0], [0.5, 9.0]]
    named = {"height": [10, 12, 9], "speed": [1.5, 2, 0.5]}
    found = asked("Series", "series", series=[rows, named, rows[:1]])
    close(found, loaded.predict([rows, rows, rows[:1]]))
    described = asked("Series", "series", series=[rows])[0]
    assert described["numbers"] is None and len(described["probabilities"]) == 3


def test_forecasts():
    torch.manual_seed(0)
    config = TransformerConfig(dim=16, depth=1, heads=2)
    model = SeriesTransformer(4, config)
    model.preprocess = SeriesPreprocess(("level",), (20.0,), (5.0,), ("level",), (20.0,), (5.0,), 4)
    model.problem_type = "regression"
    loaded = load(model, task="Series")
    with TestClient(make_app({"next": loaded}), base_url="http://localhost:8000") as client:
        answer = client.post("/api/series", json={"series": [[20, 21.5, 19]]})
        seen = client.post("/api/seen", json={"series": [20, 21.5, 19]}).json()
    close(answer.json()["answers"], [{"numbers": loaded.predict([[20, 21.5, 19]])[0]}])
    assert seen["rows"] == ["level, 1 step on", "level, 4 steps on"] and seen["grid"] == [1, 3]
    assert seen["covers"] == [1, pytest.approx(3 / 7)]


def test_objects_beside_the_classes_of_pixels(client, models, help):
    """Of a model that finds them; a mask and the box around it, in the picture as it was sent."""
    loaded, picture = models["Segmentation"], help.noise(0)
    body = {"pictures": [help.url_of(picture)], "instances": True, "threshold": 0.1}
    listed = client.get("/api/models").json()["models"]
    assert {one["task"] for one in listed if one["instances"]} == {"Segmentation"}
    sent = {"model": "Segmentation", **body}
    [found] = client.post("/api/segment", json=sent).json()["answers"]
    [plain] = client.post("/api/segment", json={"pictures": body["pictures"]}).json()["answers"]
    wrong = client.post("/api/segment", json={**body, "instances": False})
    assert plain["objects"] is None and plain["mask"] == found["mask"]
    assert wrong.status_code == 422 and "ask for instances" in wrong.json()["error"]
    without = make_app({"classes": load(RUNS / "segmentation")})
    with TestClient(without, base_url="http://localhost:8000") as other:
        wrong = other.post("/api/segment", json=body)
    assert wrong.status_code == 422 and "it finds no instances" in wrong.json()["error"]
    [wanted] = loaded.predict([picture], instances=True, threshold=0.1)
    assert wanted and len(found["objects"]) == len(wanted)
    for one, other in zip(found["objects"], wanted, strict=True):
        close(one, {name: other[name] for name in ("label", "category_id", "score")})
        mask = Image.open(io.BytesIO(base64.b64decode(one["mask"].partition(",")[2])))
        assert mask.size == picture.size and mask.getbbox() == tuple(one["box"])
        assert (np.asarray(mask) == 255 * other["mask"].numpy()).all()


# --- What is wrong ---


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("tag", {}, 422, "texts: field required."),
        ("tag", {"texts": []}, 422, "texts: "),
        ("tag", {"texts": "a red star"}, 422, "texts: input should be a valid list."),
        ("tag", {"texts": [" "]}, 422, "texts.0: is empty: write something."),
        ("tag", {"texts": ["a"], "colour": 1}, 422, "colour: extra inputs are not permitted."),
        ("tag", {"texts": ["a" * 10_001]}, 422, "10000 characters"),
        ("tag", {"texts": ["a"] * 65}, 422, "64 items"),
        (
            "tag",
            {"texts": ["a"], "model": "Detection"},
            404,
            "is for Detection and cannot tag, but these can: Tagging",
        ),
        ("tag", {"texts": ["a"], "model": "x"}, 404, "no model of that name"),
        ("tag", {"texts": ["\ud800"]}, 422, "texts.0: "),
        ("fill", {"texts": ["a star"]}, 422, "has no gap: write <mask>"),
        ("translate", {"texts": ["a"], "target": "de"}, 422, "translates one way"),
        ("translate", {"texts": ["a"], "beams": 99}, 422, "beams: "),
        ("classify", {}, 422, "give texts or pictures or clips, one of them."),
        (
            "classify",
            {"model": "TextClassification", "pictures": ["x"]},
            422,
            "reads texts, not pictures",
        ),
        (
            "classify",
            {"model": "TextClassification", "texts": ["a"], "pairs": ["b", "c"]},
            422,
            "1 texts but 2 pairs",
        ),
        ("detect", {"pictures": ["???"]}, 422, "pictures[0] must be a picture as a data URL"),
        (
            "detect",
            {"pictures": ["aGVsbG8="]},
            422,
            "pictures[0] is not a picture that can be read.",
        ),
        ("detect", {"pictures": ["data:text/plain,hello"]}, 422, "not of base64"),
        (
            "generate",
            {"prompt": "a", "max_new_tokens": 5000},
            422,
            "more than the 1024 that this server makes",
        ),
        ("generate", {"prompt": "a" * 200}, 422, "leaves no room for an answer"),
        ("generate", {"prompt": "a", "temperature": -1}, 422, "temperature: "),
        ("generate", {"prompt": "\N{SNOWMAN}"}, None, ""),
        ("chat", {"messages": []}, 422, "messages: "),
        ("attention", {"model": "Detection", "text": "a"}, 422, "no attention that is shown here"),
        ("attention", {"model": "Translation", "text": "a"}, 422, "give the translation"),
        ("seen", {"model": "Translation", "picture": "a"}, 404, "cannot"),
        ("seen", {"model": "Detection", "picture": "aGVsbG8="}, 422, "is not a picture that can"),
        ("seen", {"model": "Unified", "text": "a"}, 422, "from a picture: give that too."),
        (
            "seen",
            {"model": "Unified", "action": "translate", "text": "a"},
            422,
            "it is shown for ask",
        ),
        ("seen", {"model": "Series", "picture": "a", "series": [1]}, 422, "reads no picture here"),
        ("series", {"series": []}, 422, "series: "),
        ("series", {"series": [[]]}, 422, "series.0.numbers: "),
        ("series", {"series": ["1,2"]}, 422, "series.0.numbers: input should be a valid list."),
        (
            "series",
            {"series": [[[1, "x"]]]},
            422,
            "series.0.rows.0.1: input should be a valid number",
        ),
        ("series", {"series": [[[1, 2]] * 5001]}, 422, "5000 items"),
        ("series", {"series": [[[1, 2, 3]]]}, 422, "must be (steps, 2)"),
        ("series", {"series": [{"speed": [1]}]}, 422, "has no channel 'height'"),
        ("series", {"series": [{"speed": [1, 2], "height": [1]}]}, 422, "of unequal length"),
        ("series", {"series": [[[1, 2], [1]]]}, 422, "no array of numbers"),
        ("series", {"series": [[[1, None]]]}, 422, "has no number at step 0 of 'height'"),
    ],
)
def test_refused_in_one_sentence(client, path, body, status, said):
    answer = client.post(
        f"/api/{path}", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code == (status or answer.status_code) < 500
    if status:
        sentence = answer.json()["error"]
        assert said in sentence and "\n" not in sentence and "Traceback" not in sentence


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 5000, b"\xff", b"NaN", b'{"texts": [1e999]}', b"3"]
)
def test_no_json_is_refused(client, content):
    answer = client.post("/api/tag", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and list(answer.json()) == ["error"]


def test_a_body_that_does_not_say_what_it_is(client):
    answer = client.post(
        "/api/tag", content=b'{"texts": ["a"]}', headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 422 and "content-type: application/json" in answer.json()["error"]


def test_addresses_that_are_not_there(client):
    assert client.get("/api/nothing").json() == {"error": "there is nothing at this address."}
    assert client.get("/api/tag").status_code == 405
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"


def test_a_bomb_is_not_decoded(models, help):
    limits = Limits(pixels=1000, held=1500, body=90_000)
    with TestClient(make_app(models, limits), base_url="http://localhost") as client:
        ask = lambda *urls: client.post("/api/detect", json={"pictures": urls})  # noqa: E731
        small = help.url_of(help.noise(0, (30, 30)))
        assert ask(small).status_code == 200
        answer = ask(help.url_of(Image.new("1", (5000, 5000))))
        assert answer.status_code == 413 and "pixels" in answer.json()["error"]
        assert "together" in ask(small, small).json()["error"]
        cut = base64.b64decode(small.partition(",")[2])[:900]
        assert ask(base64.b64encode(cut).decode()).status_code == 422
        answer = client.post("/api/tag", json={"texts": ["a" * 100_000]})
        assert answer.status_code == 413 and "MB at most" in answer.json()["error"]

        def parts():
            for _ in range(200):
                yield b"a" * 1000

        assert client.post("/api/tag", content=parts()).status_code == 413


def test_pages_of_other_sites_may_not_ask(client):
    for headers, status in [
        ({"host": "evil.example"}, 403),  # a name that leads here
        ({"host": "localhost.evil.example:8000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:9000"}, 403),
        ({"origin": "http://localhost:8000"}, 200),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
    ]:
        answer = client.get("/api/models", headers=headers)
        assert answer.status_code == status, headers
        assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_the_page_asks_no_other_site(client):
    page = client.get("/").text
    for name in ("app.js", "show.js", "style.css", "icon.svg"):
        text = client.get(f"/static/{name}").text
        assert name == "show.js" or f"/static/{name}" in page
        page_and_file = (page + text).replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in page_and_file and "https://" not in page_and_file


def test_every_action_is_described_and_shown(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    script = client.get("/static/app.js").text
    for action in {action for actions in ACTIONS.values() for action in actions}:
        assert f"/api/{action}" in paths
        assert f"  {action}: {{" in script


def test_names(tmp_path):
    (tmp_path / "a/checkpoints").mkdir(parents=True)
    (tmp_path / "a/checkpoints/best.ckpt").touch()
    (tmp_path / "b/a").mkdir(parents=True)
    sources = [str(tmp_path / "a/checkpoints/best.ckpt"), str(tmp_path / "b/a"), "owner/model"]
    assert named(sources) == ["a", "a-2", "owner/model"]
