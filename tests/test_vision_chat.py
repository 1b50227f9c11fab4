"""Conversations about pictures: the data, what learns in each stage, and the commands that use a run."""

from __future__ import annotations

import json

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import family
import tasks
from family.inference.vision_chat import talk_about_pictures
from family.inputs.image_slots import IMAGE, image_id_of
from family.inputs.preprocess import Preprocess
from family.losses.language_model import IGNORE
from tasks.cli import main
from tasks.data.tokenizers import make_chat_tokenizer
from tasks.data.vision_chat import VisionChatData
from tasks.errors import UserError
from tasks.training.finetuning import LoRA, load_source
from tasks.vision_chat import VisionChat

GIVEN = {"tokenizer": "char", "slots": 4, "image_size": (16, 16), "context": 160}
STACK = {"dim": 16, "depth": 1, "heads": 2, "max_tokens": 160}


def talk(*said, **more):
    roles = ("user", "assistant") * len(said)
    messages = [{"role": r, "content": t} for r, t in zip(roles, said, strict=False)]
    return {"messages": messages, **more}


ROWS = [
    talk("what is it?", "red", image="0.png"),
    talk(f"a {IMAGE} b {IMAGE}", "two", images=["1.png", "2.png"]),
    talk("and here?", "blue", f"<|im_end|> {IMAGE}", "green", images=["3.png"], kind="colour"),
]


def folder(root, rows=ROWS, splits=("train", "val")):
    (root / "images").mkdir(exist_ok=True)
    for i in range(4):
        Image.new("RGB", (20, 16), (60 * i, 0, 0)).save(root / "images" / f"{i}.png")
    for split in splits:
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root)


def reds(pixels):
    """Which picture each is."""
    seen = Preprocess((16, 16)).restore(pixels).float()
    return [round(float(one[0].mean()) / 60) for one in seen]


# --- Data ---


def test_pictures_stand_where_they_are_written_or_first(tmp_path):
    data = VisionChatData(folder(tmp_path), batch_size=8, **GIVEN)
    data.setup("fit")
    batch, tokenizer = next(iter(data.val_dataloader())), data.tokenizer
    image_id = image_id_of(tokenizer)
    assert data.model_arguments == {
        "vocab_size": image_id,
        "image_id": image_id,
        "image_size": (16, 16),
    }
    # Rows come in the order of their lengths, their pictures with them.
    assert batch["number"] == [1, 0, 2] and reds(batch["pixel_values"]) == [1, 2, 0, 3]
    assert batch["pictures"] == [2, 1, 1] and batch["kind"] == ["", "", "colour"]
    texts = []
    for row in batch["input_ids"][[1, 0, 2]].tolist():
        assert row.count(image_id) % 4 == 0
        texts.append(tokenizer.inner.decode(row, skip_special_tokens=False))
    slots, begin = IMAGE * 4, "<|im_start|>user\n"
    assert texts[0].startswith(f"{begin}{slots}\nwhat is it?<|im_end|>")
    assert texts[1].startswith(f"{begin}a {slots} b {slots}<|im_end|>")
    assert f"{begin}<|im_end|> {slots}<|im_end|>" in texts[2]
    # What a user writes ends no turn.
    assert batch["input_ids"][2].tolist().count(tokenizer.token_to_id("<|im_end|>")) == 3
    said = batch["labels"][0][batch["labels"][0] != IGNORE].tolist()
    assert tokenizer.decode(said) == "two"


def test_packed_rows_keep_their_pictures_in_order(tmp_path):
    data = VisionChatData(folder(tmp_path, ROWS * 4), batch_size=2, **GIVEN)
    data.setup("fit")
    image_id = image_id_of(data.tokenizer)
    for batch in data.train_dataloader():
        shown, expected = reds(batch["pixel_values"]), []
        for ids, documents in zip(batch["input_ids"], batch["documents"], strict=True):
            for number in range(int(documents.max()) + 1):
                text = data.tokenizer.decode(ids[documents == number].tolist())
                expected += [0] if "what" in text else [1, 2] if "two" in text[-20:] else [3]
        assert shown == expected
        assert int((batch["input_ids"] == image_id).sum()) == 4 * len(shown)


