"""Formats that a caller names or brings along, for members of the family and of their own."""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import family
from family import TransformerConfig
from family.models.member import member
from family.pretrained import FIRST, TRANSPOSED, Field, Format, Reshape, Row, blocks

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))


@member
class Tagger(nn.Module):
    """A member that no file of ours knows."""

    def __init__(self, letters: int, tags: int, config: TransformerConfig) -> None:
        super().__init__()
        self.config, self.letters, self.tags = config, letters, tags
        self.table = nn.Embedding(letters, config.dim)
        self.stack = family.Transformer(config)
        self.gain = nn.Parameter(torch.randn(config.dim))
        self.head = nn.Linear(config.dim, tags)

    def forward(self, input_ids):
        return self.head(self.stack(self.table(input_ids)) * self.gain)


REVERSED = Reshape(lambda x, _: x.flip(0), lambda x, _: x.flip(0))
BLOCK = {
    "self_attention.norm": "n1",
    "self_attention.sublayer.qkv.weight": Row(("q", "k", "v"), TRANSPOSED),
    "self_attention.sublayer.qkv.bias": Row(("b",), REVERSED),
    "self_attention.sublayer.out": "o",
    "feedforward.norm": "n2",
    "feedforward.sublayer.up": "up",
    "feedforward.sublayer.down": "down",
}
TAGGER = Format(
    name="tagger",
    member=Tagger,
    fields=(
        Field("letters", "sizes.letters"),
        Field("tags", "sizes.tags", 3),
        Field("config.dim", "sizes.width"),
        Field("config.depth", "layers"),
        Field("config.heads", "heads"),
        Field("config.position", "turn", True, {True: "rotary", False: "none"}),
    ),
    fixed={"kind": "tagger"},
    names={
        "table": "letters",
        "gain": Row(("gain",), FIRST),
        "head": "tags",
        "stack.norm": "last",
        **blocks("stack", "layer{}", BLOCK),
    },
    files=("tagger.yaml", "tagger.pt"),
)
IDS = torch.arange(11)[None]


def tagger(**options):
    torch.manual_seed(0)
    fields = {"dim": 16, "depth": 2, "heads": 2, "position": "rotary", **options}
    return Tagger(11, 4, TransformerConfig(**fields)).eval()


def same(model, other):
    assert type(model) is type(other) and not model.training
    assert torch.equal(model(IDS), other(IDS))


def message(call, *arguments, **options):
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refuses(words, *arguments, **options):
    sentence = message(family.from_pretrained, *arguments, **options)
    assert all(word in sentence for word in words), sentence


@pytest.fixture
def folder(tmp_path):
    family.save_pretrained(tagger(), tmp_path / "tagger", format=TAGGER)
    return tmp_path / "tagger"


def named(value):
    """Of a case of a test: what its sentence has to say."""
    return ", ".join(value) if isinstance(value, list) else ""


CONFIG = {"sizes": {"letters": 11, "tags": 4, "width": 16}, "layers": 2, "heads": 2}


def test_member_of_ones_own(folder):
    assert sorted(file.name for file in folder.iterdir()) == ["tagger.pt", "tagger.yaml"]
    state = torch.load(folder / "tagger.pt", weights_only=True)
    assert state["layer1.q"].shape == (16, 16) and state["gain"].shape == (1, 16)
    same(family.from_pretrained(folder, format=TAGGER), tagger())
    half = family.from_pretrained(str(folder), format=TAGGER, dtype=torch.bfloat16)
    assert half.head.weight.dtype == torch.bfloat16


def test_file_with_its_config_beside_it(folder):
    same(family.from_pretrained(folder / "tagger.pt", format=TAGGER), tagger())
    (folder / "tagger.pt").rename(folder / "other.pth")
    same(family.from_pretrained(folder / "other.pth", format=TAGGER), tagger())
    refuses(["no tagger.pt", "tagger"], folder, format=TAGGER)


def test_config_from_elsewhere(folder):
    state = torch.load(folder / "tagger.pt", weights_only=True)
    same(family.from_pretrained(state, format=TAGGER, config=CONFIG), tagger())
    refuses(["config=", "tagger.yaml"], state, format=TAGGER)
    refuses(["config=", "heads=3"], state, format=TAGGER, config={**CONFIG, "heads": 3})
    refuses(["config= has no field 'sizes"], state, format=TAGGER, config={"layers": 2})
    (folder / "tagger.yaml").unlink()
    refuses(["tagger.yaml", "config="], folder, format=TAGGER)
    same(family.from_pretrained(folder, format=TAGGER, config=CONFIG), tagger())
    same(family.from_pretrained(folder / "tagger.pt", format=TAGGER, config=CONFIG), tagger())


def test_format_without_a_config(tmp_path):
    sizes = {"letters": 11, "tags": 4, "config.dim": 16, "config.heads": 2}
    constants = {**sizes, "config.position": "rotary"}
    bare = dataclasses.replace(TAGGER, fields=(), constants=constants, files=("", "tagger.pt"))
    bare = dataclasses.replace(
        bare,
        detect=lambda config, names: {"config.depth": sum(n.endswith(".n1.bias") for n in names)},
    )
    family.save_pretrained(tagger(), tmp_path / "tagger", format=bare)
    assert [file.name for file in (tmp_path / "tagger").iterdir()] == ["tagger.pt"]
    same(family.from_pretrained(tmp_path / "tagger", format=bare), tagger())
    state = torch.load(tmp_path / "tagger" / "tagger.pt", weights_only=True)
    same(family.from_pretrained(state, format=bare), tagger())


