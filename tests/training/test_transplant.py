"""Blocks of one member become those of another, by function, option and command; all is reported."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import family
from family.adapt.resize import resize
from family.adapt.transplant import Entry, common_parts, differences, transplant
from family.core.mask import Allowed, Shared
from tasks import ImageClassification
from tasks.cli import main
from tasks.errors import UserError
from tasks.training.transplant import Transplant

STACK = {"dim": 16, "depth": 2, "heads": 2}
OWN = 99
"""The seed of a target's weights."""


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """No weight is 0, 1, or that of another model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def gpt(**options) -> nn.Module:
    return randomised(family.gpt_nano(30, **{**STACK, "bias": True, **options}), 1)


def vit(size: int = 16, **options) -> nn.Module:
    return randomised(family.vit_tiny(3, 4, size, **{**STACK, **options}), 2)


def bert(**options) -> nn.Module:
    return randomised(family.bert_tiny(30, **{**STACK, "norm_order": "pre", **options}), 3)


def clip(**options) -> nn.Module:
    fields = {**STACK, "embed_dim": 8, "image_size": 16, "patch_size": 4, "max_tokens": 12}
    return randomised(family.clip_small(30, **{**fields, **options}), 4)


def changes(target: nn.Module, *given) -> tuple[list[Entry], dict[str, Tensor]]:
    """The entries of a transplant, checked against what the weights were and are."""
    before = {name: value.clone() for name, value in randomised(target, OWN).state_dict().items()}
    entries = transplant(target, *given)
    after = target.state_dict()
    tied = {id(value): name for name, value in target.state_dict(keep_vars=True).items()}
    assert len(entries) == len(tied) == len({entry.name for entry in entries})
    for entry in entries:
        assert torch.equal(before[entry.name], after[entry.name]) == (entry.what == "fresh")
        if entry.what == "loaded":
            assert torch.equal(after[entry.name], given[0].state_dict()[entry.origin])
    return entries, after


def names(entries: list[Entry], what: str) -> list[str]:
    return [entry.name for entry in entries if entry.what == what]


# --- What goes where -------------------------------------------------------------------------


def test_a_vit_takes_the_blocks_of_a_gpt():
    target, source = vit(norm_eps=1e-5, activation="gelu_tanh"), gpt()
    entries, _ = changes(target, source)
    assert common_parts(target, source) == {"transformer": "transformer"}
    beside = [name for name, _ in target.named_parameters() if not name.startswith("transformer.")]
    assert names(entries, "fresh") == beside  # patches and head are its own
    x = theirs = torch.randn(2, 5, 16)
    for block in source.transformer.blocks:
        theirs = block(theirs, Shared(allowed=Allowed()))  # both ways
    torch.testing.assert_close(target.transformer(x), source.transformer.norm(theirs))


def test_what_the_same_weights_will_not_compute_the_same_for():
    said = differences(vit(), gpt(), {"transformer.blocks": "transformer", "head": "head"})
    assert said.keys() == {"transformer.blocks"}
    assert said["transformer.blocks"]["causal"] == (False, True)
    assert said["transformer.blocks"]["activation"] == ("gelu", "gelu_tanh")
    assert said["transformer.blocks"].keys() == {"causal", "activation", "norm_eps"}
    assert not differences(vit(), vit(32, dropout=0.1, depth=1), {"transformer": "transformer"})


def test_a_segmenter_takes_a_vit_at_another_size_of_pictures():
    source = vit()
    target = randomised(family.segmenter_tiny(3, 4, 24, **STACK), 5)
    entries, _ = changes(target, source)
    assert names(entries, "resized") == ["encoder.embedding.position.weight"]
    assert all(name.startswith("decoder.") for name in names(entries, "fresh"))
    resize(source, 24)
    pixels = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(
        target.encoder.forward_features(pixels), source.forward_features(pixels)
    )


def test_the_towers_of_a_clip_take_a_vit_and_a_bert():
    target = clip()
    entries, _ = changes(target, vit(norm_eps=1e-5))
    fresh = set(names(entries, "fresh"))
    assert {"image.embedding.norm.weight", "image.head.weight", "logit_scale"} <= fresh
    assert {n for n, _ in target.named_parameters() if n.startswith("text.")} <= fresh
    assert "image.transformer.norm.bias" in names(entries, "loaded")
    entries, _ = changes(target, bert(max_tokens=20))
    assert names(entries, "resized") == ["text.embedding.position.weight"]  # its first places
    assert not any(n.startswith("image.") for n in (*names(entries, "loaded"),))
    assert "text.transformer.blocks.1.feedforward.sublayer.down.bias" in names(entries, "loaded")


def test_the_encoder_of_a_translator_comes_before_its_decoder():
    target = randomised(family.transformer_tiny(30, **STACK, ffn_dim=None), 6)
    source = bert(norm_order="post")
    parts = common_parts(target, source)
    assert parts == {"encoder": "transformer", "source_embedding": "embedding"}


def test_depths_differ():
    entries, after = changes(vit(depth=1), vit(depth=3))
    assert names(entries, "fresh") == ["head.weight", "head.bias"]
    assert not any(name.startswith("transformer.blocks.1.") for name in after)
    entries, _ = changes(vit(depth=3), gpt(), {"transformer.blocks": "transformer.blocks"})
    assert all(e.what == "loaded" for e in entries if e.name.startswith("transformer.blocks.1"))
    assert all(e.what == "fresh" for e in entries if e.name.startswith("transformer.blocks.2"))
    entries, after = changes(vit(), gpt(), {"transformer.blocks.0": "transformer.blocks.1"})
    assert names(entries, "loaded") == [n for n in after if n.startswith("transformer.blocks.0.")]


def test_another_feed_forward_stays_fresh_where_the_map_says_so():
    entries, _ = changes(vit(ffn_dim=24), gpt(), {"transformer": "transformer"})
    fresh = {n.split(".")[-2] for n in names(entries, "fresh") if n.startswith("transformer.")}
    assert fresh == {"up", "down"}
    assert "transformer.blocks.0.feedforward.sublayer.down.bias" in names(entries, "loaded")


# --- Positions -------------------------------------------------------------------------------


def test_places_of_a_text_lose_their_end_or_are_stretched():
    table = gpt(max_tokens=8).embedding.position.weight.detach()
    _, after = changes(gpt(max_tokens=5), gpt(max_tokens=8), {"embedding": "embedding"})
    assert torch.equal(after["embedding.position.weight"], table[:5])
    _, after = changes(gpt(max_tokens=15), gpt(max_tokens=8), {"embedding": "embedding"})
    longer = after["embedding.position.weight"]
    torch.testing.assert_close(longer[::2], table)
    torch.testing.assert_close(longer[1::2], (table[1:] + table[:-1]) / 2)


def test_a_prefix_of_another_kind_keeps_its_own_places():
    source = vit(pool="mean", class_token=False)
    target = vit(24)
    own = randomised(vit(24), OWN).embedding.position.weight[:1]
    _, after = changes(target, source)
    resize(source, 24)
    table = after["embedding.position.weight"]
    assert torch.equal(table, torch.cat([own, source.embedding.position.weight]))


def test_equal_numbers_of_places_on_unequal_grids_are_no_equal_places():
    source = randomised(family.vit_tiny(3, 4, (8, 32), **STACK), 7)
    entries, after = changes(vit(16), source)
    assert names(entries, "resized") == ["embedding.position.weight"]
    resize(source, 16)
    table = source.embedding.position.weight
    torch.testing.assert_close(after["embedding.position.weight"], table)


def test_places_in_texts_say_nothing_of_places_in_pictures():
    rows = len(vit().embedding.position.weight)
    source = gpt(max_tokens=rows)
    with pytest.raises(ValueError, match=r"^embedding\.position from embedding\.position: nothing"):
        transplant(vit(), source, {"embedding.position": "embedding.position"})


# --- Refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts", "message"),
    [
        ({"dim": 32}, None, r"no stack of the ViT \(transformer: dim=32, heads=2, ffn_dim=128\)"),
        ({"dim": 32}, {"transformer": "transformer"}, "transformer: dim is 32, but there 16."),
        ({"heads": 4}, None, "is as wide as one of the GPT"),
        ({"heads": 4}, {"transformer.blocks": "transformer.blocks"}, "heads is 4, but there 2."),
        ({}, {"transformers": "transformer"}, "ViT has no part 'transformers' with weights; its"),
        ({}, {"transformer": "stack"}, "GPT has no part 'stack' with weights; its parts are: emb"),
        ({}, {"embedding.prefix": "embedding.tokens"}, r"prefix.weight is \(1, 16\), but there"),
        ({}, {"head": "transformer"}, "nothing fits: the two have no weights of one name."),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(options, parts, message):
    target = vit(**options)
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(ValueError, match=message) as error:
        transplant(target, gpt(), parts)
    assert "\n" not in str(error.value)
    assert all(torch.equal(before[n], v) for n, v in target.state_dict().items())


# --- In training, and as a command -----------------------------------------------------------

CONFIG = """
model:
  class_path: tasks.ImageClassification
  init_args:
    model:
      class_path: family.ViT
      init_args:
        config: {dim: 16, depth: 2, heads: 2, position: learned, norm_eps: 1.0e-6}
        patch_size: 4
    lr: 0.0
    transplant:
      source: trained
      map:
        transformer.blocks: transformer.blocks
        embedding.position: embedding.position