def test_the_built_in_world(tmp_path):
    options = {**GIVEN, "tokenizer": "bpe", "vocab_size": 400}
    data = VisionChatData(examples=40, batch_size=4, **options)
    data.setup("fit")
    kinds = {row.kind for row in data.rows("train")}
    assert kinds == {"description", "count", "colour", "size", "place", "existence"}
    assert next(iter(data.train_dataloader()))["pixel_values"].shape[1:] == (3, 16, 16)


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        (talk("a", "b"), {}, "line 4 needs a picture in image, .* image is None"),
        (talk("a", "b", images=[]), {}, r"images is \[\]"),
        (talk("a", "b", image="9.png"), {}, "line 4: .*9.png does not exist"),
        (
            talk(f"{IMAGE}{IMAGE}", "b", image="1.png"),
            {},
            "line 4: <image> stands 2 times .* 1 pic",
        ),
        (talk(f"{IMAGE}", "b", images=["1.png", "2.png"]), {}, "1 times in .* with 2 pictures"),
        (
            talk("a", f"b {IMAGE}", image="1.png"),
            {},
            "line 4: <image> stands in what the assistant",
        ),
        (
            talk("a" * 200, "b", f"c {IMAGE}", "d", image="1.png"),
            {},
            "line 4: 1 pictures of 4 .*160",
        ),
        (talk("a", "b" * 200, f"c {IMAGE}", "d", image="1.png"), {}, "slots of pictures are never"),
        (ROWS[0], {"slots": 150}, "line 1: 1 pictures of 150 tokens each"),
        (ROWS[0], {"slots": None}, "data.slots is missing"),
        (ROWS[0], {"image_size": None}, "data.image_size is missing"),
    ],
)
def test_what_is_wrong_is_said_before_training(tmp_path, row, options, said):
    data = VisionChatData(folder(tmp_path, [*ROWS, row]), **{**GIVEN, **options})
    with pytest.raises(UserError, match=said):
        data.prepare_data()
        data.setup("fit")


def test_a_picture_that_is_none(tmp_path):
    root = folder(tmp_path)
    (tmp_path / "images" / "2.png").write_text("no")
    with pytest.raises(UserError, match=r"train.jsonl line 2: .*2.png"):
        VisionChatData(root, **GIVEN).setup("fit")


def test_a_long_answer_loses_its_end_alone(tmp_path):
    row = talk("a", "b" * 300, image="1.png")
    data = VisionChatData(folder(tmp_path, [row]), **GIVEN)
    data.setup("fit")
    assert len(data.conversations("train")[0].input_ids) == GIVEN["context"]


