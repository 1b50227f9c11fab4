"""One model for everything: its rows, its loss, and each task by its own metric."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

import family
from family.inference.unified import objects_in
from family.losses.language_model import IGNORE, language_model_loss
from tasks.data import shapes
from tasks.data.shape_pictures import seen
from tasks.data.unified import PICTURE, TASKS, UnifiedBatches, UnifiedData
from tasks.errors import UserError
from tasks.unified import Made, Unified, boxes_score, is_drawn

SMALL = {"image_size": (16, 16), "slots": 4, "bins": 48}


def task_of(data, **options):
    """An untrained model of these rows."""
    data.setup("fit")
    example = {**family.Omni.facts.example, **data.model_arguments}
    example["config"] = example["config"].replace(max_tokens=96)
    model = family.Omni(**example)
    task = Unified(model=model, **options)
    task.adapt_model()
    return task


def test_rows_say_what_is_given_and_what_is_to_be_made():
    data = UnifiedData(**SMALL, examples=60)
    data.setup("fit")
    tokenizer = data.tokenizer
    for index, name in enumerate(TASKS):
        one = data.given("train", index)
        before, after = data.row(one)
        words = [tokenizer.inner.id_to_token(i) for i in before]
        assert one.task == name and words[:2] == ["<bos>", f"<{name}>"] and words[-1] == "<sep>"
        made = [tokenizer.inner.id_to_token(i) for i in after]
        assert made[-1] == "<eos>" and "<unk>" not in [*words, *made]
        assert words.count(PICTURE) == (
            4 if name in ("caption", "answer", "classify", "detect") else 0
        )
        assert made.count(PICTURE) == (4 if name == "draw" else 0)
    split = [data.given("val", i).task for i in range(data.count("val"))]
    assert split == [name for name in TASKS for _ in range(50)]


def test_places_are_those_of_the_true_boxes():
    data = UnifiedData(**SMALL, tasks=("detect",), examples=10)
    one = data.given("train", 3)
    found = [(each["box"], each["label"]) for each in objects_in(one.answer.split(), 48)]
    assert len(found) == len(one.scene.objects)
    assert {name for _, name in found} == {thing.shape for thing in one.scene.objects}
    row = Made("detect", "", "", one.answer, 3, [{"label": n, "box": b} for b, n in found])
    assert boxes_score([row]) == pytest.approx(1)
    moved = [{"label": n, "box": [x + 0.4 for x in b]} for b, n in found]
    assert boxes_score([row._replace(objects=moved)]) < 0.3
    assert boxes_score([row._replace(objects=[])]) == 0


def lesson():
    """Twelve rows of training, packed, with their data and a task."""
    torch.manual_seed(0)
    data = UnifiedData(**SMALL, batch_size=12, examples=60)
    task = task_of(data)
    batch = next(iter(data.train_dataloader()))
    return data, task, batch


def test_the_loss_is_that_of_the_rows_with_their_codes():
    _, task, batch = lesson()
    coded = task.coded(batch)
    picture = task.model.picture_id
    assert picture in batch["input_ids"] and picture in batch["labels"]
    assert picture not in coded["input_ids"] and picture not in coded["labels"]
    logits = task.model(coded["input_ids"], documents=batch["documents"])
    expected = language_model_loss(logits, coded["labels"])
    torch.testing.assert_close(task.loss(batch)["loss"], expected)


def test_packed_rows_are_those_that_stand_alone():
    data, task, batch = lesson()
    coded = task.coded(batch)
    assert len(batch["input_ids"]) < 12 == len(batch["task"])
    codes = iter(task.model.codes(batch["pixel_values"]))
    logits = task.model(coded["input_ids"], documents=batch["documents"])
    lines = [
        (i, batch["documents"][i] == number)
        for i in range(len(batch["input_ids"]))
        for number in range(int(batch["documents"][i].max()) + 1)
    ]
    scenes = [
        data.given("train", number).scene
        for number, name in zip(batch["number"], batch["task"], strict=True)
        if name != "translate"
    ]
    pixels = [UnifiedBatches(data, "train").pixels(scene) for scene in scenes]
    assert torch.equal(batch["pixel_values"], torch.stack(pixels))
    for (i, mine), number, name in zip(lines, batch["number"], batch["task"], strict=True):
        before, after = data.row(data.given("train", number))
        ids = torch.tensor([*before, *after])
        if name != "translate":
            ids[ids == task.model.picture_id] = next(codes)
        assert torch.equal(coded["input_ids"][i][mine], ids[:-1])
        labels = ids[1:].clone()
        labels[: len(before) - 1] = IGNORE
        assert torch.equal(coded["labels"][i][mine], labels)
        torch.testing.assert_close(logits[i][mine], task.model(ids[None, :-1])[0])


def test_it_learns_rows_by_heart_and_says_how_well_it_does_each():
    pl.seed_everything(0)
    data = UnifiedData(**SMALL, tasks=("translate", "classify"), batch_size=4, examples=4)
    data.setup("fit")
    task = task_of(data, lr=1e-2, warmup_steps=5, schedule="constant")
    data.count = lambda split: 4  # validation is of the rows that were learnt
    own = data.given
    data.given = lambda split, index: own("train", index)
    trainer = pl.Trainer(
        max_epochs=60,
        check_val_every_n_epoch=60,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["val/translate/bleu"] == pytest.approx(100)
    assert metrics["val/classify/accuracy"] == 1
    assert {"val/loss", "val/translate/loss"} <= metrics.keys()
    assert any(sample.startswith("classify: ") for sample in task.samples)


def test_drawings_are_looked_at():
    pl.seed_everything(0)
    data = UnifiedData(**SMALL, tasks=("caption", "draw"), batch_size=8, examples=16)
    data.count = lambda split: 8
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    found = pl.Trainer(**quiet).validate(task_of(data), data, verbose=False)[0]
    assert found["val/draw/true"] == 0  # it has learnt nothing
    one = data.given("train", 1)
    assert one.task == "draw"
    true = Made("draw", one.text, "", one.text, 1, [], seen(shapes.draw(one.scene, 48)))
    assert is_drawn(true)
    other = seen(shapes.draw(data.given("train", 3).scene, 48))
    assert not is_drawn(true._replace(drawn=other))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": "x"}, "data.root=x"),
        ({"tasks": ("caption", "sing")}, "data.tasks has 'sing'"),
        ({"tasks": ()}, "data.tasks is empty"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(UserError, match=said):
        UnifiedData(**options)
