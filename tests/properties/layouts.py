"""Further layouts that data modules read, beside the one of each that ``tests/inference`` writes."""

from __future__ import annotations

import gettext
import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polib

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
from data_files import WORDS, files_of, lines, pictures, talk
from test_same_inputs import CASES

from tasks.data.base import FamilyData
from tasks.data.captioning import CaptioningData
from tasks.data.chat_tuning import ChatTuningData
from tasks.data.detection import DetectionData
from tasks.data.image_classification import ImageClassificationData
from tasks.data.image_text import ImageTextData
from tasks.data.preferences import PreferenceData
from tasks.data.question_answering import QuestionAnsweringData
from tasks.data.sentence_pairs import SentencePairsData
from tasks.data.series import SeriesData
from tasks.data.tagging import TaggingData
from tasks.data.text_classification import TextClassificationData
from tasks.data.text_to_text import TextToTextData
from tasks.data.translation import TranslationData

SPLITS = ("train", "val")


class Layout(NamedTuple):
    """A data module, its options, and what writes its files below a folder."""

    kind: type[FamilyData]
    options: dict[str, Any]
    write: Callable[[Path], Any]


def usual() -> Iterator[tuple[str, Layout]]:
    """Every data module as ``tests/inference`` has it, with all of its options."""
    for number, (kind, options) in enumerate(CASES):
        yield (
            f"{kind.__name__}{number}",
            Layout(kind, options, lambda root, k=kind: files_of(root, k)),
        )


def tar_of(root: Path, name: str, folder: Path, compressed: str = "") -> None:
    with tarfile.open(root / name, f"w:{compressed}") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder))
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def class_tars(root: Path, compressed: str) -> None:
    root.mkdir()
    for split in SPLITS:
        for name in ("cat", "dog"):
            pictures(root / "made" / name)
        tar_of(root, f"{split}.tar{compressed and '.'}{compressed}", root / "made", compressed)


def shards(root: Path) -> None:
    root.mkdir()
    for split in SPLITS:
        for path, text in zip(pictures(root / "made"), WORDS, strict=True):
            path.with_suffix(".txt").write_text(text)
        (root / "made" / "3.txt").unlink()
        (root / "made" / "3.json").write_text(json.dumps({"caption": WORDS[3]}))
        tar_of(root, f"{split}-00.tar", root / "made")


def class_table(root: Path, ending: str, several: bool = False) -> None:
    found = pictures(root)
    for split in SPLITS:
        labels = ["a", "b", "a", "b"] if not several else ["a", "b", "a,b", ""]
        rows = [
            {"file": path.name, "label": label} for path, label in zip(found, labels, strict=True)
        ]
        if ending == ".jsonl":
            lines(root / f"{split}{ending}", map(json.dumps, rows))
        else:
            mark = ";" if several else ","
            lines(
                root / f"{split}{ending}",
                [mark.join(row.values()) for row in [{"f": "file", "l": "label"}, *rows]],
            )


def voc(root: Path) -> None:
    found = pictures(root / "JPEGImages")
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for path in found:
        box = "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>12</ymax>"
        thing = f"<object><name>cat</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"
        size = f"<size><width>{33 - 2 * int(path.stem)}</width><height>{20 + int(path.stem)}</height></size>"
        text = f"<annotation><filename>{path.name}</filename>{size}{thing}</annotation>"
        (root / "Annotations" / f"{path.stem}.xml").write_text(text)
    for split in SPLITS:
        lines(root / "ImageSets" / "Main" / f"{split}.txt", [f"{path.stem}  1" for path in found])


def coco_captions(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for split in SPLITS:
        found = pictures(root / split)
        images = [{"id": i, "file_name": path.name} for i, path in enumerate(found)]
        said = [{"id": i, "image_id": i, "caption": text} for i, text in enumerate(WORDS)]
        content = {"images": images, "annotations": said}
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))


