"""Every example drawn once, a metric of the bootstrap is the one that the test logs; drawn otherwise,
that of such a test set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
import yaml
from scipy import stats

from tasks.cli import main
from tasks.compare.metrics import METRICS
from tasks.detection import Detection
from tasks.training.coco_metrics import coco_table, matches

CATEGORIES = (3, 7, 9, 12)
WORDS = ["a", "red", "circle", "and", "two", "blue", "squares", "are", "left", "of", "the", "star"]


def once(name, rows):
    return METRICS[name](rows)(np.ones((1, len(rows))))[0]


def sentences(count: int, wrong: float, seed: int) -> list[dict[str, str]]:
    """Random sentences, each word replaced with this chance."""
    random, made = np.random.default_rng(seed), []
    truth = np.random.default_rng(99)
    for _ in range(count):
        true = list(truth.choice(WORDS, truth.integers(1, 12)))
        guess = [random.choice(WORDS) if random.random() < wrong else word for word in true]
        made.append({"true": " ".join(true), "made": " ".join(guess)})
    return made


# --- Texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_bleu_is_sacrebleus(wrong, count):
    rows = sentences(count, wrong, seed=count)
    truth = [[row["true"] for row in rows]]
    for name, lowercase in (("bleu", False), ("bleu_lowercase", True)):
        wanted = sacrebleu.BLEU(lowercase=lowercase).corpus_score([r["made"] for r in rows], truth)
        assert once(name, rows) == pytest.approx(wanted.score, rel=1e-9, abs=1e-9)


def test_bleu_of_nothing_is_zero():
    assert once("bleu", [{"made": "", "true": "a red circle"}]) == 0


@pytest.mark.parametrize("name", ["spearman", "pearson"])
def test_correlations_are_scipys_of_the_rows_drawn(name):
    random = np.random.default_rng(0)
    numbers = np.stack([random.integers(0, 6, 40), random.integers(0, 9, 40) / 3], 1)
    rows = [{"true_number": true, "made_number": made} for true, made in numbers.tolist()]
    drawn = random.multinomial(40, [1 / 40] * 40, size=5).astype(float)
    of_scipy = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[name]
    for times, found in zip(drawn, METRICS[name](rows)(drawn), strict=True):
        sides = numbers.repeat(times.astype(int), 0).T
        assert found == pytest.approx(of_scipy(*sides).statistic, abs=1e-9)
    assert once(name, [{"true_number": 1.0, "made_number": float(i)} for i in range(4)]) == 0


def test_rows_without_what_a_metric_needs():
    for name, metric in METRICS.items():
        assert metric([]) is None, name
        assert metric([{"line": 0}, {"line": 1}]) is None, name
    half = [{"loss": 1.0, "tokens": 2, "correct": 1}, {"tokens": 2}]
    assert METRICS["loss"](half) is METRICS["accuracy"](half) is None


# --- Boxes -----------------------------------------------------------------------------------


def scattered(seed: int, pictures: int = 30):
    """Truth with crowds and results with ties, as COCO's evaluation takes them."""
    random = np.random.default_rng(seed)
    true, found = [], []

    def place():
        return [*random.integers(0, 50, 2).tolist(), *random.integers(5, 40, 2).tolist()]

    def find(picture, category, box):
        score = round(float(random.random()), 1)
        found.append({**at(picture, category, box), "score": score})

    def at(picture, category, box):
        return {"image_id": picture, "category_id": int(category), "bbox": box}

    ids = random.permutation(1000)[:pictures].tolist()
    for picture in ids:
        for _ in range(random.integers(0, 6)):
            box, category = place(), random.choice(CATEGORIES[:-1])  # one has no object
            more = {"area": box[2] * box[3], "iscrowd": int(random.random() < 0.2)}
            true.append({"id": len(true) + 1, **at(picture, category, box), **more})
            for _ in range(random.integers(0, 4)):
                near = (np.array(box) + random.integers(-2, 3, 4)).clip(1).tolist()
                find(picture, category, near)
        for _ in range(random.integers(0, 9)):
            find(picture, random.choice(CATEGORIES), place())
    for _ in range(150):  # more than count
        find(ids[0], CATEGORIES[0], place())
    images = [{"id": i, "file_name": "", "height": 100, "width": 100} for i in ids]
    named = [{"id": i, "name": str(i)} for i in CATEGORIES]
    return {"info": {}, "images": images, "annotations": true, "categories": named}, found


def rows_of(truth, found):
    rows = []
    for picture in sorted(image["id"] for image in truth["images"]):
        true, made = (
            [one for one in side if one["image_id"] == picture]
            for side in (truth["annotations"], found)
        )
        objects = [one["category_id"] for one in true if not one["iscrowd"]]
        rows.append({"line": picture, "objects": objects, "found": matches(true, made)})
    return json.loads(json.dumps(rows))


@pytest.mark.parametrize("seed", range(8))
def test_map_is_cocos(seed):
    truth, found = scattered(seed)
    rows, table = rows_of(truth, found), coco_table(truth, found)
    assert table["map"] > 0.03
    assert max(len(row["found"]) for row in rows) >= 100
    for name in ("map", "map_50", "map_75"):
        assert once(name, rows) == pytest.approx(table[name], abs=1e-9)