def test_format_by_its_name(tmp_path):
    """Whatever the config calls itself."""
    torch.manual_seed(0)
    ours = family.gpt2(61, dim=16, depth=2, heads=2, max_tokens=32).eval()
    family.save_pretrained(ours, tmp_path / "gpt2", format="gpt2")
    file = tmp_path / "gpt2" / "config.json"
    config = {**json.loads(file.read_text()), "model_type": "mystery", "architectures": ["My"]}
    file.write_text(json.dumps(config))
    refuses(["model_type='mystery'"], tmp_path / "gpt2")
    same(family.from_pretrained(tmp_path / "gpt2", format="gpt2"), ours)
    file.unlink()
    weights = tmp_path / "gpt2" / "model.safetensors"
    same(family.from_pretrained(weights, format="gpt2", config=config), ours)


def broken(**options):
    return dataclasses.replace(TAGGER, **options)


def without(name):
    return {ours: theirs for ours, theirs in TAGGER.names.items() if ours != name}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "stablelm"}, ["format='stablelm'", "gpt2", "Format"]),
        ({"format": 3}, ["format=3", "gpt2"]),
        ({"config": CONFIG}, ["config=", "format="]),
        ({"format": TAGGER, "config": [3]}, ["config=", "[3]"]),
        ({"format": broken(member=nn.Linear)}, ["'tagger'", "Linear", "member"]),
        ({"format": broken(names=without("gain"))}, ["'tagger'", "gain"]),
        ({"format": broken(names={**TAGGER.names, "gain": "gane"})}, ["no weight gane for gain"]),
        ({"format": broken(names={**TAGGER.names, "gain": "gain"})}, ["gain", "shape (1, 16)"]),
        ({"format": broken(fixed={"heads": 4})}, ["tagger.yaml", "heads=2", "only 4"]),
        ({"format": broken(constants={"config.dimm": 4})}, ["tagger.yaml", "dimm"]),
        ({"format": broken(constants={"letter": 4})}, ["tagger.yaml", "letter"]),
        (
            {"format": broken(detect=lambda config, names: {"config.bias": config["biased"]})},
            ["tagger.yaml", "'biased'"],
        ),
        ({"format": TAGGER, "num_classes": 3}, ["num_classes=3", "Tagger"]),
    ],
    ids=named,
)
def test_refused(folder, options, words):
    refuses(words, folder, **options)


def test_reshape_that_fails(folder):
    odd = Reshape(lambda x, _: x.unflatten(0, (5, -1)), lambda x, _: x.flatten(0, 1))
    format = broken(names={**TAGGER.names, "gain": Row(("gain",), odd)})
    refuses(["tagger.pt", "gain", "(1, 16)"], folder, format=format)


def test_files_that_are_none(folder):
    (folder / "tagger.yaml").write_text("- 3")
    refuses(["tagger.yaml", "list"], folder, format=TAGGER)
    (folder / "tagger.yaml").write_text("{3")
    refuses(["tagger.yaml"], folder, format=TAGGER)
    refuses(["no/where"], "no/where/at/all", format=TAGGER)
    refuses(["Linear", "state_dict()", "'tagger'"], nn.Linear(2, 2), format=TAGGER)
    refuses(["int", "as x"], {"x": 3}, format=TAGGER, config=CONFIG)


@pytest.mark.parametrize(
    ("model", "format", "words"),
    [
        (lambda: family.gpt_nano(), TAGGER, ["'tagger'", "Tagger", "GPT"]),
        (lambda: tagger(), "gpt2", ["'gpt2'", "GPT", "Tagger"]),
        (lambda: nn.Linear(2, 2), TAGGER, ["'tagger'", "Linear"]),
        (lambda: tagger(), 3, ["format=3"]),
        (lambda: tagger(window=4), TAGGER, ["window=4"]),
        (lambda: tagger(position="learned"), TAGGER, ["position='learned'"]),
        (lambda: tagger(), broken(names=without("gain")), ["'tagger'", "gain"]),
        (
            lambda: tagger(),
            broken(names={**TAGGER.names, "stack.norm": "layer1.n1"}),
            ["layer1.n1"],
        ),
        (lambda: tagger(), broken(fields=(*TAGGER.fields, Field("x", "x", 1))), ["'tagger'", "x"]),
    ],
    ids=named,
)
def test_what_a_format_cannot_express(tmp_path, model, format, words):
    found = model()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.rand_like(parameter))
    sentence = message(family.save_pretrained, found, tmp_path / "model", format=format)
    assert all(word in sentence for word in words), sentence
    assert not (tmp_path / "model").exists()


def test_the_example_is_short_and_runs(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    from cases import own

    assert len(own.FILE.read_text().splitlines()) <= 60
    theirs = own.stablelm()().eval()
    theirs.save_pretrained(tmp_path / "theirs")
    arguments = [str(own.FILE), str(tmp_path / "theirs"), str(tmp_path / "ours")]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(own.FILE), run_name="__main__")
    ours, inputs = family.from_pretrained(tmp_path / "ours"), own.batch()
    with torch.no_grad():
        torch.testing.assert_close(own.ours(ours, inputs), own.theirs(theirs, inputs))
    # A class that someone built on transformers' is read as what it is written to.
    theirs.__class__ = type("Theirs", (type(theirs),), {"__module__": "somewhere"})
    same(family.from_pretrained(theirs, format=own.STABLELM), ours)
    file = tmp_path / "theirs" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "use_parallel_residual": True}))
    refuses(["use_parallel_residual=True"], tmp_path / "theirs", format=own.STABLELM)
