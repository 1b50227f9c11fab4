"""Bases and LoRA adapters in folders, as peft writes and reads them."""

from __future__ import annotations

import json
import warnings

import peft
import pytest
import torch
from cases import causal, contrast, encoders, fusion, seq2seq, video, vision
from harness import cast, randomise
from safetensors.torch import load_file, save_file

import family

CASES = {
    case.member: case
    for cases in (causal, contrast, encoders, fusion, seq2seq, video, vision)
    for case in cases.CASES
}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def base_of(name, folder):
    """Their model in float64, of random weights, saved in a folder."""
    torch.manual_seed(0)
    case = CASES[name]
    theirs = case.build().eval()
    randomise(theirs, case.keep)
    theirs = theirs.double()
    theirs.save_pretrained(folder / "base")
    return theirs


def learn(model):
    """As if the adapters had learnt something."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data = 0.3 * noise.to(parameter.dtype)
    return model


def by_peft(name, folder, whole=(), **options):
    """A base, and adapters that peft puts in and saves beside it; ``whole`` modules learn too."""
    base = base_of(name, folder)
    if whole:
        options["modules_to_save"] = [*whole]
    model = peft.get_peft_model(base, peft.LoraConfig(**{"r": 3, "lora_alpha": 5, **options}))
    model.peft_config["default"].base_model_name_or_path = str(folder / "base")
    learn(model.eval())
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data = parameter.data.flip(0)
    saved_by_peft(model, folder / "adapter")
    return model


def saved_by_peft(model, folder):
    with warnings.catch_warnings():
        # Beside an adapted head it writes the base's tables too.
        warnings.filterwarnings("ignore", "Setting `save_embedding_layers`")
        model.save_pretrained(folder)


def loaded_by_peft(name, folder, adapter="adapter"):
    base = type(CASES[name].build()).from_pretrained(folder / "base", dtype=torch.float64)
    base = base.double()  # its buffers, too
    return peft.PeftModel.from_pretrained(base, folder / adapter, is_trainable=True).eval()


def answers(name, model, side="ours"):
    case = CASES[name]
    return getattr(case, side)(model, cast(case.batch(), torch.float64))


def equal(ours, theirs):
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, **EXACT)


def matters(name, folder, answer):
    """The base alone answers otherwise."""
    base = answers(name, family.from_pretrained(folder / "base"))
    assert (base - answer).abs().max() > 1e-2 * answer.abs().max()


def gradients(model, folder):
    """The gradients of A and B by the names of a file, the way that A and B take."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.grad
    family.save_adapter(model, folder / "gradients", folder / "base")
    return load_file(folder / "gradients" / WEIGHTS)


def change(folder, **fields):
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def rewrite(folder, new):
    """Other weights, made of those in the file."""
    save_file(new(load_file(folder / WEIGHTS)), folder / WEIGHTS)


@pytest.fixture(autouse=True)
def strictly():
    """peft warns of what it did not find, or did not expect."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