def test_map_of_a_drawn_test_set_is_cocos():
    truth, found = scattered(1)
    # Two equal scores in one picture would be taken in another order if it were drawn twice.
    for one, score in zip(found, np.random.default_rng(0).random(len(found)), strict=True):
        one["score"] = float(np.float32(score))
    rows = rows_of(truth, found)
    drawn = np.random.default_rng(0).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), 3)
    made = METRICS["map"](rows)(drawn.astype(float))
    for times, value in zip(drawn, made, strict=True):
        again: dict = {**truth, "images": [], "annotations": []}
        results = []
        for row, count in zip(rows, times, strict=True):
            for copy in range(count):
                new = row["line"] * 100 + copy
                again["images"].append({"id": new, "file_name": "", "height": 100, "width": 100})
                for side, target in (
                    (truth["annotations"], again["annotations"]),
                    (found, results),
                ):
                    mine = [one for one in side if one["image_id"] == row["line"]]
                    target += [{**one, "image_id": new} for one in mine]
        for number, one in enumerate(again["annotations"]):
            one["id"] = number + 1
        assert value == pytest.approx(coco_table(again, results)["map"], abs=1e-9)


def test_map_of_no_boxes_or_no_objects():
    assert once("map", [{"objects": [1], "found": []}]) == 0
    assert once("map", [{"objects": [], "found": matches([], [])}]) == 0
    false = matches([], [{"category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}])
    assert false == [[1, 0.5, 0, 0]]
    assert once("map", [{"objects": [], "found": false}]) == 0


def test_scores_keep_their_order_in_few_digits():
    first = torch.tensor(0.1)
    scores = [float(first), float(torch.nextafter(first, torch.tensor(1.0)))]
    boxes = [{"category_id": 1, "bbox": [0, 0, 1, 1], "score": score} for score in scores]
    written = [row[1] for row in matches([], boxes)]
    assert written[0] > written[1] == 0.1
    assert len(str(written[0])) < 12


# --- Tasks -----------------------------------------------------------------------------------

FIT = {
    "max_steps": 2,
    "val_check_interval": 2,
    "limit_val_batches": 1,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "callbacks": [{"class_path": "tasks.compare.measure.Outcomes"}],
}


def outcomes_of(config: str, *options: str):
    """Rows and logged metrics of a test after two steps."""
    Path("fit.yaml").write_text(yaml.safe_dump({"trainer": FIT}))
    given = [f"--config={config}", "--config=fit.yaml", *options]
    main(["fit", *given, "--run_folder=run"])
    main(["test", *given, "--ckpt_path=run", "--run_folder=run/test"])
    lines = Path("run/test/outcomes.jsonl").read_text("utf-8").splitlines()
    metrics = json.loads(Path("run/test/metrics-test.json").read_text())["metrics"]
    return [json.loads(line) for line in lines], metrics


def check(rows, metrics, *names):
    for name in names:
        assert once(name, rows) == pytest.approx(metrics[f"test/{name}"], rel=1e-5), name


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_language_model_tells_the_loss_of_each_window():
    config = "--model.model.init_args.config"
    options = [f"{config}.dim=32", f"{config}.depth=1", f"{config}.ffn_dim=32"]
    rows, metrics = outcomes_of("gpt/shapes", *options, "--data.context=100")
    assert rows[0]["tokens"] == 100 > rows[-1]["tokens"]
    check(rows, metrics, "loss", "perplexity", "bits_per_byte")


@pytest.mark.slow
def test_segmentation_tells_the_pixels_of_each_picture():
    options = ["--data.examples=200", "--data.batch_size=16"]
    rows, metrics = outcomes_of("segmentation/shapes", *options)
    assert len(rows) == 100
    assert sum(rows[0]["pixels_true"]) == sum(rows[0]["pixels_made"]) == 64 * 64
    check(rows, metrics, "miou")


@pytest.mark.slow
def test_detection_tells_the_matches_of_each_picture(monkeypatch):
    def near(task, outputs, targets):
        """Boxes near the true ones, some of a wrong class."""
        made = []
        for target in targets:
            count = len(target["labels"])
            scale = torch.tensor([*target["size"]] * 2).flip(0)
            middle, size = target["boxes"][:, :2], target["boxes"][:, 2:]
            far = 0.4 + 0.2 * torch.rand(count, 2)
            boxes = torch.cat([middle - size / 2, middle + size * far], 1) * scale
            labels = (target["labels"] + (torch.rand(count) < 0.2)) % 3
            made.append({"boxes": boxes, "labels": labels, "scores": torch.rand(count)})
        return made

    monkeypatch.setattr(Detection, "boxes", near)
    options = ["--data.examples=200", "--data.image_size=[64,64]"]
    rows, metrics = outcomes_of("detection/shapes", *options)
    assert len(rows) == 100
    assert metrics["test/map"] > 0.05
    check(rows, metrics, "map", "map_50", "map_75")


def test_several_tasks_count_alike_whatever_their_sizes():
    long, short = "a red circle above a star", "yes"
    rows = [
        {"task": "tell", "made": long, "true": long, "exact_match": 1.0, "f1": 1.0},
        {"task": "tell", "made": "a red star", "true": long, "exact_match": 0.0, "f1": 0.5},
        *[{"task": "ask", "made": "no", "true": short, "exact_match": 0.0, "f1": 0.0}] * 6,
    ]
    once = np.ones((1, len(rows)))
    assert METRICS["exact_match"](rows)(once) == pytest.approx([0.25])
    assert METRICS["f1"](rows)(once) == pytest.approx([0.375])
    alone = METRICS["bleu"]([{**row, "task": ""} for row in rows[:2]])(once[:, :2])
    assert METRICS["bleu"](rows)(once) == pytest.approx(alone)  # short answers have none
