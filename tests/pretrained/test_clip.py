"""CLIP and SigLIP: files as the hub, open_clip and OpenAI have them, and what is refused."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import family
from family.inputs.preprocess import Preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
pytest.importorskip("open_clip")
import open_clip
import tokenizers
import transformers
from cases import contrast
from cases.contrast import EOS, PAD, TOKENS
from folders import change, close, config_of, message_of, refuses, rewrite, same, write
from harness import randomise
from tokenizers.models import BPE

CLIP = partial(contrast.clip, eos_token_id=EOS)
PAIRS = SimpleNamespace(batch=contrast.batch, ours=contrast.ours, theirs=contrast.theirs)
FILLED = SimpleNamespace(batch=contrast.batch, ours=contrast.ours, theirs=contrast.unmasked)


def made(build):
    torch.manual_seed(0)
    model = build().eval()
    randomise(model)
    return model


def change_tower(folder, tower, **fields):
    change(folder, **{tower: config_of(folder)[tower] | fields})


def test_buffers_of_older_files(tmp_path):
    theirs = write(CLIP(), tmp_path)
    ids = {
        f"{tower}_model.embeddings.position_ids": torch.arange(9) for tower in ("text", "vision")
    }
    rewrite(tmp_path, **ids)
    same(PAIRS, tmp_path, theirs)
    change(tmp_path, text_config_dict=None, vision_config_dict={"hidden_size": 48})
    same(PAIRS, tmp_path, theirs)
    change(tmp_path, vision_config_dict={"hidden_size": 64})
    refuses(tmp_path, "vision_config_dict", "hidden_size")


def test_end_of_text(tmp_path):
    """Of the first configs 2 is not the end, but says: the highest number."""
    theirs = write(contrast.legacy_clip(), tmp_path)
    ours = same(PAIRS, tmp_path, theirs)
    assert ours.text.eos_id == EOS
    family.save_pretrained(ours, tmp_path / "b", format="clip")
    assert config_of(tmp_path / "b")["text_config"]["eos_token_id"] == EOS
    # A vocabulary of one's own may end texts in 2, which they would misread.
    own = family.clip_small(97, dim=32, depth=1, heads=4, max_tokens=12, eos_id=2)
    with pytest.raises(ValueError, match="eos_id=2"):
        family.save_pretrained(own, tmp_path / "c", format="clip")
    with pytest.raises(ValueError, match="eos_token_id=None"):
        family.save_pretrained(
            family.clip_small(97, dim=32, depth=1), tmp_path / "c", format="clip"
        )


def test_preprocessing_goes_and_comes(tmp_path):
    write(CLIP(), tmp_path / "a")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**size).save_pretrained(tmp_path / "a")
    ours = family.from_pretrained(tmp_path / "a")
    assert ours.preprocess.mode == "crop" and ours.preprocess.resized == 32
    family.save_pretrained(ours, tmp_path / "b", format="clip")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "b")
    assert type(processor) is transformers.CLIPImageProcessor
    family.save_pretrained(ours, tmp_path / "c", format="open_clip")
    again = family.from_pretrained(tmp_path / "c")
    fields = ("size", "mode", "mean", "std", "interpolation", "resized")
    assert all(getattr(again.preprocess, n) == getattr(ours.preprocess, n) for n in fields)


@pytest.mark.parametrize(
    ("tower", "fields", "words"),
    [
        ("vision_config", {"num_channels": 1}, ["vision_config.num_channels"]),
        ("vision_config", {"hidden_act": "mish"}, ["vision_config.hidden_act", "mish"]),
        ("text_config", {"eos_token_id": [1, 2]}, ["eos_token_id"]),
        ("text_config", {"num_hidden_layers": 3}, ["text_model.encoder.layers.2"]),
        ("vision_config", {"num_hidden_layers": 2}, ["vision_model.encoder.layers.2"]),
        ("vision_config", {"patch_size": 16}, ["patch_embedding", "(48, 3, 16, 16)"]),
    ],
)
def test_what_a_config_cannot_say(tower, fields, words, tmp_path):
    write(CLIP(), tmp_path)
    change_tower(tmp_path, tower, **fields)
    refuses(tmp_path, *words)


def test_parts_are_no_whole(tmp_path):
    """A tower alone is none; nor does a model of both have classes."""
    write(CLIP(), tmp_path)
    change(tmp_path, architectures=["CLIPForImageClassification"])
    refuses(tmp_path, "CLIPForImageClassification")
    change(tmp_path, model_type="clip_vision_model", architectures=["CLIPVisionModel"])
    refuses(tmp_path, "clip_vision_model")
    write(CLIP(), tmp_path / "whole")
    assert "no classes" in message_of(tmp_path / "whole", num_classes=3)


def test_siglip_reads_the_same_however_it_is_padded(tmp_path):
    theirs = write(contrast.siglip(), tmp_path)
    ours = same(FILLED, tmp_path, theirs)
    batch = contrast.batch()
    expected = ours.encode_text(batch["input_ids"], batch["mask"])
    alone = batch["input_ids"][2:3, :3]
    close(ours.encode_text(alone), expected[2:3])
    padded = torch.nn.functional.pad(alone, (0, 4), value=50)
    mask = torch.arange(7)[None] < 3
    close(ours.encode_text(padded, mask), expected[2:3])
    with pytest.raises(ValueError, match=f"max_tokens={TOKENS}"):
        ours.encode_text(torch.ones(1, TOKENS + 1, dtype=torch.long))
    text = {n: v for n, v in config_of(tmp_path)["text_config"].items() if n != "pad_token_id"}
    change(tmp_path, text_config=text)
    assert family.from_pretrained(tmp_path).text.fill_id == PAD  # which is theirs by default


def siglip_2():
    text = {"vocab_size": 256_000, "hidden_size": 8, "num_attention_heads": 2}
    return contrast.siglip(**text, pad_token_id=transformers.SiglipTextConfig().pad_token_id)


def test_siglip_2(tmp_path):
    """Gemma's vocabulary is padded with 0; configs say nothing of it, or SigLIP's 1."""
    theirs = write(siglip_2(), tmp_path)
    config = config_of(tmp_path)
    assert config["text_config"]["pad_token_id"] == 1
    batch = contrast.batch()
    filled = {**batch, "input_ids": batch["input_ids"].masked_fill(~batch["mask"], 0)}
    cases = SimpleNamespace(batch=lambda: filled, ours=contrast.ours, theirs=contrast.unmasked)
    ours = same(cases, tmp_path, theirs)
    close(contrast.ours(ours, batch), contrast.ours(ours, filled))  # however it came padded
    for wanted, given in ((0, {}), (0, {"pad_token_id": None}), (7, {"pad_token_id": 7})):
        text = {n: v for n, v in config["text_config"].items() if n != "pad_token_id"}
        change(tmp_path, text_config={**text, **given})
        assert family.from_pretrained(tmp_path).text.fill_id == wanted
    family.save_pretrained(ours, tmp_path / "b", format="siglip")
    assert config_of(tmp_path / "b")["text_config"]["pad_token_id"] == 0
    close(
        contrast.ours(family.from_pretrained(tmp_path / "b"), filled), contrast.ours(ours, filled)
    )


def test_siglip_2_of_any_shape_is_refused(tmp_path):
    transformers.Siglip2Config().save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    refuses(
        tmp_path, "model_type='siglip2' (SigLIP 2 for pictures of any shape, NaFlex)", "siglip,"
    )


@pytest.mark.parametrize("kind", ["GemmaTokenizer", "Siglip2Tokenizer"])
def test_letters_of_siglip_2(kind, tmp_path):
    """As transformers reads such a folder: small ones, where it names SigLIP 2's own class."""
    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", "\u2581", "A", "a", "B", "b"]
    inner = tokenizers.Tokenizer(
        BPE({token: i for i, token in enumerate(vocabulary)}, [], unk_token="<unk>", fuse_unk=True)
    )
    inner.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    end = tokenizers.processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    inner.post_processor = end
    write(siglip_2(), tmp_path)
    inner.save(str(tmp_path / "tokenizer.json"))
    specials = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    fields = {"tokenizer_class": kind, "model_max_length": 64, "padding_side": "right", **specials}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs).__name__ == kind
    ours = family.from_pretrained(tmp_path)
    ids, mask = ours.tokenizer.batch(["A b B", "a"])
    expected = theirs(["A b B", "a"], padding=True, return_tensors="pt")
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"].bool())
    assert ours.text.fill_id == ours.tokenizer.pad_id == 0
    family.save_pretrained(ours, tmp_path / "b", format="siglip")
    again = family.from_pretrained(tmp_path / "b").tokenizer
    assert torch.equal(again.batch(["A b B", "a"])[0], ids)


