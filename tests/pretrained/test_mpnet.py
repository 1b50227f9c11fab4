"""MPNet and XLM-RoBERTa: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import text_encoders
from folders import REMOVED, change, close, config_of, refuses, rewrite, weights_of, write

KINDS = {"MPNet": "mpnet", "XLMRoberta": "roberta"}
IDS = torch.randint(2, 97, (3, 9), generator=torch.Generator().manual_seed(0))


def folder_of(folder, name, **options):
    kind = next(kind for kind in KINDS if name.startswith(kind))
    return write(text_encoders.build(name, **{**text_encoders.SIZES[kind], **options}), folder)


def equal(folder, theirs):
    ours = family.from_pretrained(folder)
    close(ours(IDS), theirs(IDS)[0])
    return ours


@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens_as_published(tmp_path, kind):
    """With a pooler, copies of table and bias, and positions as a buffer."""
    theirs = folder_of(tmp_path, f"{kind}ForMaskedLM")
    prefix, weights = KINDS[kind], weights_of(tmp_path)
    more = {
        "lm_head.decoder.weight": weights[f"{prefix}.embeddings.word_embeddings.weight"],
        "lm_head.decoder.bias": weights["lm_head.bias"],
        f"{prefix}.pooler.dense.weight": torch.ones(32, 32),
        f"{prefix}.pooler.dense.bias": torch.zeros(32),
        f"{prefix}.embeddings.position_ids": torch.arange(18)[None],
    }
    rewrite(tmp_path, **more)
    change(tmp_path, tie_word_embeddings=REMOVED, pad_token_id=REMOVED, output_past=True)
    ours = equal(tmp_path, theirs)
    assert ours.pooler.dense.weight.eq(1).all() and ours.config.max_tokens == 16


@pytest.mark.parametrize("kind", KINDS)
def test_bare_stack_with_and_without_prefix_and_pooler(tmp_path, kind):
    theirs = folder_of(tmp_path, f"{kind}Model")
    assert equal(tmp_path, theirs).pooler is not None
    rewrite(tmp_path, lambda name: f"{KINDS[kind]}.{name}")
    assert equal(tmp_path, theirs).pooler is not None
    rewrite(tmp_path, lambda name: "" if "pooler" in name else name)
    assert equal(tmp_path, theirs).pooler is None


@pytest.mark.parametrize("kind", KINDS)
def test_classes(tmp_path, kind):
    theirs = folder_of(tmp_path / "theirs", f"{kind}ForSequenceClassification")
    pooler = {f"{KINDS[kind]}.pooler.dense.{n}": torch.zeros(32, 32)[0] for n in ("weight", "bias")}
    rewrite(tmp_path / "theirs", **pooler)  # of the bare stack; nothing reads it
    model = equal(tmp_path / "theirs", theirs)
    again = family.from_pretrained(tmp_path / "theirs", num_classes=2)
    assert again(IDS).tolist() == [[0.0] * 2] * 3 and again.config == model.config


def test_positions_beside_each_other(tmp_path):
    folder_of(tmp_path / "theirs", "MPNetModel")
    ours = family.from_pretrained(tmp_path / "theirs")
    stored = weights_of(tmp_path / "theirs")
    assert torch.equal(
        ours.embedding.position.weight, stored["embeddings.position_embeddings.weight"][2:]
    )
    bias = stored["encoder.relative_attention_bias.weight"]
    assert torch.equal(ours.transformer.bias.table.weight, bias) and bias.shape == (32, 4)
    family.save_pretrained(ours, tmp_path / "again", format="mpnet")
    config = config_of(tmp_path / "again")
    assert config["max_position_embeddings"] == 18 and "type_vocab_size" not in config
    close(ours(IDS), transformers.AutoModel.from_pretrained(tmp_path / "again").eval()(IDS)[0])


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("MPNetModel", {"relative_attention_num_buckets": 64}, "relative_attention_num_buckets=64"),
        ("MPNetModel", {"pad_token_id": 0}, "pad_token_id=0 is not supported for mpnet"),
        ("MPNetModel", {"hidden_act": "relu"}, "hidden_act='relu' is not supported"),
        ("MPNetModel", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("MPNetModel", {"num_attention_heads": 2}, "has the shape (32, 4)"),
        ("MPNetModel", {"max_position_embeddings": "x"}, "wrong type"),
        ("MPNetModel", {"architectures": ["MPNetForMultipleChoice"]}, "'MPNetForMultipleChoice'"),
        ("XLMRobertaModel", {"pad_token_id": 0}, "pad_token_id=0 is not supported for xlm_roberta"),
        ("XLMRobertaModel", {"position_embedding_type": "relative_key"}, "'relative_key'"),
        ("XLMRobertaModel", {"is_decoder": True}, "is_decoder=True"),
        (
            "XLMRobertaModel",
            {"architectures": ["XLMRobertaForCausalLM"]},
            "'XLMRobertaForCausalLM'",
        ),
        ("XLMRobertaModel", {"type_vocab_size": 2}, "has the shape (1, 32)"),
    ],
)
def test_refused_in_one_sentence(tmp_path, name, fields, said):
    folder_of(tmp_path, name)
    change(tmp_path, **fields)
    refuses(tmp_path, said)


@pytest.mark.parametrize(
    ("format", "options", "said"),
    [
        ("mpnet", {"num_classes": 2}, "classes after a pooler, and without a masked head"),
        ("mpnet", {"masked_head": False, "embedding_position": None}, "embedding_position=None"),
        ("mpnet", {"relative_buckets": 16}, "relative_buckets=16"),
        ("mpnet", {"relative_max_distance": 64}, "relative_max_distance=64"),
        ("mpnet", {"token_types": 2}, "token_types"),
        ("mpnet", {"position": "none"}, "position='none'"),
        ("xlm_roberta", {"token_types": 1}, "transformer.bias.table"),
        ("roberta", {"token_types": 1}, "transformer.bias.table"),
    ],
)
def test_models_that_a_format_has_no_place_for(tmp_path, format, options, said):
    sizes = {"dim": 32, "depth": 1, "heads": 4, "max_tokens": 16}
    model = family.mpnet_base(97, **{**sizes, **options})
    with pytest.raises(ValueError) as raised:
        family.save_pretrained(model, tmp_path / "model", format=format)
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "model").exists()


def test_xlm_roberta_stays_what_it_is(tmp_path):
    model = family.xlm_roberta_base(97, dim=32, depth=1, heads=4, max_tokens=16).eval()
    family.save_pretrained(model, tmp_path / "model", format="xlm_roberta")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model").eval()
    assert type(theirs) is transformers.XLMRobertaForMaskedLM
    close(model(IDS), theirs(IDS).logits)