def squad(root: Path) -> None:
    root.mkdir()
    asked = [
        {"id": f"q{i}", "question": text, "answers": [{"text": "Circle", "answer_start": 6}]}
        for i, text in enumerate(WORDS)
    ]
    none = {"id": "n", "question": "what?", "answers": [], "is_impossible": True}
    paragraphs = [{"context": WORDS[3], "qas": [*asked, none]}]
    for split in SPLITS:
        content = {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (root / f"{split}.json").write_text(json.dumps(content))


def texts(root: Path, ending: str, rows: list[dict[str, Any]]) -> None:
    root.mkdir()
    for split in SPLITS:
        if ending == ".jsonl":
            lines(root / f"{split}{ending}", map(json.dumps, rows))
        else:
            mark = {".csv": ",", ".tsv": "\t"}[ending]
            header = mark.join(rows[0])
            lines(
                root / f"{split}{ending}",
                [header, *(mark.join(f'"{v}"' for v in row.values()) for row in rows)],
            )


def catalogues(root: Path, ending: str) -> None:
    root.mkdir()
    for split in SPLITS:
        file = polib.POFile()
        file.metadata = {
            "Content-Type": "text/plain; charset=UTF-8",
            "Plural-Forms": "nplurals=2; plural=(n > 1);",
        }
        file += [polib.POEntry(msgid=text, msgstr=text[::-1]) for text in WORDS]
        if ending == "po":
            file.save(str(root / f"{split}.po"))
        else:
            (root / f"{split}.mo").write_bytes(file.to_binary())
            gettext.GNUTranslations(io.BytesIO(file.to_binary()))


def tagged(root: Path) -> None:
    root.mkdir()
    rows = [
        {"tokens": text.split(), "ner_tags": ["B-x", *["O"] * (len(text.split()) - 1)]}
        for text in WORDS
    ]
    for split in SPLITS:
        lines(root / f"{split}.jsonl", map(json.dumps, rows))


def shared_talks(root: Path) -> None:
    root.mkdir()
    rows = [[{"from": "human", "value": text}, {"from": "gpt", "value": text}] for text in WORDS]
    for split in SPLITS:
        lines(root / f"{split}.jsonl", (json.dumps({"conversations": row}) for row in rows))


def whole_answers(root: Path) -> None:
    root.mkdir()
    rows = []
    for i, text in enumerate(WORDS):
        asked = talk(text, 1)
        sides = [
            [*asked, {"role": "assistant", "content": said}]
            for said in (WORDS[i - 1], f"no {text}")
        ]
        rows.append({"chosen": sides[0], "rejected": sides[1], "margin": 0.5})
    for split in SPLITS:
        lines(root / f"{split}.jsonl", map(json.dumps, rows))


CHAR = {"tokenizer": "char"}
LABELLED = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(WORDS)]
SEVERAL = [{"text": text, "label": ["a", "b"][: i % 3]} for i, text in enumerate(WORDS)]
SCORED = [
    {"sentence1": text, "sentence2": text[::-1], "score": i / 4} for i, text in enumerate(WORDS)
]
TURNED = [{"source": text, "target": text[::-1]} for text in WORDS]
MANY = [{"en": text, "fr": text[::-1], "de": text * 2} for text in WORDS]
LISTED = [{"x": [1.0 * i, 2.5], "y": [3, i], "label": "ab"[i % 2]} for i in range(4)]
STEPS = [{"x_0": i, "x_1": 2 * i, "label": "ab"[i % 2]} for i in range(4)]
FURTHER: dict[str, Layout] = {
    "tars of classes": Layout(
        ImageClassificationData, {"image_size": 16}, lambda root: class_tars(root, "")
    ),
    "compressed tars": Layout(
        ImageClassificationData, {"image_size": 16}, lambda root: class_tars(root, "gz")
    ),
    "table of classes": Layout(
        ImageClassificationData, {"image_size": 16}, lambda root: class_table(root, ".csv")
    ),
    "lines of classes": Layout(
        ImageClassificationData, {"image_size": 16}, lambda root: class_table(root, ".jsonl")
    ),
    "several classes": Layout(
        ImageClassificationData,
        {"image_size": 16, "multi_label": True},
        lambda root: class_table(root, ".csv", True),
    ),
    "classes, bad skipped": Layout(
        ImageClassificationData,
        {"image_size": 16, "on_bad": "skip"},
        lambda root: files_of(root, ImageClassificationData),
    ),
    "VOC": Layout(DetectionData, {"image_size": (40, 24)}, voc),
    "boxes, bad skipped": Layout(
        DetectionData,
        {"image_size": (40, 24), "on_bad": "skip"},
        lambda root: files_of(root, DetectionData),
    ),
    "COCO's captions": Layout(
        CaptioningData, {"image_size": (16, 16), "max_tokens": 99, **CHAR}, coco_captions
    ),
    "shards": Layout(ImageTextData, {"image_size": (16, 16), **CHAR}, shards),
    "SQuAD": Layout(QuestionAnsweringData, {"max_tokens": 96, "stride": 8, **CHAR}, squad),
    "CSV": Layout(TextClassificationData, CHAR, lambda root: texts(root, ".csv", LABELLED)),
    "JSON lines": Layout(
        TextClassificationData, CHAR, lambda root: texts(root, ".jsonl", LABELLED)
    ),
    "quotes": Layout(
        TextClassificationData, {"quotes": True, **CHAR}, lambda root: texts(root, ".tsv", LABELLED)
    ),
    "columns by number": Layout(
        TextClassificationData,
        {"text_column": 0, "label_column": 1, **CHAR},
        lambda root: texts(root, ".csv", LABELLED),
    ),
    "several labels": Layout(
        TextClassificationData,
        {"multi_label": True, **CHAR},
        lambda root: texts(root, ".jsonl", SEVERAL),
    ),
    "scores": Layout(SentencePairsData, CHAR, lambda root: texts(root, ".csv", SCORED)),
    "scores in lines": Layout(SentencePairsData, CHAR, lambda root: texts(root, ".jsonl", SCORED)),
    "texts to texts": Layout(TextToTextData, CHAR, lambda root: texts(root, ".jsonl", TURNED)),
    "po": Layout(TranslationData, CHAR, lambda root: catalogues(root, "po")),
    "mo": Layout(TranslationData, CHAR, lambda root: catalogues(root, "mo")),
    "many languages": Layout(
        TranslationData,
        {"languages": ["en", "fr", "de"], **CHAR},
        lambda root: texts(root, ".jsonl", MANY),
    ),
    "tags in lines": Layout(TaggingData, CHAR, tagged),
    "series a line": Layout(SeriesData, {}, lambda root: texts(root, ".jsonl", LISTED)),
    "steps in columns": Layout(SeriesData, {}, lambda root: texts(root, ".csv", STEPS)),
    "ShareGPT": Layout(ChatTuningData, CHAR, shared_talks),
    "whole answers": Layout(PreferenceData, CHAR, whole_answers),
}
LAYOUTS = {**dict(usual()), **FURTHER}


def first_of_each() -> list[str]:
    """One layout of each data module, with quick tokenizers, and all further ones."""
    quick = {}
    for name, layout in usual():
        if "tokenizer" not in layout.options or layout.options["tokenizer"] == "char":
            quick.setdefault(layout.kind, name)
    return [*quick.values(), *FURTHER]
