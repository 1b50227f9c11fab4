"""``family serve``: what it says, and what it refuses before a model is read."""

from __future__ import annotations

import socket

import pytest
import torch
import uvicorn

import family
from tasks.cli import main

SMALL = {"dim": 16, "depth": 1, "heads": 2, "max_tokens": 32}


@pytest.fixture
def source(tmp_path, help):
    torch.manual_seed(0)
    model = family.bert_tiny(40, num_classes=2, masked_head=False, **SMALL)
    model.tokenizer = help.tokenizer()
    family.save_pretrained(model, tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def started(monkeypatch):
    """What would have been served."""
    found = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda self, sockets: found.append((self.config, sockets))
    )
    return found


def test_it_says_where_and_listens_to_this_machine_alone(source, started, capsys):
    main(["serve", str(source), str(source), "--port", "0", "--max_batch", "3"])
    told = capsys.readouterr()
    assert told.out.startswith("http://127.0.0.1:") and "serves bert, bert-2;" in told.out
    assert told.err == "" and len(started) == 1
    limits = started[0][0].app.limits
    assert limits.batch == 3


def test_another_address_is_warned_of(source, started, capsys):
    main(["serve", str(source), "--host", "0.0.0.0", "--port", "0"])
    warning = capsys.readouterr().err
    assert "whoever reaches this machine may use the models" in warning
    assert len(warning.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "--port must be between 0 and 65535, not 70000."),
        (["--max_batch", "0"], "--max_batch must be at least 1, not 0."),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid is no address"),
    ],
)
def test_refused_in_one_sentence(source, capsys, options, said):
    with pytest.raises(SystemExit) as stopped:
        main(["serve", str(source), *options])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and said in message and len(message.splitlines()) == 1


def test_a_port_in_use_is_said_before_a_model_is_read(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SystemExit):
        main(["serve", "nothing", "--port", str(other.getsockname()[1])])
    message = capsys.readouterr().err
    assert "cannot be listened at" in message and "give another --port" in message
    assert len(message.splitlines()) == 1


def test_a_model_of_which_nothing_can_be_served(tmp_path, capsys):
    torch.manual_seed(0)
    model = family.SpeechToText(**family.SpeechToText.facts.example)
    family.save_pretrained(model, tmp_path / "speech")
    with pytest.raises(SystemExit):
        main(["serve", str(tmp_path / "speech"), "--port", "0"])
    assert len(capsys.readouterr().err.splitlines()) == 1
