"""Where models come from: our own folders, the hub's layout, and all that can be wrong with either."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import family
from family.adapt.lora import add_lora, merge_lora
from family.pretrained.weights import INDEX, SINGLE


def tiny_gpt(**overrides):
    torch.manual_seed(0)
    return family.gpt2(61, dim=16, depth=2, heads=2, max_tokens=32, **overrides)


MEMBERS = {
    "GPT": lambda: tiny_gpt(),
    "GPT untied, bfloat16": lambda: family.llama(61, dim=16, depth=1, heads=2).bfloat16(),
    "Seq2Seq": lambda: family.transformer_tiny(61, dim=16, depth=1, heads=2, decoder_depth=2),
    "T5": lambda: family.t5_small(61, dim=16, depth=1, heads=2, head_dim=4),
    "BERT": lambda: family.bert_tiny(61, dim=16, depth=1, num_classes=3),
    "ViT": lambda: family.vit_tiny(5, 8, (16, 24), dim=24, depth=1, stem="conv"),
    "VideoViT": lambda: family.videomae_base(
        5, 4, dim=24, depth=1, heads=2, image_size=16, patch_size=8
    ),
    "Fusion": lambda: family.vilt_base(
        61, 5, dim=16, depth=1, heads=2, image_size=32, patch_size=8
    ),
    "DETR": lambda: family.detr_small(4, dim=32, heads=4, depth=1, backbone="patch"),
    "Segmenter": lambda: family.segmenter_tiny(4, 8, 32, dim=24, depth=1),
    "CLIP": lambda: family.clip_small(61, dim=16, depth=1, heads=2, logit_bias=True),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_saved_and_loaded_to_the_bit(name, tmp_path):
    model = MEMBERS[name]().eval()
    model.labels = ["a", "b"]
    family.save_pretrained(model, tmp_path / "model")
    again = family.from_pretrained(tmp_path / "model")
    assert type(again) is type(model) and not again.training and again.labels == ["a", "b"]
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key]), key
    # What is tied stays tied.
    assert len(list(model.parameters())) == len(list(again.parameters()))
    # What a folder does not hold is computed as in a model that was built by hand.
    for key, value in dict(model.named_buffers()).items():
        assert torch.equal(value, again.get_buffer(key)), key


def test_dtype(tmp_path):
    family.save_pretrained(tiny_gpt(), tmp_path / "model")
    half = family.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@pytest.fixture
def gpt2_folder(tmp_path):
    family.save_pretrained(tiny_gpt(), tmp_path / "gpt2", format="gpt2")
    return tmp_path / "gpt2"


def refuse(folder, *words):
    """The sentence that a folder is refused with; it is one, and has all these words."""
    with pytest.raises(ValueError) as caught:
        family.from_pretrained(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def edit(folder, **changes):
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


def test_shards(gpt2_folder):
    state = load_file(gpt2_folder / SINGLE)
    (gpt2_folder / SINGLE).unlink()
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, gpt2_folder / file)
    places = {name: file for file, part in parts.items() for name in part}
    (gpt2_folder / INDEX).write_text(json.dumps({"weight_map": places}))
    ids = torch.arange(9)[None]
    assert torch.equal(family.from_pretrained(gpt2_folder)(ids), tiny_gpt().eval()(ids))
    (gpt2_folder / "b.safetensors").unlink()
    refuse(gpt2_folder, "b.safetensors")
    places[names[1]] = "../b.safetensors"
    (gpt2_folder / INDEX).write_text(json.dumps({"weight_map": places}))
    refuse(gpt2_folder, "../b.safetensors")


def test_without_prefix_and_with_masks(gpt2_folder):
    # As the hub's gpt2 has it.
    state = load_file(gpt2_folder / SINGLE)
    bare = {name.removeprefix("transformer."): value for name, value in state.items()}
    bare["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    save_file(bare, gpt2_folder / SINGLE)
    ids = torch.arange(9)[None]
    assert torch.equal(family.from_pretrained(gpt2_folder)(ids), tiny_gpt().eval()(ids))


def test_pickled_weights(gpt2_folder):
    state = load_file(gpt2_folder / SINGLE)
    (gpt2_folder / SINGLE).unlink()
    torch.save(state, gpt2_folder / "pytorch_model.bin")
    ids = torch.arange(9)[None]
    assert torch.equal(family.from_pretrained(gpt2_folder)(ids), tiny_gpt().eval()(ids))
    torch.save({"weights": torch.nn.Linear(2, 2)}, gpt2_folder / "pytorch_model.bin")
    refuse(gpt2_folder, "pytorch_model.bin")


def test_truncated(gpt2_folder):
    file = gpt2_folder / SINGLE
    whole = file.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 20, 0):
        file.write_bytes(whole[:kept])
        refuse(gpt2_folder, SINGLE)


def test_weights_that_do_not_fit(gpt2_folder):
    file = gpt2_folder / SINGLE
    state = load_file(file)
    name = "transformer.h.1.mlp.c_fc.weight"
    save_file({k: v for k, v in state.items() if k != name}, file)
    refuse(gpt2_folder, name)
    save_file({**state, "score.weight": torch.ones(2, 16)}, file)
    refuse(gpt2_folder, "score.weight")
    save_file({**state, name: torch.ones(16, 60)}, file)
    refuse(gpt2_folder, name, "(60, 16)", "(64, 16)")
    save_file({**state, "lm_head.weight": torch.ones(61, 16)}, file)
    refuse(gpt2_folder, "lm_head.weight", "differs")


def test_another_architecture(gpt2_folder):
    edit(gpt2_folder, architectures=["GPT2ForSequenceClassification"])
    refuse(gpt2_folder, "GPT2ForSequenceClassification")
    edit(gpt2_folder, architectures=["WhaleForCausalLM"], model_type="whale")
    refuse(gpt2_folder, "whale")
    edit(gpt2_folder, architectures=["LlamaForCausalLM"], model_type="llama")
    refuse(gpt2_folder, "config.json")


def test_an_option_that_we_do_not_support(gpt2_folder):
    edit(gpt2_folder, scale_attn_by_inverse_layer_idx=True)
    refuse(gpt2_folder, "scale_attn_by_inverse_layer_idx=True")
    edit(gpt2_folder, scale_attn_by_inverse_layer_idx=False, activation_function="mish")
    refuse(gpt2_folder, "mish")


def test_a_fuzzed_config(gpt2_folder):
    """Whatever stands in a config: a model, or one sentence; never another error."""
    chance = random.Random(0)
    text = (gpt2_folder / "config.json").read_text()
    values = [None, -1, 0, 1, 10**30, 2.5, "x", "", True, [], {}, [1], {"a": 1}, "\ud800"]
    names = list(json.loads(text))
    for _ in range(300):
        config = json.loads(text)
        for name in chance.sample(names, chance.choice([1, 1, 2])):
            config[name] = chance.choice(values)
        (gpt2_folder / "config.json").write_text(json.dumps(config))
        try:
            family.from_pretrained(gpt2_folder)
        except ValueError as error:
            assert "\n" not in str(error)
    for start in range(0, len(text), 7):
        (gpt2_folder / "config.json").write_text(
            text[:start] + chance.choice('{}",:\x00') + text[start + 1 :]
        )
        try:
            family.from_pretrained(gpt2_folder)
        except ValueError as error:
            assert "\n" not in str(error)


def test_more_layers_than_weights(gpt2_folder):
    edit(gpt2_folder, n_layer=2**31)
    refuse(gpt2_folder, "too few", str(2**31))


def test_our_config_builds_members_alone(tmp_path):
    family.save_pretrained(tiny_gpt(), tmp_path / "model")
    for name in ("Block", "gpt2", "os.system", "TransformerConfig", None):
        edit(tmp_path / "model", **{"class": name})
        refuse(tmp_path / "model", "class=")
    edit(tmp_path / "model", **{"class": "GPT", "arguments": {"vocab_size": 61, "cfg": 1}})
    refuse(tmp_path / "model", "config.json", "GPT", "config")


def test_our_config_out_of_order(tmp_path):
    family.save_pretrained(tiny_gpt(), tmp_path / "model")
    edit(tmp_path / "model", preprocess={"size": [2, 2], "mode": "fold"})
    refuse(tmp_path / "model", "config.json", "fold")
    edit(tmp_path / "model", preprocess=None, labels="cat")
    refuse(tmp_path / "model", "config.json", "cat")


def test_sources_that_are_none(tmp_path):
    refuse(tmp_path, str(tmp_path))
    refuse(tmp_path / "nothing", "nothing", "does not exist")
    refuse("a/b/c", "a/b/c")
    (tmp_path / "file.txt").write_text("x")
    refuse(tmp_path / "file.txt", "file.txt")
    refuse(torch.nn.Linear(2, 2), "Linear")


def test_the_hub_out_of_reach(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refuse("nobody/no-such-model", "nobody/no-such-model", "hub")


def test_from_the_cache_of_the_hub(monkeypatch, gpt2_folder):
    def cached(source, **options):
        assert source == "someone/gpt2"
        return str(gpt2_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    assert family.from_pretrained("someone/gpt2").vocab_size == 61


def test_save_refuses(tmp_path, gpt2_folder):
    for arguments, word in (
        ((tiny_gpt(), gpt2_folder), "not empty"),
        ((tiny_gpt(), tmp_path / "x", "gpt3"), "gpt3"),
        ((tiny_gpt(norm="rmsnorm"), tmp_path / "x", "gpt2"), "rmsnorm"),
        ((family.vit_tiny(3, 8, 16), tmp_path / "x", "gpt2"), "ViT"),
        ((torch.nn.Linear(2, 2), tmp_path / "x"), "Linear"),
    ):
        with pytest.raises(ValueError, match=word):
            family.save_pretrained(*arguments)
    assert not (tmp_path / "x").exists()
    shutil.rmtree(gpt2_folder)


def test_a_module_handed_in_cannot_be_saved(tmp_path):
    tower = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 16))
    model = family.clip_small(61, dim=16, depth=1, heads=2, image_tower=tower, embed_dim=16)
    with pytest.raises(ValueError, match="image_tower"):
        family.save_pretrained(model, tmp_path / "x")


@pytest.mark.parametrize("num_classes", [0, -1, 2.5, "3", True])
def test_a_number_of_classes_that_is_none(num_classes, tmp_path):
    family.save_pretrained(family.vit_tiny(3, 8, 16, dim=24, depth=1), tmp_path / "model")
    with pytest.raises(ValueError, match="num_classes="):
        family.from_pretrained(tmp_path / "model", num_classes=num_classes)


def test_no_dtype(gpt2_folder):
    with pytest.raises(ValueError, match="dtype="):
        family.from_pretrained(gpt2_folder, dtype=torch.int8)


def test_json_without_end(gpt2_folder):
    (gpt2_folder / "config.json").write_text("[" * 100_000)
    refuse(gpt2_folder, "config.json")


def test_adapters_are_merged_before_saving(tmp_path):
    model = tiny_gpt()
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match="merge_lora"):
        family.save_pretrained(model, tmp_path / "model")
    merge_lora(model, remove=True)
    family.save_pretrained(model, tmp_path / "model")


def bert_like(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind.startswith("DistilBert"):
        config = transformers.DistilBertConfig(vocab_size=61, dim=16, n_layers=1, n_heads=2)
    elif kind.startswith("Roberta"):
        config = transformers.RobertaConfig(**sizes, intermediate_size=32)
    elif kind.startswith("ViT"):
        sizes.pop("vocab_size")
        config = transformers.ViTConfig(**sizes, intermediate_size=32, image_size=16, patch_size=8)
    else:
        config = transformers.BertConfig(**sizes, intermediate_size=32)
    return getattr(transformers, kind)(config)


@pytest.mark.parametrize(
    ("kind", "format"),
    [
        ("BertForMaskedLM", "bert"),
        ("BertModel", "bert"),
        ("RobertaForMaskedLM", "roberta"),
        ("RobertaModel", "roberta"),
        ("DistilBertForMaskedLM", "distilbert"),
        ("DistilBertModel", "distilbert"),
        ("ViTModel", "vit"),
    ],
)
def test_new_classes_in_the_place_of_another_head(kind, format, tmp_path):
    """What is fine-tuned has the shape that the format has for classes, and can be saved back."""
    theirs = bert_like(kind)
    model = family.from_pretrained(theirs, num_classes=3)
    family.save_pretrained(model, tmp_path / "tuned", format=format)
    again = family.from_pretrained(tmp_path / "tuned")
    assert again.num_classes == 3
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
