"""Folders of the hub's layout, as transformers writes them, and as others did."""

from __future__ import annotations

import json

import pytest
import torch
from harness import randomise
from safetensors.torch import load_file, save_file

import family

REMOVED = object()


def write(theirs, folder, keep=()):
    """Random weights, written by transformers."""
    theirs = theirs.eval()
    randomise(theirs, keep)
    theirs.save_pretrained(folder)
    return theirs


def change(folder, **fields):
    """Other fields in the config; ``REMOVED`` takes one out."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({n: v for n, v in config.items() if v is not REMOVED}))


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def rewrite(folder, new=str, **more):
    """Other names of the weights - an empty one leaves it out - and more of them."""
    file = folder / "model.safetensors"
    weights = {new(name): value for name, value in load_file(file).items()}
    save_file({n: v.clone() for n, v in (weights | more).items() if n}, file, {"format": "pt"})


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def message_of(source, **arguments):
    """The sentence that a source is refused with."""
    with pytest.raises(ValueError) as caught:
        family.from_pretrained(source, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def refuses(folder, *words):
    """One sentence that has all these words."""
    message = message_of(folder)
    for word in (str(folder), *words):
        assert word in message, message


def same(cases, folder, theirs):
    """The model of a folder computes what theirs does."""
    ours, inputs = family.from_pretrained(folder), cases.batch()
    with torch.no_grad():
        close(cases.ours(ours, inputs), cases.theirs(theirs, inputs))
    return ours


def close(ours, theirs):
    """Equal but for the rounding of float32."""
    with torch.no_grad():
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
