"""Labels that a CLIP was never taught: the probabilities are those of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import family
from family.inference.zero_shot import label_vectors, zero_shot

LABELS = ["cat", "red circle", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random CLIP of transformers, with its tokenizer and its processor."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    place = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {
        **small,
        "vocab_size": 300,
        "bos_token_id": 298,
        "eos_token_id": 299,
        "pad_token_id": 299,
    }
    text["max_position_embeddings"] = 32
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    transformers.CLIPModel(config).eval().save_pretrained(place)
    chars = [chr(i) for i in range(97, 123)]
    vocab = {c: i for i, c in enumerate(chars)} | {f"{c}</w>": 40 + i for i, c in enumerate(chars)}
    vocab |= {"<|startoftext|>": 298, "<|endoftext|>": 299}
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab, [], end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 298), ("<|endoftext|>", 299)],
    )
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=32, **special
    ).save_pretrained(place)
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    sizes = [(32, 32), (40, 36), (50, 64)]
    return [Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def test_the_probabilities_are_those_of_transformers(folder, pictures):
    import transformers

    model = family.load(folder).model
    found = zero_shot(model, pictures, label_vectors(model, LABELS), batch_size=2)
    theirs = transformers.CLIPModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    seen = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    texts = words([f"a photo of a {one}" for one in LABELS], padding=True, return_tensors="pt")
    batch = {name: texts[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        logits = theirs(**batch, **seen(pictures, return_tensors="pt")).logits_per_image
    torch.testing.assert_close(found, logits.softmax(-1), rtol=1e-4, atol=1e-5)


def test_one_by_one_and_several_templates(folder, pictures):
    model = family.load(folder).model
    templates = ("a photo of a {}", "{}", "the {} is small")
    vectors = label_vectors(model, LABELS, templates)
    each = torch.stack([label_vectors(model, LABELS, [one]) for one in templates])
    torch.testing.assert_close(vectors, torch.nn.functional.normalize(each.mean(0), dim=-1))
    together = zero_shot(model, pictures, vectors)
    alone = torch.cat([zero_shot(model, [one], vectors) for one in pictures])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together.sum(1), torch.ones(3))


def test_a_sigmoid_judges_each_label_by_itself(pictures):
    torch.manual_seed(0)
    model = family.clip_small(97, dim=16, depth=1, heads=2, image_size=16, logit_bias=True).eval()
    torch.nn.init.constant_(model.logit_bias, -0.5)
    from family.inputs.preprocess import Preprocess

    model.preprocess = Preprocess((16, 16))
    vectors = torch.nn.functional.normalize(
        torch.randn(3, model.encode_text(torch.ones(1, 2).long()).shape[1])
    )
    chances = zero_shot(model, pictures, vectors)
    cosines = family.inference.embeddings.embed_pictures(model, pictures) @ vectors.T
    with torch.no_grad():
        wanted = (model.logit_scale.exp() * cosines - 0.5).sigmoid()
    torch.testing.assert_close(chances, wanted)


@pytest.mark.parametrize(
    ("labels", "templates", "said"),
    [
        (["a", "a"], ["{}"], "'a' is given twice"),
        (["a", " "], ["{}"], "none of them empty"),
        (["a"], ["a photo"], "needs one {}"),
    ],
)
def test_mistakes(labels, templates, said):
    with pytest.raises(ValueError, match=said):
        label_vectors(None, labels, templates)
