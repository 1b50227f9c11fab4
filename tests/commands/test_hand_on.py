"""A finished run as a folder: with a model card, and read by transformers with the same answers; and to the hub."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml

import family
from tasks.cli import main

QUICK = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.num_sanity_val_steps=0",
    "--run_folder=run",
]
TEXT = "a red circle is above a blue square"


def stack(**fields):
    return [f"--model.model.config.{name}={value}" for name, value in fields.items()]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A run of a BERT as it was published, handed on."""
    folder = tmp_path_factory.mktemp("bert")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = stack(dim=16, depth=1, heads=2, ffn_dim=16, norm_order="post")
        few = ["--data.examples=64", "--data.vocab_size=280", "--model.model.token_types=2"]
        main(["fit", "--config=text_classification/shapes", *QUICK, *small, *few])
        main(["hand_on", "run", "--out=mine"])
    return folder


def test_transformers_classifies_as_the_run_does(bert):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(bert / "mine").eval()
    batch = transformers.AutoTokenizer.from_pretrained(bert / "mine")(TEXT, return_tensors="pt")
    ours, again = (
        family.load(bert / "run").model.eval(),
        family.from_pretrained(bert / "mine").eval(),
    )
    ids = torch.tensor([ours.tokenizer.encode(TEXT)])
    assert set(ids[0].tolist()) <= set(batch["input_ids"][0].tolist())
    with torch.inference_mode():
        wanted = ours(batch["input_ids"])
        torch.testing.assert_close(theirs(**batch).logits, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(again(batch["input_ids"]), wanted)
    assert [theirs.config.id2label[i] for i in range(len(ours.labels))] == list(ours.labels)
    (answer,) = family.load(bert / "mine").predict([TEXT])
    assert answer["label"] == family.load(bert / "run").predict([TEXT])[0]["label"]


def test_the_card(bert):
    text = (bert / "mine/README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["library_name"] == "transformers" and head["pipeline_tag"] == "text-classification"
    assert "bert" in head["tags"] and "license" not in head
    metrics = {one["name"]: one["value"] for one in head["model-index"][0]["results"][0]["metrics"]}
    known = json.loads((bert / "run/metrics-fit.json").read_text())["metrics"]
    assert metrics["val/accuracy"] == pytest.approx(known["val/accuracy"])
    for part in (
        "## Data",
        "Hash of the files: `built in",
        "## Limits",
        "family fit --config=text",
    ):
        assert part in body
    config = yaml.safe_load((bert / "mine/training_config.yaml").read_text())
    assert config["data"]["init_args"]["examples"] == 64
    huggingface_hub = pytest.importorskip("huggingface_hub")
    card = huggingface_hub.ModelCard(text)
    assert card.data.eval_results[0].metric_type == "loss" or card.data.eval_results


@pytest.mark.slow
def test_transformers_continues_texts_as_the_run_does(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    small = stack(dim=16, depth=1, heads=2, ffn_dim=16)
    main(["fit", "--config=gpt/shapes", *QUICK, *small, "--data.context=16"])
    main(["hand_on", "run", "--out=mine"])
    theirs = transformers.AutoModelForCausalLM.from_pretrained("mine").eval()
    ids = transformers.AutoTokenizer.from_pretrained("mine")("a red circle", return_tensors="pt")
    ours = family.load("run").model.eval()
    assert ids["input_ids"][0].tolist() == ours.tokenizer.encode("a red circle")
    with torch.inference_mode():
        wanted = ours(ids["input_ids"])
        torch.testing.assert_close(theirs(ids["input_ids"]).logits, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_published_by_nobody_is_ours(tmp_path):
    run = Path(__file__).parents[1] / "fixtures/runs/translation"
    main(["hand_on", str(run), "--out", str(tmp_path / "mine")])
    config = json.loads((tmp_path / "mine/config.json").read_text())
    assert (
        "transformer-family" in (tmp_path / "mine/README.md").read_text() and config["model_type"]
    )
    text = ["un cercle rouge"]
    wanted = family.load(run).predict(text)
    assert family.load(tmp_path / "mine").predict(text) == wanted


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["hand_on", "none", "--out=x"], "none is no folder of a run"),
        (["hand_on", "{bert}/run", "--out={bert}/mine"], "exists and is not empty"),
        (["hand_on", "{bert}/run", "--out=x", "--layout=gpt2"], "--layout gpt2"),
        (["push", "{bert}/mine", "name"], "give OWNER/NAME"),
        (["push", "{bert}/mine", "me/it"], "the hub asks for a token"),
    ],
)
def test_one_sentence(call, said, bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main([word.format(bert=bert) for word in call])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and said in error and len(error.splitlines()) == 1
    assert not (tmp_path / "x").exists()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload asks for."""

    made: ClassVar[dict] = {}
    files: ClassVar[dict] = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        assert self.headers["Authorization"] == "Bearer secret"
        answer = {}
        if self.path == "/api/repos/create":
            self.made.update(json.loads(body))
            if self.made["name"] == "taken":
                return self.answer(403, {"error": "You do not own it."})
            answer = {"url": "https://huggingface.co/me/it"}
        elif "/preupload/" in self.path:
            paths = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            answer = {"files": modes}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[line["value"]["path"]] = content
            answer = {
                "commitUrl": "https://huggingface.co/me/it/commit/" + "1" * 40,
                "commitOid": "1" * 40,
            }
        self.answer(200, answer)

    def do_GET(self):
        if "taken" in self.path:
            return self.answer(404, {"error": "not found"})
        self.answer(200, {"sha": "1" * 40, "id": "me/it", "siblings": []})

    def answer(self, code, value):
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code >= 400:
            self.send_header("X-Error-Message", value["error"])
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    Hub.made, Hub.files = {}, {}
    yield Hub
    server.shutdown()
    server.server_close()


def test_push(bert, hub, capsys):
    main(["push", str(bert / "mine"), "me/it", "--private"])
    assert hub.made.get("private") or hub.made.get("visibility") == "private"
    assert hub.made["name"] == "it" and "me/it" in capsys.readouterr().out
    wanted = {path.name: path.read_bytes() for path in (bert / "mine").iterdir()}
    assert hub.files == wanted and "model.safetensors" in wanted
    with pytest.raises(SystemExit):
        main(["push", str(bert / "mine"), "me/taken"])
    said = capsys.readouterr().err
    assert "the hub refuses me/taken: You do not own it." in said and len(said.splitlines()) == 1
