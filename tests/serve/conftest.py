"""Tiny models of every task that is served, from the examples that the members carry."""

from __future__ import annotations

import base64
import io
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi")
import uvicorn
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[1] / "invariance"))
from common import members

import family
from family.core.attention import Attention
from family.core.config import TransformerConfig
from family.inputs.chat import CHATML
from family.inputs.preprocess import Preprocess
from family.inputs.series import SeriesPreprocess
from family.models.member import build
from tasks.data.tokenizers import MASK, train_tokenizer
from tasks.data.unified import UnifiedData
from tasks.serve.app import make_app
from tasks.serve.served import ACTIONS

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", MASK, "<|im_start|>", "<|im_end|>")
LETTERS = "abcdefghijklmnopqrstuvwxyz \n?.,'-"
ROOM = 96
"""Tokens that the stacks of texts read."""
COUNTS = {"QuestionAnswering": 2, "TextRegression": 1, "ImageRegression": 1}
"""Of tasks that have no classes, how many numbers a head gives."""


def tokenizer() -> Any:
    """Of 40 characters, as many as the members' examples have."""
    made = train_tokenizer("char", [LETTERS], specials=SPECIALS)
    made.chat_template = CHATML
    assert made.vocab_size == 40
    return made


def longer(value: Any) -> Any:
    """Stacks of an example, with room for a conversation."""
    if isinstance(value, TransformerConfig) and value.max_tokens:
        return value.replace(max_tokens=ROOM)
    if isinstance(value, dict):
        return {k: ROOM if k == "max_tokens" else longer(v) for k, v in value.items()}
    return value


def arguments_of(task: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The members that a task trains, and the arguments of a tiny one of each."""
    for cls in members():
        example = longer(dict(cls.facts.example))
        if cls.facts.task == ("Translation" if task == "TextToText" else task):
            yield cls, example
        elif task in cls.facts.heads:
            yield cls, {**example, **cls.facts.heads[task], "num_classes": COUNTS.get(task, 3)}


def tiny(task: str) -> Any:
    """A model of a task, ready for use; with attention, if one has it."""
    torch.manual_seed(0)
    if task == "Unified":
        data = UnifiedData(image_size=(16, 16), slots=4, examples=60)
        example = {**family.Omni.facts.example, **data.model_arguments}
        model = build(family.Omni, longer(example))
        model.tokenizer = data.tokenizer
    elif task == "Series":
        example = {**family.SeriesTransformer.facts.example, "num_classes": 3, "channels": 2}
        model = build(family.SeriesTransformer, example)
        model.preprocess = SeriesPreprocess(("speed", "height"), (1.0, 10.0), (2.0, 5.0))
    else:
        for cls, given in arguments_of(task):
            model = build(cls, given)
            if any(isinstance(one, Attention) for one in model.modules()):
                break
        if "text" in model.facts.reads:
            model.tokenizer = tokenizer()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    if task == "VisionChat":
        model.tokenizer.inner.add_special_tokens(["<image>"])
        model.tokenizer = type(model.tokenizer).from_json(model.tokenizer.to_json())
    if {"pictures", "video"} & set(model.facts.reads):
        side = 64 if model.facts.any_size else 16
        model.preprocess = Preprocess((side, side))
    return family.load(model, task=task)


def url_of(picture: Image.Image, kind: str = "png") -> str:
    file = io.BytesIO()
    picture.save(file, kind)
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()


def noise(i: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    values = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="session")
def models():
    """By task."""
    return {task: tiny(task) for task in ACTIONS}


@pytest.fixture(scope="module")
def client(models):
    with TestClient(make_app(models), base_url="http://localhost:8000") as found:
        yield found


@contextmanager
def running(app: Any) -> Iterator[str]:
    """A server at a port of loopback, in a thread; its address."""
    place = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        place.close()


@pytest.fixture(scope="session")
def help():
    """What tests build their inputs with."""
    return SimpleNamespace(
        tiny=tiny, url_of=url_of, noise=noise, running=running, tokenizer=tokenizer
    )
