"""``family.load``: what a model makes of raw inputs, held against the model's own outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

import family
from family.heads.detection import postprocess
from family.inference.predictors import PREDICTORS
from family.inputs.encode import encode_captions
from family.inputs.preprocess import Preprocess
from family.models.sentence import SentenceEncoder
from tasks.data.tokenizers import train_tokenizer

SMALL = {"dim": 16, "depth": 1, "heads": 2}
TEXTS = ["a red circle", "two blue squares", "a"]


@pytest.fixture
def pictures(tmp_path):
    """Paths of pictures of unequal shapes."""
    paths = []
    for i, size in enumerate([(20, 16), (20, 16), (40, 30)]):
        noise = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(noise).save(paths[-1])
    return paths


def randomised(model, scale=0.3):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval()


def reads(model):
    model.tokenizer = train_tokenizer("char", TEXTS)
    return model


def sees(model, mode="squash"):
    model.preprocess = Preprocess((16, 16), mode)
    return model


def pixels(model, path):
    return model.preprocess(Image.open(path))[None]


def test_classes_of_pictures(tmp_path, pictures):
    torch.manual_seed(0)
    model = sees(randomised(family.vit_tiny(3, 8, 16, **SMALL)))
    model.labels = ["crane", "owl", "crane"]  # as ImageNet has it
    family.save_pretrained(model, tmp_path / "vit")
    loaded = family.load(tmp_path / "vit")
    assert loaded.task == "ImageClassification" and loaded.labels == model.labels
    found = loaded.predict(pictures)
    assert found == loaded.predict([str(path) for path in pictures])
    for one, path in zip(found, pictures, strict=True):
        wanted = model(pixels(model, path))[0].softmax(-1)
        names = ["crane (0)", "owl", "crane (2)"]
        assert list(one["probabilities"]) == names
        assert list(one["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=1e-5)
        assert one["label"] == names[int(wanted.argmax())]
        assert one["score"] == one["probabilities"][one["label"]]
    assert loaded.predict([]) == []


def test_pictures_in_memory_are_read_as_files_are(tmp_path, pictures):
    torch.manual_seed(0)
    loaded = family.load(sees(randomised(family.vit_tiny(3, 8, 16, **SMALL))))
    turned = Image.open(pictures[0])
    turned.getexif()[0x0112] = 6
    clear = Image.open(pictures[1]).convert("RGBA")
    clear.putalpha(60)
    for image in (turned, clear, Image.open(pictures[2]).convert("P")):
        image.save(tmp_path / "again.png", exif=image.getexif())
        assert loaded.predict([image]) == loaded.predict([tmp_path / "again.png"])
    assert loaded.predict([turned]) != loaded.predict([pictures[0]])


def test_classes_of_texts():
    torch.manual_seed(0)
    stack = {**SMALL, "max_tokens": 8}
    model = reads(randomised(family.bert_tiny(30, num_classes=2, masked_head=False, **stack)))
    loaded = family.load(model)
    assert loaded.labels == ["0", "1"] and loaded.assets["max_tokens"] == 8
    found = loaded.predict(TEXTS * 15)  # more than a batch
    assert len(found) == 45
    tokenizer = model.tokenizer
    for one, text in zip(found[-3:], TEXTS, strict=True):
        ids = [tokenizer.bos_id, *tokenizer.encode(text)[:6], tokenizer.eos_id]
        wanted = model(torch.tensor([ids]))[0].softmax(-1).tolist()
        assert list(one["probabilities"].values()) == pytest.approx(wanted, abs=1e-4)


def test_texts_go_on():
    torch.manual_seed(0)
    model = reads(randomised(family.gpt_nano(30, **SMALL, max_tokens=32)))
    loaded = family.load(model)
    ids = torch.tensor([model.tokenizer.encode("a red")])
    stops = model.tokenizer.stop_ids()
    wanted = model.generate(ids, max_new_tokens=9, stop_ids=stops)
    assert loaded.predict(["a red", "two"], max_new_tokens=9)[0] == model.tokenizer.decode(
        wanted[0].tolist()
    )
    warm = {"sampling": family.Sampling(temperature=1.5), "max_new_tokens": 9}
    drawn = [loaded.predict(["a red", "a red"], seed=seed, **warm) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    for prompts, options, said in [
        ([""], {}, "the prompt is empty"),
        (["a red"], {"max_new_tokens": 28}, "5 tokens and 28 new ones do not fit"),
        (["a red"], {"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
    ]:
        with pytest.raises(ValueError, match=said):
            loaded.predict(prompts, **options)


def test_an_unknown_character_is_refused():
    model = family.gpt_nano(30, **SMALL, max_tokens=32)
    model.tokenizer = train_tokenizer("char", TEXTS, specials=False)
    loaded = family.load(model)
    assert loaded.predict(["red"], max_new_tokens=2)
    with pytest.raises(ValueError, match="does not know the character 'z'"):
        loaded.predict(["zebra"])


def test_translation():
    torch.manual_seed(0)
    model = reads(randomised(family.transformer_tiny(30, **SMALL, max_tokens=32)))
    loaded = family.load(model)
    sentences = ["a red circle", "", "two", "red", "  ", "a"]
    found = loaded.predict(sentences, beams=2)
    tokenizer = model.tokenizer
    for sentence, made in zip(sentences, found, strict=True):
        if not sentence.strip():
            assert made == ""
            continue
        ids = [*tokenizer.encode(sentence), tokenizer.eos_id]
        options = {"stop_ids": (tokenizer.eos_id,), "pad_id": tokenizer.pad_id, "beams": 2}
        most = min(2 * len(ids) + 10, 32)
        tokens = model.generate(torch.tensor([ids]), max_new_tokens=most, **options)
        assert made == tokenizer.decode(tokens[0].tolist())
    with pytest.raises(ValueError, match="40 tokens does not fit the model's max_tokens=32"):
        loaded.predict(["a" * 39])
    with pytest.raises(ValueError, match="beams must be at least 1, not 0"):
        loaded.predict(["a"], beams=0)


def test_how_a_model_translates_is_what_it_says(monkeypatch):
    torch.manual_seed(0)
    model = reads(randomised(family.transformer_tiny(30, **SMALL, max_tokens=32)))
    loaded, seen, generate = family.load(model), [], model.generate

    def watched(ids, **options):
        seen.append((len(ids), options["beams"], set(options["stop_ids"])))
        return generate(ids, **options)

    monkeypatch.setattr(model, "generate", watched)
    loaded.predict(["a"] * 5, batch_size=2)
    eos = model.tokenizer.eos_id
    assert seen == [(2, 4, {eos}), (2, 4, {eos}), (1, 4, {eos})]
    model.generation = family.Generation(beams=3, stop_ids=(7,))
    loaded.predict(["a"])
    loaded.predict(["a"], beams=1)
    assert seen[3:] == [(1, 3, {7, eos}), (1, 1, {7, eos})]


def test_a_threshold_goes_where_the_weights_go(tmp_path, pictures):
    run = Path(__file__).parents[1] / "fixtures/runs/detection/checkpoints/best.ckpt"
    content = torch.load(run, weights_only=True)
    content["family"]["assets"]["threshold"] = 0.01
    torch.save(content, tmp_path / "best.ckpt")
    model = family.from_pretrained(tmp_path / "best.ckpt")
    family.save_pretrained(model, tmp_path / "saved")
    wanted = family.load(tmp_path / "best.ckpt").predict(pictures)
    assert any(wanted)
    for source in (model, tmp_path / "saved"):
        loaded = family.load(source)
        assert loaded.assets["threshold"] == 0.01 and loaded.predict(pictures) == wanted
    fresh = family.from_pretrained(tmp_path / "saved", num_classes=9)
    assert getattr(fresh, "threshold", None) is None  # its classes are others


def test_detection(pictures):
    torch.manual_seed(0)
    model = sees(family.DETR(3, family.TransformerConfig(**SMALL), backbone="patch", queries=5))
    model = randomised(model)
    model.labels, model.category_ids = ["cat", "dog", "owl"], [7, 8, 9]
    found = family.load(model).predict(pictures, threshold=0)
    assert len(found) == 3
    for path, objects in zip(pictures, found, strict=True):
        width, height = Image.open(path).size
        with torch.no_grad():
            wanted = postprocess(model(pixels(model, path)), [(height, width)])[0]
        assert len(objects) == len(wanted["scores"]) == 5
        for i, one in enumerate(objects):
            kind = int(wanted["labels"][i])
            assert (one["label"], one["category_id"]) == (model.labels[kind], 7 + kind)
            assert one["score"] == pytest.approx(float(wanted["scores"][i]), abs=1e-4)
            assert one["box"] == pytest.approx(wanted["boxes"][i].tolist(), abs=0.05)
    assert family.load(model).predict(pictures[:1], threshold=1) == [[]]


def test_segmentation(pictures):
    torch.manual_seed(0)
    model = sees(randomised(family.segmenter_tiny(4, 8, 16, **SMALL)))
    for path, ids in zip(pictures, family.load(model).predict(pictures), strict=True):
        width, height = Image.open(path).size
        logits = F.interpolate(model(pixels(model, path)), (height, width), mode="bilinear")
        assert ids.shape == (height, width) and ids.dtype == torch.uint8
        assert (ids == logits[0].argmax(0)).float().mean() > 0.99


def test_pictures_and_sentences(pictures):
    torch.manual_seed(0)
    towers = {**SMALL, "embed_dim": 8, "image_size": 16, "max_tokens": 12}
    loaded = family.load(sees(reads(randomised(family.clip_small(30, **towers)))))
    model = loaded.model
    cosines = loaded.predict(pictures, TEXTS[:2])
    inputs = encode_captions(model.tokenizer, TEXTS[:2], 12)
    texts = F.normalize(model.encode_text(*inputs), dim=-1)
    images = torch.cat(
        [F.normalize(model.encode_image(pixels(model, p)), dim=-1) for p in pictures]
    )
    torch.testing.assert_close(cosines, (images @ texts.T).detach())
    torch.testing.assert_close(loaded.embed(TEXTS[:2]), texts.detach())
    torch.testing.assert_close(loaded.embed(pictures=pictures), images.detach())
    assert loaded.predict([], TEXTS).shape == (0, 3)
    with pytest.raises(ValueError, match="embed takes texts, or pictures="):
        loaded.embed()


def test_sentences():
    torch.manual_seed(0)
    config = family.TransformerConfig(**SMALL, position="learned", max_tokens=32)
    model = reads(randomised(SentenceEncoder(30, config)))
    loaded = family.load(model)
    found = loaded.predict(TEXTS)
    wanted = model.encode_text(*model.tokenizer.batch(TEXTS, 32)).detach()
    torch.testing.assert_close(found, wanted)
    assert torch.equal(loaded.embed(TEXTS), found)
    with pytest.raises(ValueError, match="the text '' has no token"):
        loaded.embed([TEXTS[0], " "])
    with pytest.raises(ValueError, match="gives no vectors of pictures"):
        loaded.embed(pictures=["a.png"])


def test_a_run(tmp_path, pictures):
    """The record's task, assets and ids count, in Python as in the commands."""
    torch.manual_seed(0)
    stack = {**SMALL, "position": "learned"}
    model = randomised(
        family.ViT(3, family.TransformerConfig(**stack), image_size=16, patch_size=8)
    )
    preprocess = {"size": [16, 16], "mode": "squash"}
    record = {
        "task": "tasks.image_classification.ImageClassification",
        "model": {"class_path": "family.ViT", "init_args": {"config": stack, "patch_size": 8}},
        "arguments": {"num_classes": 3, "image_size": (16, 16)},
        "assets": {"labels": ["cat", "dog", "owl"], "preprocess": preprocess},
    }
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"family": record, "state_dict": state}, tmp_path / "best.ckpt")
    loaded = family.load(tmp_path)
    assert loaded.task == "ImageClassification" and loaded.assets == record["assets"]
    wanted = sees(model)(pixels(model, pictures[0]))[0].softmax(-1).tolist()
    assert list(loaded.predict(pictures[:1])[0]["probabilities"].values()) == pytest.approx(wanted)
    assert loaded.preprocess == Preprocess((16, 16)) and loaded.tokenizer is None


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.head(pixel_values.mean((2, 3)))


