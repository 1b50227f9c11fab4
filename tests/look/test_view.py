"""What is shown of models of each kind, and the page."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import family
from family.look import attention_maps, relevance, view_of
from family.look import view as module
from family.look.figure import lit, save_figure
from family.look.page import page_of
from tasks.data.shapes import draw, sample
from tasks.data.tokenizers import make_chat_tokenizer

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
TEXTS = {"translation": "un cercle rouge", "language_modeling": "a red circle"}


@pytest.fixture(scope="module")
def picture():
    return draw(sample(3, split="test"), 64)


def loaded(name):
    return family.load(RUNS / name)


def unpacked(panel, layer):
    one = panel["layers"][layer]
    raw = torch.frombuffer(bytearray(base64.b64decode(one["weights"])), dtype=torch.uint8)
    return (raw.float() / 255).square().view(one["heads"], *panel["shape"])


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def test_a_translation():
    one = loaded("translation")
    view = view_of(one, "un cercle rouge")
    assert view.answer == one.predict(["un cercle rouge"])
    source, written, so_far = view.sides
    assert source.tokens[-1] == "<eos>" and so_far.tokens[0] == "<bos>"
    assert written.tokens[:-1] == so_far.tokens[1:]
    across = view.panels[0]
    assert across.maps[0].shape[1:] == (len(written.tokens), len(source.tokens))
    assert len(view.lens["words"]) == one.model.decoder_depth + 1
    greedy = view_of(one, "un cercle rouge", beams=1)
    assert [best[0] for best in greedy.lens["words"][-1]] == greedy.sides[1].tokens
    plain = data_of(page_of(view, "<b>"))
    for panel, drawn in zip(view.panels, plain["panels"], strict=True):
        for layer, weights in enumerate(panel.maps):
            torch.testing.assert_close(unpacked(drawn, layer), weights, atol=5e-3, rtol=0)


def test_a_language_model():
    one = loaded("language_modeling")
    view = view_of(one, "red")
    ids = torch.tensor([one.tokenizer.encode("red", special_tokens=True)])
    (stack,) = attention_maps(one.model, ids).values()
    torch.testing.assert_close(view.panels[0].maps[0], stack.own[0][0])
    assert view.sides[0].tokens[-3:] == ["r", "e", "d"]


def test_a_classified_picture(picture):
    one = loaded("image_classification_class_token")
    view = view_of(one, picture=picture)
    side = view.sides[0]
    before = one.model.num_prefix_tokens
    assert side.tokens[:2] == ["[class]", "[register 1]"][:before]
    assert side.tokens[before:] == [*range(side.grid[0] * side.grid[1])]
    best = one.predict([picture])[0]
    assert view.relevance[0]["class"] == best["label"]
    pixels = one.model.preprocess(picture)[None]
    values = relevance(one.model, pixels)[0]
    torch.testing.assert_close(
        torch.tensor(view.relevance[0]["values"]), values / values.max(), atol=1e-3, rtol=0
    )
    assert Image.Image.tobytes(side.picture) == Image.Image.tobytes(
        Image.fromarray(one.model.preprocess.restore(pixels[0]).permute(1, 2, 0).numpy())
    )


def test_detected_boxes(picture, tmp_path):
    one = loaded("detection")
    view = view_of(one, picture=picture)
    best = one.predict([picture], threshold=0.0)[0]
    assert [b["label"] for b in view.boxes] == [b["label"] for b in best[: len(view.boxes)]]
    scale = torch.tensor([64.0, 64.0, 64.0, 64.0])
    found = torch.tensor([b["box"] for b in view.boxes]) * scale
    expected = torch.tensor([b["box"] for b in best[: len(view.boxes)]])
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    pixels = one.model.preprocess(picture)[None]
    with torch.no_grad():
        boxes = one.model(pixels)["boxes"][0]
    across = attention_maps(one.model, pixels)["decoder"].across[0][0]
    corner = view.boxes[0]["box"]
    middle = torch.tensor([(corner[0] + corner[2]) / 2, (corner[1] + corner[3]) / 2])
    query = int((boxes[:, :2] - middle).abs().sum(-1).argmin())
    torch.testing.assert_close(view.panels[0].maps[0][:, 0], across[:, query])
    assert view.panels[0].maps[0].shape[-1] == view.sides[1].grid[0] * view.sides[1].grid[1]
    save_figure(view, tmp_path / "boxes.png")
    assert Image.open(tmp_path / "boxes.png").width > 100


def test_texts_that_are_classified_or_filled():
    one = loaded("text_classification")
    view = view_of(one, "the red circle is small")
    assert len(view.relevance[0]["values"]) == len(view.sides[0].tokens)
    assert view.answer[0].startswith(one.predict(["the red circle is small"])[0]["label"])


def test_pictures_with_words():
    """Captions, and questions, by models that were never trained."""
    torch.manual_seed(0)
    tokenizer = loaded("translation").tokenizer
    size, preprocess = (
        {"image_size": 16, "patch_size": 8},
        loaded("image_classification").preprocess,
    )
    config = family.TransformerConfig(dim=16, depth=2, heads=2, position="learned", max_tokens=16)
    captioner = family.Captioner(tokenizer.vocab_size, config, **size)
    asked = family.Fusion(tokenizer.vocab_size, config, num_classes=3, **size)
    for model in (captioner, asked):
        model.tokenizer, model.preprocess = tokenizer, preprocess.at(16)
    asked.labels = ["one", "two", "three"]
    picture = Image.new("RGB", (20, 20), "red")
    view = view_of(family.load(captioner), picture=picture)
    assert view.panels[0].maps[0].shape[-1] == 4 == len(view.sides[0].tokens)
    view = view_of(family.load(asked), "un cercle", picture)
    assert view.sides[0].tokens[-5:] == ["[class]", 0, 1, 2, 3]
    assert len(view.relevance) == 3 and len(view.relevance[0]["values"]) == len(
        view.sides[0].tokens
    )


@pytest.mark.parametrize("options", [{"keep_prefix": True}, {"shuffle": 2}])
def test_a_talk_about_a_picture(options):
    """Cells of the picture among the words, where its slots stand."""
    torch.manual_seed(0)
    stack = {"dim": 16, "depth": 1, "heads": 2}
    vit = family.vit_tiny(3, 8, 32, **stack)
    gpt = family.llama(60, ffn_dim=32, max_tokens=96, **stack)
    gpt.tokenizer = make_chat_tokenizer("char", ["abc <image>\nusersistant"], specials=("<pad>",))
    vit.preprocess = loaded("image_classification").preprocess.at(32)
    model = family.join_vision_language(vit, gpt, **options).eval()
    view = view_of(family.load(model), "a b", Image.new("RGB", (20, 20), "red"))
    side = view.sides[0]
    cells = [token for token in side.tokens if isinstance(token, int)]
    assert cells == [*range(side.grid[0] * side.grid[1])]
    assert len(cells) == 16 // options.get("shuffle", 1) ** 2
    assert side.tokens.count("[class]") == options.get("keep_prefix", False)
    assert view.panels[0].maps[0].shape[-1] == len(side.tokens) == len(view.lens["words"][-1])


def test_only_what_attends_to_itself_rolls_out():
    """As many words as patches make no rollout of what is read across."""
    square = [torch.rand(2, 3, 3).softmax(-1)] * 2
    assert "rollout" not in module.Panel("across", 0, 1, square).to_plain()
    assert "rollout" in module.Panel("own", 0, 0, square, rolls=True).to_plain()
    plain = view_of(loaded("translation"), "un cercle rouge").panels
    assert [panel.rolls for panel in plain] == [False, True, True]


def test_light_falls_where_it_is_read():
    side = module.Side("picture", ["[class]", 0, 1, 2, 3], None, (2, 2), (1.0, 1.0))
    light = lit(side, torch.tensor([9.0, 0.0, 1.0, 0.0, 0.0]), (4, 6))
    assert (light[:2, 3:] == 1).all() and light[2:].max() == light[:2, :3].max() == 0.22


@pytest.mark.parametrize("name", ["translation", "detection", "image_classification"])
def test_a_page_needs_nothing_else(name, picture):
    given = {"text": TEXTS[name]} if name in TEXTS else {"picture": picture}
    page = page_of(view_of(loaded(name), **given), "</script><b>")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//|@import|url\(", page)
    assert page.count("</script>") == 2 and "&lt;/script&gt;" in page and "{{" not in page


def test_refusals(picture, monkeypatch):
    one = loaded("translation")
    with pytest.raises(ValueError, match="the text is empty"):
        view_of(one, "  ")
    with pytest.raises(ValueError, match="give it a text"):
        view_of(one)
    with pytest.raises(ValueError, match="reads no picture"):
        view_of(one, "un", picture)
    with pytest.raises(ValueError, match="takes no pair"):
        view_of(one, "un", pair="deux")
    with pytest.raises(ValueError, match="tokens does not fit"):
        view_of(one, "un cercle " * 500)
    with pytest.raises(ValueError, match="nothing in a LSTMSeq2Seq attends"):
        view_of(loaded("translation_lstm"), "un")
    with pytest.raises(ValueError, match="nothing to show yet"):
        view_of(family.load(one.model, task="Cooking"), "un")
    with pytest.raises(ValueError, match="layer 9"):
        page_of(view_of(one, "un"), "un", layer=9)
    with pytest.raises(ValueError, match="head 9"):
        page_of(view_of(one, "un"), "un", head=9)
    monkeypatch.setattr(module, "MOST", 10)
    with pytest.raises(ValueError, match="too many to show"):
        view_of(one, "un cercle")