@pytest.mark.parametrize(
    ("tower", "fields", "words"),
    [
        ("vision_config", {"vision_use_head": False}, ["vision_use_head"]),
        ("text_config", {"projection_size": 40}, ["image_projection=False", "40", "48"]),
        ("text_config", {"hidden_size": 48, "projection_size": None}, ["token_embedding"]),
    ],
)
def test_what_siglip_cannot_say(tower, fields, words, tmp_path):
    write(contrast.siglip(), tmp_path)
    change_tower(tmp_path, tower, **fields)
    refuses(tmp_path, *words)


def test_formats_of_two_libraries(tmp_path):
    """CLIP goes from one to the other; SigLIP is none of open_clip's own class."""
    theirs = made(partial(contrast.library_clip, quick_gelu=True))
    ours, batch = family.from_pretrained(theirs), contrast.batch()
    family.save_pretrained(ours, tmp_path / "a", format="clip")
    there = transformers.CLIPModel.from_pretrained(tmp_path / "a").eval()
    close(contrast.theirs(there, batch), contrast.their_logits(theirs, batch))
    back = family.from_pretrained(tmp_path / "a")
    family.save_pretrained(back, tmp_path / "b", format="open_clip")
    again = contrast.local_clip(tmp_path / "b").eval()
    close(contrast.their_logits(again, batch), contrast.their_logits(theirs, batch))
    siglip = family.from_pretrained(made(contrast.siglip))
    for format in ("clip", "open_clip", "openai_clip"):
        with pytest.raises(ValueError, match=format):
            family.save_pretrained(siglip, tmp_path / "c", format=format)
    with pytest.raises(ValueError, match="siglip"):
        family.save_pretrained(ours, tmp_path / "c", format="siglip")
    assert not (tmp_path / "c").exists()


