"""What is shown of segments, clips, sound, pairs of picture and text, rewards and drawings: by models that were never
trained, whose maps are held against those of the model itself."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import family
from family.inputs.audio import LogMel
from family.inputs.chat import CHATML
from family.inputs.encode import UNLIMITED, encode_captions
from family.look import attention_maps, of_everything, relevance, view_of
from family.look.figure import save_figure
from family.look.page import page_of
from family.models.member import build
from tasks.data.shapes import draw, sample
from tasks.data.tokenizers import make_chat_tokenizer, train_tokenizer
from tasks.data.unified import UnifiedData

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


@pytest.fixture(scope="module")
def picture():
    return draw(sample(3, split="test"), 20)


def ready(cls, side=16, tokenizer=None, **changes):
    """A member as its example says, with weights away from where they begin."""
    torch.manual_seed(0)
    model = build(cls, {**cls.facts.example, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.tokenizer = tokenizer
    prepare = family.load(RUNS / "image_classification").preprocess
    model.preprocess = prepare.at(side)
    return family.load(model, task=cls.facts.task)


def letters(size=40):
    made = train_tokenizer("char", ["abcdefghijklmnopqrstuvwxyz \n?.,'-<>|"], specials=SPECIALS)
    assert made.vocab_size <= size
    return made


class Passing(torch.nn.Module):
    """A mixer in whose place nothing attends."""

    def __init__(self, config):
        super().__init__()

    def forward(self, x, *told, **named):
        return x


def page_works(view):
    assert "{{" not in page_of(view, "it")


def test_segments_of_queries(picture):
    one = ready(family.EoMT)
    view = view_of(one, picture=picture)
    pixels = one.model.preprocess(picture)[None]
    (found,) = one.model.instances(pixels, 0.0)
    queries = found["queries"][: len(view.boxes)].tolist()
    masks = one.model.found(pixels)[-1].masks[0]
    for box, query in zip(view.boxes, queries, strict=True):
        whole = F.interpolate(masks[None, query : query + 1], (16, 16), mode="bilinear")[0, 0] > 0
        rows, columns = whole.nonzero().unbind(1)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        torch.testing.assert_close(torch.tensor(box["box"]) * 16, torch.stack(edges).float())
    own = attention_maps(one.model, pixels)["encoder.transformer"].own
    count = one.model.queries.num_embeddings
    segments, cells = view.panels
    assert segments.maps[0] is None and cells.maps[0] is not None  # its queries come later
    read = own[-1][0][:, queries, count:]
    torch.testing.assert_close(segments.maps[-1], read / read.sum(-1, keepdim=True))
    torch.testing.assert_close(cells.maps[0], own[0][0])
    assert segments.maps[-1].shape[-1] == len(view.sides[1].tokens) == cells.maps[-1].shape[-1]
    page_works(view)


@pytest.mark.parametrize("decoder", ["mask", "linear"])
def test_segments_of_classes(picture, decoder, tmp_path):
    """Of a picture whose sides are no multiples of the patch's."""
    one = ready(family.Segmenter, 20, decoder=decoder)
    view = view_of(one, picture=picture)
    ids, counts = one.predict([picture])[0].unique(return_counts=True)
    shares = {
        str(int(i)): f"{100 * float(n) / 400:.0f} %" for i, n in zip(ids, counts, strict=True)
    }
    assert {*view.answer} == {f"{name} {share}" for name, share in shares.items()}
    side = view.sides[1]
    assert side.grid == (3, 3) and side.covers == (1.2, 1.2)
    if decoder == "mask":
        best = int(view.answer[0].split()[0])
        maps = attention_maps(one.model, one.model.preprocess(picture)[None])
        read = maps["decoder.transformer"].own[0][0][:, 9 + best, :9]
        torch.testing.assert_close(
            view.panels[0].maps[0][:, 0, -9:], read / read.sum(-1, keepdim=True)
        )
    assert view.panels[-1].rolls
    page_works(view)
    save_figure(view, tmp_path / "segments.png")
    assert Image.open(tmp_path / "segments.png").width > 100


def test_a_clip():
    """Cells of the sheet are the tubelets that lie there."""
    one = ready(family.VideoViT, frames=8)
    frames = [Image.new("L", (16, 16), 30 * i).convert("RGB") for i in range(8)]
    view = view_of(one, clip=frames)
    side = view.sides[0]
    assert side.grid == (4, 4) and sorted(side.tokens) == [*range(16)]
    assert side.tokens[:8] == [0, 1, 4, 5, 2, 3, 6, 7]  # 2 x 2 patches of the first, of the second
    shown = side.picture.resize((32, 32))
    assert [shown.getpixel(at)[0] for at in ((3, 3), (20, 3), (3, 20), (20, 20))] == [
        0,
        60,
        120,
        180,
    ]
    pixels = torch.stack([one.model.preprocess(frame) for frame in frames])[None]
    values = relevance(one.model, pixels)[0]
    torch.testing.assert_close(
        torch.tensor(view.relevance[0]["values"]), values / values.max(), atol=1e-3, rtol=0
    )
    assert view.relevance[0]["class"] == one.predict([frames])[0]["label"]
    page_works(view)