def test_a_model_of_ones_own_says_what_it_is_for(pictures):
    with pytest.raises(ValueError, match="Net is no model of transformers, timm or open_clip"):
        family.load(Net())
    loaded = family.load(Net(), task="ImageClassification")
    with pytest.raises(ValueError, match="this Net has no preprocess, which ImageClassification"):
        loaded.predict(pictures)
    sees(loaded.model).labels = ["no", "yes", "maybe"]
    with pytest.raises(ValueError, match="tells 2 classes apart, but has 3 labels"):
        loaded.predict(pictures)
    loaded.model.labels = ["no", "yes"]
    assert {one["label"] for one in loaded.predict(pictures)} <= {"no", "yes"}


def test_refused_in_one_sentence(tmp_path):
    bare = family.vit_tiny(0, 8, 16, **SMALL)
    with pytest.raises(ValueError, match="this ViT has no classes of its own yet: train it first"):
        family.load(bare)
    with pytest.raises(ValueError, match="this ViT does not say how its pictures are prepared"):
        family.load(family.vit_tiny(2, 8, 16, **SMALL))
    with pytest.raises(ValueError, match="this GPT has no tokenizer, and its model reads text"):
        family.load(family.gpt_nano(30, **SMALL))
    loaded = family.load(reads(family.gpt_nano(30, **SMALL)), task="Weaving")
    with pytest.raises(ValueError, match="is for Weaving: predict knows ImageClassification"):
        loaded.predict(["a"])
    loaded.task = "LanguageModeling"
    with pytest.raises(ValueError, match=r"predict takes lists of inputs: \['a'\], not 'a'"):
        loaded.predict("a")
    with pytest.raises(ValueError, match="none.ckpt does not exist"):
        family.load(tmp_path / "none.ckpt")
    loaded = family.load(sees(family.vit_tiny(2, 8, 16, **SMALL)))
    with pytest.raises(ValueError, match="none.png does not exist"):
        loaded.predict([tmp_path / "none.png"])
    with pytest.raises(ValueError, match="pictures of PIL's, not a int"):
        loaded.predict([3])