# --- The model and its stages ---


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of a picture tower and of a language model."""
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    learned = family.TransformerConfig(**{**STACK, "position": "learned"})
    vit = family.ViT(3, learned, 16, 8)
    vit.preprocess, vit.labels = Preprocess((16, 16)), ["a", "b", "c"]
    gpt = family.GPT(80, family.TransformerConfig(**STACK, causal=True, position="rotary"))
    letters = [json.dumps(ROWS), "user\nassistant <|>_"]
    gpt.tokenizer = make_chat_tokenizer("char", letters, specials=("<pad>", "<eos>"))
    family.save_pretrained(vit, root / "vision")
    family.save_pretrained(gpt, root / "language")
    return {name: str(root / name) for name in ("vision", "language")}


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def fitted(root, **options):
    task = VisionChat(lr=0.01, warmup_steps=0, schedule="constant", **options)
    data = VisionChatData(root, context=160, batch_size=2)
    load_source(task, data, task.pretrained or task.parts, training=True)
    before = {name: p.detach().clone() for name, p in task.build.model.named_parameters()}
    trainer(max_steps=2, limit_val_batches=0).fit(task, data)
    state = {n.replace(".base", ""): p for n, p in task.model.named_parameters()}
    changed = {n for n, p in before.items() if not torch.equal(p, state[n])}
    return task, changed, {n for n in state if n not in before}


def test_each_stage_trains_what_it_should(tmp_path, parts):
    root = folder(tmp_path)
    everything = {"vision", "projection", "language"}

    def first(names):
        return {name.split(".")[0] for name in names}

    _, changed, _ = fitted(root, freeze=["vision.*", "language.*"], **parts)
    assert first(changed) == {"projection"}
    _, changed, _ = fitted(root, freeze=["vision.*"], **parts)
    assert first(changed) == {"projection", "language"}
    _, changed, _ = fitted(root, **parts)
    assert first(changed) == everything
    task, changed, new = fitted(root, lora=LoRA(rank=2), **parts)
    assert first(changed) == {"projection"} and first(new) == {"language"} and new
    assert task.lora.targets == ["language.*.qkv", "language.*.out"]


def test_a_run_of_two_stages_answers(tmp_path, parts, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path, splits=("train", "val", "test"))
    common = [
        *("fit", "--config=vision_chat/shapes", "--data.root=.", "--data.context=160"),
        *("--data.batch_size=2", "--trainer.accelerator=cpu", "--model.warmup_steps=0"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    ]
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=1"]
    sources = [f"--model.{name}={path}" for name, path in parts.items()]
    freeze = "--model.freeze=[vision.*, language.*]"
    main([*common, *steps, *sources, freeze, "--run_folder=one"])
    steps = ["--trainer.max_steps=3", "--trainer.val_check_interval=1"]
    main(["resume", "one", *steps])  # goes on from the checkpoint, not from the parts
    main([*common, *steps, "--model.pretrained=one", "--run_folder=two"])
    found = json.loads((tmp_path / "two" / "metrics-fit.json").read_text())["metrics"]
    assert {"val/exact", "val/exact_colour", "val/exact_other"} <= found.keys()
    capsys.readouterr()
    picture = "images/1.png"
    main(["ask", "two", picture, "--question=what is it?", "--format=jsonl"])
    said = json.loads(capsys.readouterr().out)
    main(["caption", "two", picture, "--format=jsonl"])
    caption = json.loads(capsys.readouterr().out)["caption"]
    loaded = family.load("two")
    assert loaded.task == "VisionChat"
    assert loaded.predict([picture], ["what is it?"]) == [said["answer"]]
    assert loaded.predict([picture]) == [caption]
    for inputs, words in (
        (([picture], ["a", "b"]), "1 pictures but 2 questions"),
        (([picture], [" "]), "a question is empty"),
        (([picture], [f"{IMAGE} {IMAGE}"]), "<image> stands 2 times"),
        (([picture], ["a" * 300]), "no room for an answer"),
    ):
        with pytest.raises(ValueError, match=words):
            loaded.predict(*inputs)
    main(["test", "two"])
    assert "test/exact" in capsys.readouterr().out


def test_an_answer_is_not_cut_for_a_neighbours_longer_question(parts, monkeypatch):
    model = family.join_vision_language(*map(family.from_pretrained, parts.values())).eval()
    monkeypatch.setattr(type(model.tokenizer), "stop_ids", lambda self: set())
    numbers = lambda self, ids: " ".join(map(str, ids))  # noqa: E731
    monkeypatch.setattr(type(model.tokenizer), "decode", numbers)
    pictures = [Image.new("RGB", (16, 16))] * 3
    questions = ["a", "a" * 90, "b"]
    together = talk_about_pictures(model, pictures, questions)
    alone = [talk_about_pictures(model, pictures[:1], [one])[0] for one in questions]
    assert together == alone and len(alone[0].split()) == 89 + len(alone[1].split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vision": "a"}, "model.vision without model.language"),
        ({"language": "a"}, "model.language without model.vision"),
        (
            {"vision": "a", "language": "b", "pretrained": "c"},
            "model.pretrained beside model.vision",
        ),
        ({"lora": LoRA()}, "model.lora without model.pretrained"),
    ],
)
def test_sources_that_do_not_go_together(options, said):
    with pytest.raises(UserError, match=said):
        VisionChat(**options)


def test_models_that_do_not_fit(tmp_path, parts):
    data = VisionChatData(folder(tmp_path), **GIVEN)
    with pytest.raises(UserError, match="a GPT does not read pictures among words"):
        task = VisionChat(pretrained=parts["language"])
        load_source(task, data, parts["language"], training=True)
    with pytest.raises(UserError, match="vision must be a ViT, not a GPT"):
        task = VisionChat(vision=parts["language"], language=parts["language"])
        load_source(task, data, task.parts, training=True)
    task = VisionChat(**parts)
    for given, said in (
        ({"slots": 9}, "data.slots=9, but the model has 4 for a picture"),
        (
            {"image_size": (8, 8)},
            r"data.image_size=\(8, 8\), but the model's pictures are \(16, 16\)",
        ),
    ):
        with pytest.raises(UserError, match=said):
            load_source(task, VisionChatData(str(tmp_path), **given), task.parts, training=True)
    example = family.VisionLanguage.facts.example
    described = {name: example[name] for name in ("vision", "language")}
    new = VisionChatData(folder(tmp_path, ROWS[:1]), **{**GIVEN, "slots": 9, "context": 48})
    task = VisionChat(lambda **given: family.VisionLanguage(**described, **given))
    with pytest.raises(UserError, match="data.slots=9, but the model has 4 vectors"):
        trainer(max_steps=1).fit(task, new)
    assert tasks.VisionChat is VisionChat


def test_no_picture_is_in_two_splits(tmp_path):
    """Rows that share one of several pictures stay together."""
    rows = [
        talk(f"{IMAGE}{IMAGE}what?", "red", images=[f"{i // 2}.png", f"{2 + i // 2}.png"])
        for i in range(4)
    ]
    rows += [talk("what?", "red", images=[f"{i}.png"]) for i in range(4)]
    root = folder(tmp_path, rows, ("all",))
    data = VisionChatData(f"{root}/all.jsonl", **GIVEN)
    _, groups = data.kinds(data.read(tmp_path / "all.jsonl"))
    assert [groups[i] == groups[j] for i, j in ((0, 4), (0, 6), (2, 5), (2, 7), (0, 2))] == [
        *[True] * 4,
        False,
    ]