def test_sound(tmp_path):
    """A word reads parts of a sound; what fills it up is one place more."""
    torch.manual_seed(0)
    tokenizer = family.load(RUNS / "translation").tokenizer
    config = family.TransformerConfig(dim=16, depth=1, heads=2, position="timing", max_tokens=200)
    model = family.SpeechToText(tokenizer.vocab_size, config, mels=10).eval()
    model.tokenizer, model.preprocess = tokenizer, LogMel(10, 4)
    samples = (torch.sin(torch.arange(16_000) / 9) * 9000).short()
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
        file.writeframes(samples.numpy().tobytes())
    view = view_of(family.load(model), sound=tmp_path / "tone.wav")
    sound, written = view.sides[:2]
    assert len(sound.tokens) == 50 + 1 and sound.tokens[-1] == "[silence]"
    across = view.panels[0].maps[0]
    assert across.shape == (2, len(written.tokens), 51)
    torch.testing.assert_close(across.sum(-1), torch.ones(2, len(written.tokens)))
    assert across[..., -1].mean() > 0.5  # three of four seconds
    page_works(view)
    with pytest.raises(ValueError, match=r"none\.wav cannot be read"):
        view_of(family.load(model), sound=tmp_path / "none.wav")


def test_a_picture_and_a_text(picture, tmp_path):
    one = ready(family.CLIP, tokenizer=letters())
    view = view_of(one, "a red star", picture)
    cosine = float(one.predict([picture], ["a red star"]))
    assert view.answer == [f"cosine {cosine:.3f}"]
    assert view.sides[0].tokens == ["[class]", 0, 1, 2, 3]
    seen, said = view.relevance
    assert len(seen["values"]) == 5 and len(said["values"]) == len(view.sides[said["side"]].tokens)
    assert max(seen["values"]) == max(said["values"]) == 1
    pixels = one.model.preprocess(picture)[None]
    other = attention_maps(one.model.image, pixels)["transformer"].own[0][0]
    torch.testing.assert_close(view.panels[0].maps[0], other)
    page_works(view)
    save_figure(view, tmp_path / "pair.png")
    with pytest.raises(ValueError, match="does not fit the model's 16"):
        view_of(one, "a star " * 9, picture)


def test_a_reward():
    one = ready(family.RewardModel, tokenizer=letters())
    one.model.preprocess = None
    view = view_of(one, "a cat", pair="it is")
    assert view.answer == [f"reward {one.predict(['a cat'], ['it is'])[0]:.3f}"]
    assert [found["class"] for found in view.relevance] == ["for the answer", "against it"]
    first, second = (torch.tensor(found["values"]) for found in view.relevance)
    assert len(first) == len(view.sides[0].tokens) and not torch.equal(first, second)
    one.tokenizer.chat_template = CHATML
    page_works(view)
    with pytest.raises(ValueError, match="give that as the pair"):
        view_of(one, "a cat")


def test_a_drawing(tmp_path):
    """A square reads words and what was drawn before it, and nothing behind it."""
    one = ready(family.DALLE, tokenizer=letters())
    view = view_of(one, "a star")
    drawn, read = view.sides
    count = one.model.image_tokens
    assert drawn.tokens == [*range(count)] and read.tokens[-count:] == drawn.tokens
    before = read.tokens.index("[free slots]")
    for layer in view.panels[0].maps:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, count))
        squares = layer[..., before + 1 :]
        assert not squares.triu(0).any() and squares[:, -1, :-1].all()
    page_works(view)
    save_figure(view, tmp_path / "drawing.png")


@pytest.mark.parametrize("text", ["cross", "joint"])
def test_a_drawing_out_of_noise(text, tmp_path):
    """Of each word the patches that read it, at times on the way; the last is the picture."""
    one = ready(family.DiT, tokenizer=letters(), text=text)
    model = one.model
    view = view_of(one, "a star")
    wanted = one.predict(["a star"])[0]
    sides = view.sides
    assert [side.name for side in sides[1:]] == [f"{n} % drawn" for n in (100, 75, 50, 25, 0)]
    assert sides[0].tokens == ["<bos>", "a", "\N{OPEN BOX}", "s", "t", "a", "r", "<eos>"]
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = encode_captions(model.tokenizer, ["a star"], UNLIMITED)[0]
    maps = attention_maps(model, noise, torch.zeros(1), ids)["transformer"]
    own = [m[0][:, ids.shape[1] :, : ids.shape[1]] for m in maps.own]
    read = (own[-1] if text == "joint" else maps.across[-1][0]).transpose(1, 2)
    torch.testing.assert_close(view.panels[-1].maps[-1], read / read.sum(-1, keepdim=True))
    close = np.asarray(sides[1].picture, int) - np.asarray(wanted, int)
    far = np.asarray(sides[-1].picture, int) - np.asarray(wanted, int)
    assert np.abs(close).mean() < 0.3 * np.abs(far).mean()
    page_works(view)
    save_figure(view, tmp_path / "noise.png")
    assert view_of(one, "a star", seed=1).sides[1].picture.tobytes() != sides[1].picture.tobytes()