def test_every_task_that_predicts_is_described():
    assert all(
        f"``{name}``" in family.load(sees(family.vit_tiny(2, 8, 16, **SMALL))).predict.__doc__
        for name in PREDICTORS
    )


def test_captions_are_read_as_their_tokenizer_writes_them(tmp_path):
    """SigLIP's tokenizers put an end behind a text, and no begin before it."""
    transformers = pytest.importorskip("transformers")
    tokenizer = train_tokenizer("char", TEXTS)
    eos = tokenizer.specials["eos"]
    tokenizer.inner.post_processor = TemplateProcessing(
        single=["$A", eos], special_tokens=[(eos, tokenizer.eos_id)]
    )
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    small["num_attention_heads"] = 2
    config = transformers.SiglipConfig(
        text_config={**small, "vocab_size": 40, "max_position_embeddings": 20},
        vision_config={**small, "image_size": 16, "patch_size": 8},
    )
    torch.manual_seed(0)
    theirs = transformers.SiglipModel(config).eval()
    model = family.from_pretrained(theirs)
    model.tokenizer, model.preprocess = tokenizer, Preprocess((16, 16))
    found = family.load(model).embed(TEXTS)
    ids = [tokenizer.encode(text, special_tokens=True) for text in TEXTS]
    filled = torch.tensor([row + [model.text.fill_id] * (20 - len(row)) for row in ids])
    with torch.no_grad():
        wanted = theirs.text_model(filled).pooler_output
    torch.testing.assert_close(found, F.normalize(wanted, dim=-1), rtol=1e-5, atol=1e-5)


def test_a_text_is_no_list_of_characters(pictures):
    loaded = family.load(reads(family.bert_tiny(40, num_classes=3, masked_head=False, **SMALL)))
    for given in ({"texts": "abc"}, {"texts": 3}):
        with pytest.raises(ValueError, match="predict takes lists of inputs"):
            loaded.predict(**given)
    with pytest.raises(ValueError, match="not a int"):
        loaded.predict([3])
    clip = family.load(sees(reads(family.clip_small(40, image_size=16, **SMALL))))
    with pytest.raises(ValueError, match="embed takes lists of inputs"):
        clip.embed("a red circle")


def test_predicting_leaves_the_tokenizer_as_it_is():
    model = reads(family.bert_tiny(40, num_classes=3, masked_head=False, **SMALL))
    before = model.tokenizer.encode("a red", special_tokens=True)
    family.load(model).predict(["a red"])
    assert model.tokenizer.encode("a red", special_tokens=True) == before