def open_clip_folder(folder, model_cfg=None, **options):
    """As open_clip pushes it to the hub; ``options`` change its config after."""
    theirs = made(contrast.library_clip)
    ours = family.from_pretrained(theirs)
    ours.preprocess = Preprocess((32, 32), "squash")
    family.save_pretrained(ours, folder, format="open_clip")
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    for name, value in (model_cfg or {}).items():
        tower, _, field = name.rpartition(".")
        (config["model_cfg"][tower] if tower else config["model_cfg"])[field] = value
    file.write_text(json.dumps(config | options))
    return theirs


def test_folder_of_open_clip(tmp_path):
    theirs = open_clip_folder(tmp_path / "a")
    ours, batch = family.from_pretrained(tmp_path / "a"), contrast.batch()
    close(contrast.ours(ours, batch), contrast.their_logits(theirs, batch))
    assert ours.preprocess == Preprocess((32, 32), "squash")
    model = contrast.local_clip(tmp_path / "a")
    assert open_clip.get_model_preprocess_cfg(model)["resize_mode"] == "squash"
    # Pickled weights serve where there are no others.
    torch.save(theirs.state_dict(), tmp_path / "a" / "open_clip_pytorch_model.bin")
    (tmp_path / "a" / "open_clip_model.safetensors").unlink()
    close(contrast.ours(family.from_pretrained(tmp_path / "a"), batch), contrast.ours(ours, batch))
    (tmp_path / "a" / "open_clip_pytorch_model.bin").unlink()
    assert "open_clip_model.safetensors" in message_of(tmp_path / "a")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"custom_text": True}, "custom_text=True"),
        ({"vision_cfg.layers": [3, 4, 6, 3]}, "vision_cfg.layers"),
        ({"vision_cfg.timm_model_name": "vit_base"}, "timm_model_name"),
        ({"vision_cfg.pool_type": "avg"}, "pool_type"),
        ({"text_cfg.hf_model_name": "roberta"}, "hf_model_name"),
        ({"text_cfg.no_causal_mask": True}, "no_causal_mask"),
        ({"text_cfg.act_kwargs": {"approximate": "tanh"}}, "act_kwargs"),
        ({"quick_gelu": "yes"}, "quick_gelu"),
        ({"text_cfg.layers": 3}, "transformer.resblocks.2"),
    ],
)
def test_what_a_config_of_open_clip_cannot_say(fields, words, tmp_path):
    open_clip_folder(tmp_path / "a", fields)
    assert words in message_of(tmp_path / "a")


@pytest.mark.parametrize(
    ("image", "text", "words"),
    [
        ({"layers": (1, 1, 1, 1)}, {}, "ModifiedResNet"),
        ({"no_ln_pre": True}, {}, "no_ln_pre"),
        ({"pool_type": "avg"}, {}, "pooling"),
        ({"attentional_pool": True}, {}, "pooling"),
        ({"qk_norm": True}, {}, "CustomResidualAttentionBlock"),
        ({}, {"no_causal_mask": True}, "causal"),
        ({}, {"pool_type": "last"}, "text_pool_type='last'"),
        ({}, {"proj_bias": True}, "bias"),
        ({}, {"act_kwargs": {"approximate": "tanh"}}, "act_kwargs"),
        ({"norm_kwargs": {"eps": 1e-6}}, {}, "norm_kwargs"),
    ],
)
def test_models_of_open_clip_that_we_do_not_have(image, text, words):
    sizes = {"layers": 1, "width": 64, "patch_size": 8, "image_size": 32}
    theirs = open_clip.model.CLIP(
        24,
        open_clip.CLIPVisionCfg(**{**sizes, **image}),
        open_clip.CLIPTextCfg(**{"layers": 1, "width": 64, "heads": 1, "vocab_size": 97, **text}),
    )
    message = message_of(theirs)
    assert words in message and message.endswith("is not supported.")