def test_what_draws_without_words_is_refused():
    config = family.DiT.facts.example["config"].replace(mixer=f"{__name__}.Passing")
    one = ready(family.DiT, tokenizer=letters(), config=config, text="joint")
    with pytest.raises(ValueError, match="a DiT draws attends to no words"):
        view_of(one, "a star")


@pytest.fixture(scope="module")
def omni():
    data = UnifiedData(image_size=(16, 16), slots=4, examples=60)
    example = {
        **data.model_arguments,
        "config": family.Omni.facts.example["config"].replace(max_tokens=96),
    }
    return ready(family.Omni, tokenizer=data.tokenizer, **example)


@pytest.mark.parametrize("task", ["answer", "caption", "classify"])
def test_one_model_for_everything(picture, omni, task):
    text = "how many stars are there?" if task == "answer" else None
    view = view_of(omni, text, picture, task=task)
    read, written = view.sides
    assert [t for t in read.tokens if isinstance(t, int)] == [0, 1, 2, 3]
    given = {"texts": [text]} if text else {}
    assert view.answer == omni.predict(pictures=[picture], task=task, **given)
    assert written.tokens[-1] == "<eos>"
    assert read.tokens[-len(written.tokens) + 1 :] == written.tokens[:-1]
    answer, whole = view.panels
    torch.testing.assert_close(answer.maps[-1], whole.maps[-1][:, -len(written.tokens) :])
    page_works(view)


def test_its_translations(omni):
    view = view_of(omni, "a red star", task="translate")
    assert view.answer == omni.predict(["a red star"], task="translate")
    assert view.sides[0].picture is None and "star" in view.sides[0].tokens
    page_works(view)
    for given, said in (({"task": "sing"}, "'sing' is unknown"), ({"task": "draw"}, "no picture")):
        with pytest.raises(ValueError, match=said):
            view_of(omni, "a", Image.new("RGB", (8, 8)), **given)
    with pytest.raises(ValueError, match="leave the task out"):
        view_of(family.load(RUNS / "translation"), "un", task="draw")


def test_its_boxes(picture, omni, monkeypatch):
    """A box has read what its five words did; what is no box counts for none."""
    id_of = omni.tokenizer.token_to_id
    row = ["<3>", "<4>", "<5>", "<20>", "<30>", "star", "<8>", "<9>", "<40>", "<41>", "circle"]
    made = [id_of(word) for word in row]
    assert None not in made
    monkeypatch.setattr(of_everything, "make", lambda *_: [made])
    view = view_of(omni, picture=picture, task="detect")
    assert view.answer == view.sides[0].tokens == ["star", "circle"]
    assert [one["row"] for one in view.boxes] == [0, 1]
    assert view.boxes[1]["box"] == pytest.approx([9 / 48, 8 / 48, 41 / 48, 40 / 48], abs=1e-4)
    across, whole = view.panels
    start = whole.maps[-1].shape[1] - len(made) - 1
    own = whole.maps[-1][:, start + 1 : start + 6].mean(1)
    torch.testing.assert_close(across.maps[-1][:, 0], own)
    page_works(view)
    monkeypatch.setattr(of_everything, "make", lambda *_: [made[:3]])
    assert view_of(omni, picture=picture, task="detect").boxes == []


def test_its_drawings(omni):
    view = view_of(omni, "a star", task="draw", seed=3)
    wanted = omni.predict(["a star"], task="draw", seed=3)[0]
    assert view.sides[0].picture.tobytes() == wanted.tobytes()
    before = len(view.sides[1].tokens) - 4
    for layer in view.panels[0].maps:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 4))
        assert not layer[..., before:].triu(0).any()
    page_works(view)


def test_an_answer_reads_what_was_asked():
    """A row of the answer is the word that is being written: the token before it decides on it."""
    torch.manual_seed(0)
    stack = {"dim": 16, "depth": 1, "heads": 2}
    vit = family.vit_tiny(3, 8, 32, **stack)
    gpt = family.llama(60, ffn_dim=32, max_tokens=96, **stack)
    gpt.tokenizer = make_chat_tokenizer("char", ["abc <image>\nusersistant"], specials=("<pad>",))
    vit.preprocess = family.load(RUNS / "image_classification").preprocess.at(32)
    model = family.join_vision_language(vit, gpt).eval()
    view = view_of(family.load(model), "a b", Image.new("RGB", (20, 20), "red"))
    best = [words[0] for words in view.lens["words"][-1]]
    assert best[-len(view.sides[1].tokens) :] == view.sides[1].tokens
    assert math.isclose(float(view.panels[0].maps[0][0, 0].sum()), 1, rel_tol=1e-4)