data:
  class_path: tasks.ImageClassificationData
  init_args: {image_size: 24, batch_size: 8, augment: none, examples: 40}
trainer:
  max_steps: 1
  limit_val_batches: 1
  limit_test_batches: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a trained ViT and a config that begins with parts of it."""
    monkeypatch.chdir(tmp_path)
    family.save_pretrained(vit(), "trained")
    Path("vit.yaml").write_text(CONFIG)
    return tmp_path


def state(path: str) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_run_begins_with_what_the_config_says_and_is_then_on_its_own(folder, capsys):
    main(["fit", "--config", "vit.yaml", "--run_folder", "run"])
    trained, source = state("run/checkpoints/last.ckpt"), vit().state_dict()
    for name, value in source.items():
        same = torch.equal(trained[f"model.{name}"], value)
        assert same == name.startswith("transformer.blocks.")
    report = Path("run/transplant.md").read_text()
    assert "24 loaded, 1 resized, 7 fresh" in report
    assert "| embedding.position.weight | resized | embedding.position.weight |" in report
    # Neither going on nor testing looks at the source again.
    Path("trained").rename("elsewhere")
    again = ["--ckpt_path", "run/checkpoints/last.ckpt"]
    main(["test", "--config", "vit.yaml", "--run_folder", "tested", *again])
    main(["fit", "--config", "vit.yaml", "--run_folder", "on", "--trainer.max_steps=2", *again])
    assert not Path("on/transplant.md").exists()
    for name, value in state("on/checkpoints/last.ckpt").items():
        assert torch.equal(value, trained[name])


@pytest.mark.slow
def test_the_command_reports_what_fit_would_do(folder, capsys):
    main(["fit", "--config", "vit.yaml", "--run_folder", "run"])
    capsys.readouterr()
    maps = ["--map", "transformer=transformer", "--map", "head=head"]
    main(["transplant", "--config", "vit.yaml", "--source", "run", "--out", "report", *maps])
    assert "Weights: 28 loaded, 0 resized, 4 fresh." in capsys.readouterr().out
    record = json.loads(Path("report/transplant.json").read_text())
    assert record["parts"] == {"transformer": "transformer", "head": "head"}
    assert {"name": "head.bias", "what": "loaded", "origin": "head.bias"} in record["entries"]
    assert record["differences"] == {}
    # Without a map, embeddings come along and the head stays fresh.
    without = CONFIG[: CONFIG.index("      map:")] + CONFIG[CONFIG.index("data:") :]
    Path("vit.yaml").write_text(without)
    main(["transplant", "--config", "vit.yaml", "--out", "all"])
    text = Path("all/transplant.md").read_text()
    assert "- embedding from embedding" in text and "| head.bias | fresh |  |" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--source", "nothing.ckpt"], "nothing.ckpt does not exist."),
        (
            ["--map", "transformer"],
            "--map transformer: give PART=PART, the model's and the source's.",
        ),
        (
            ["--map", "x=head"],
            "model.transplant: a ViT has no part 'x' with weights; its parts are",
        ),
        (["--model.model.config.dim=32"], "transformer.blocks: dim is 32, but there 16."),
        (["--model.transplant=null"], "family transplant needs --source, or a config with"),
    ],
)
def test_the_command_refuses_in_one_sentence(folder, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as stopped:
        main(["transplant", "--config", "vit.yaml", "--out", "report", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("family: ") and sentence in error
    assert not Path("report").exists()


def test_weights_come_from_one_place():
    with pytest.raises(UserError, match=r"^model\.transplant beside model\.pretrained=a: choose "):
        ImageClassification(pretrained="a", transplant=Transplant("b"))