def test_other_classes_of_open_clip():
    sizes = {"layers": 1, "width": 64, "patch_size": 8, "image_size": 32}
    theirs = open_clip.CustomTextCLIP(
        24, open_clip.CLIPVisionCfg(**sizes), open_clip.CLIPTextCfg(layers=1, width=64, heads=1)
    )
    assert "CustomTextCLIP" in message_of(theirs)


def test_layer_scale_of_open_clip():
    sizes = {"layers": 2, "width": 64, "patch_size": 8, "image_size": 32, "ls_init_value": 0.1}
    image = open_clip.CLIPVisionCfg(**sizes, mlp_ratio=4.9231)
    text = open_clip.CLIPTextCfg(layers=2, width=64, heads=1, context_length=TOKENS, vocab_size=97)
    theirs = made(partial(open_clip.model.CLIP, 24, image, text))
    ours = family.from_pretrained(theirs)
    assert ours.image.config.ffn_dim == int(64 * 4.9231) and ours.text.config.layer_scale is None
    close(contrast.ours(ours, contrast.batch()), contrast.their_logits(theirs, contrast.batch()))


def test_state_of_openai(tmp_path):
    """With the numbers that a scripted archive keeps beside its weights, in half precision too."""
    theirs = made(contrast.quick_clip)
    batch, state = contrast.batch(), theirs.state_dict()
    numbers = {"input_resolution": 32, "context_length": TOKENS, "vocab_size": 97}
    state |= {name: torch.tensor(value) for name, value in numbers.items()}
    torch.save(state, tmp_path / "clip.pt")
    for source in (state, tmp_path / "clip.pt"):
        ours = family.from_pretrained(source)
        close(contrast.ours(ours, batch), contrast.their_logits(theirs, batch))
    assert ours.preprocess.size == (32, 32) and ours.preprocess.interpolation == "bicubic"
    half = family.from_pretrained({name: value.half() for name, value in state.items()})
    assert next(half.parameters()).dtype == torch.float16
    family.save_pretrained(ours, tmp_path / "a", format="openai_clip")
    again = family.from_pretrained(tmp_path / "a")
    assert torch.equal(contrast.ours(again, batch), contrast.ours(ours, batch))


def test_states_that_are_refused(tmp_path):
    state = contrast.quick_clip().state_dict()
    resnet = {n: v for n, v in state.items() if n != "visual.proj"}
    assert "ResNet" in message_of(resnet)
    assert "ln_final.bias" in message_of({n: v for n, v in state.items() if n != "ln_final.bias"})
    assert "more.weight" in message_of({**state, "more.weight": torch.zeros(1)})
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    scripted.save(str(tmp_path / "ViT-B-32.pt"))
    assert "TorchScript" in message_of(tmp_path / "ViT-B-32.pt")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"activation": "gelu"}, "quick_gelu"), ({"image_heads": 8}, "head_width"),
     ({"text_heads": 8}, "text.heads"), ({"image_size": (32, 64)}, "image_size")],
)  # fmt: skip
def test_what_openai_cannot_say(options, words, tmp_path):
    sizes = {"dim": 64, "depth": 1, "heads": 1, "activation": "quick_gelu", "eos_id": 96}
    model = family.clip_small(97, **{**sizes, "image_size": 32, "patch_size": 8, **options})
    with pytest.raises(ValueError, match=words):
        family.save_pretrained(model, tmp_path / "a", format="openai_clip")


@pytest.mark.parametrize("build", [CLIP, contrast.siglip])
def test_another_size(build, tmp_path):
    theirs = made(build)
    kept, ours = family.from_pretrained(theirs), family.from_pretrained(theirs, image_size=48)
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    expected = theirs.vision_model(x, interpolate_pos_encoding=True).pooler_output
    if hasattr(theirs, "visual_projection"):
        expected = theirs.visual_projection(expected)
    close(ours.encode_image(x), expected)
    close(kept.encode_image(x), expected)
    assert ours.arguments["image_size"] == 48 and ours.image.image_size == (48, 48)
    family.save_pretrained(ours, tmp_path / "a", format="clip" if build is CLIP else "siglip")
    again = type(theirs).from_pretrained(tmp_path / "a").eval()
    assert again.config.vision_config.image_size == 48
