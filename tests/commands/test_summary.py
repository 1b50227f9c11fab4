"""``family summary``: tables that add up, and a diagram."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

import family
from tasks.cli import main
from tasks.commands.summary import model_of
from tasks.compare.flops import counted_flops
from tasks.compare.summary import drawn, summary_of

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


@pytest.mark.parametrize("build", ["gpt", "detr", "seq2seq", "clip"])
def test_rows_add_up(build):
    torch.manual_seed(0)
    model = {
        "gpt": lambda: family.gpt_nano(50),
        "detr": lambda: family.DETR(5, family.TransformerConfig(dim=16, depth=2, heads=2), "patch"),
        "seq2seq": lambda: family.transformer_tiny(50, depth=2),
        "clip": lambda: family.CLIP(**family.CLIP.facts.example),
    }[build]().eval()
    found = summary_of(model, build)
    whole = [row for row in found.rows if not row.name.startswith(" ")]
    assert sum(row.parameters for row in whole) == sum(p.numel() for p in model.parameters())
    batch = drawn(model)
    with torch.no_grad():
        flops = counted_flops(lambda: model.requires_grad_(False)(**batch))
    assert found.flops == flops > 0
    between = sum(row.flops for row in whole if row.flops)
    assert 0.9 * flops <= between <= flops  # cosines of a CLIP stand in no part
    assert all(shape[0] == 1 for shape in found.inputs.values())
    (stack, *within) = [
        row for row in found.rows if row.kind == "Transformer" or row.name[0] == " "
    ][:3]
    assert 0 < sum(row.flops for row in within) <= stack.flops


def test_gpt_by_hand():
    """A linear layer is two operations a weight and token; scores and sums four a pair and channel."""
    model = family.gpt_nano(50)
    (dim, depth), tokens = (128, 4), 32
    each = 2 * tokens * (4 * dim * dim + 8 * dim * dim) + 4 * tokens * tokens * dim
    assert summary_of(model, "").flops == depth * each + 2 * tokens * dim * 50


def test_sizes_without_weights():
    model = model_of("gpt2")
    assert next(model.parameters()).device.type == "meta"
    found = summary_of(model, "gpt2")
    assert found.outline.parameters == 124_439_808 and found.rows[0].gives == (1, 32, 768)


def test_the_command(capsys):
    run = str(RUNS / "translation")
    main(["summary", "bert_tiny", run, "--svg", "both.svg"])
    said = capsys.readouterr().out
    assert (
        "masked_head" in said and "cross_attention" in said and "The diagram is both.svg." in said
    )
    assert "what differs" in Path("both.svg").read_text("utf-8")
    ET.parse("both.svg")


def test_a_config(capsys):
    main(["summary", "image_classification/shapes"])
    said = capsys.readouterr().out
    assert "PatchEmbedding" in said and "pixel_values 1 × 3 ×" in said


def test_a_published_model_without_a_tokenizer(tmp_path, capsys):
    import transformers

    config = transformers.Gemma2Config(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=4,
    )
    transformers.Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    main(["summary", str(tmp_path / "gemma"), "gpt2", "--svg", "both.svg"])
    assert "input_ids 1 ×" in capsys.readouterr().out
    drawn = Path("both.svg").read_text("utf-8")
    assert all(said in drawn for said in ("window 4", "rotary positions", "offset_rmsnorm"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["translation/shape"], "nor is it a config of ours. Did you mean 'translation/shapes'?"),
        (["load"], "load builds no model by itself"),
        (["none.yaml"], "none.yaml"),
        (["gpt2"] * 7, "7 models are too many"),
        (["gpt2", "--svg", "."], "--svg . must be a file"),
    ],
)
def test_one_sentence(given, said, capsys):
    with pytest.raises(SystemExit):
        main(["summary", *given])
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and error.count("\n") == 1
