"""Small data on disk, for each kind of data module."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from tasks.data.captioning import CaptioningData
from tasks.data.chat_tuning import ChatTuningData
from tasks.data.detection import DetectionData
from tasks.data.image_classification import ImageClassificationData
from tasks.data.image_regression import ImageRegressionData
from tasks.data.image_text import ImageTextData
from tasks.data.image_tokenizing import ImageTokenizingData
from tasks.data.preferences import PreferenceData
from tasks.data.prompts import PromptData
from tasks.data.question_answering import QuestionAnsweringData
from tasks.data.segmentation import SegmentationData
from tasks.data.sentence_pairs import SentencePairsData
from tasks.data.series import SeriesData
from tasks.data.tagging import TaggingData
from tasks.data.text_classification import TextClassificationData
from tasks.data.text_regression import TextRegressionData
from tasks.data.text_to_image import TextToImageData
from tasks.data.text_to_text import TextToTextData
from tasks.data.translation import TranslationData
from tasks.data.video_classification import VideoClassificationData
from tasks.data.vision_chat import VisionChatData
from tasks.data.visual_questions import VisualQuestionsData

COUNT = 4
WORDS = ["A red Circle", "two  Blue squares here ", "a", "A red Circle beside two blue squares"]


def pictures(folder, count=COUNT):
    """Half transparent, of unequal shapes, in colours that no background has."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 255, (20 + i, 33 - 2 * i, 4), np.uint8)
        paths.append(folder / f"{i}.png")
        Image.fromarray(noise, "RGBA").save(paths[-1])
    return paths


def lines(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def talk(text, i):
    """A prompt: a text, or a conversation."""
    return [{"role": "user", "content": text}] if i % 2 else text


def files_of(root, kind):
    """Data on disk with splits "train", "val" and "test" that are the same."""
    root.mkdir()
    found = []
    for split in ("train", "val", "test"):
        if kind is ImageClassificationData:
            found = [p for name in ("cat", "dog") for p in pictures(root / split / name)]
        elif kind is VideoClassificationData:
            found = [root / split / name for name in ("up/a", "up/b", "down/c")]
            for place in found:
                place.mkdir(parents=True)
                for i in range(5):
                    noise = np.random.default_rng([i, *place.name.encode()])
                    frame = noise.integers(0, 255, (20, 33, 4), np.uint8)
                    Image.fromarray(frame, "RGBA").save(place / f"{i}.png")
        elif kind is ImageRegressionData:
            found = pictures(root)
            lines(root / f"{split}.tsv", ["file\tlabel", *(f"{p.name}\t1" for p in found)])
        elif kind is ImageTokenizingData:
            found = pictures(root / split)
        elif kind is SegmentationData:
            found = pictures(root / split / "images")
            for path in pictures(root / split / "masks"):
                size = Image.open(path).size[::-1]
                Image.fromarray(np.arange(size[0] * size[1]).reshape(size).astype("u1") % 3).save(
                    path
                )
        elif kind is DetectionData:
            found = pictures(root / split)
            (root / f"{split}.json").write_text(
                json.dumps(
                    {
                        "images": [{"id": i, "file_name": p.name} for i, p in enumerate(found)],
                        "categories": [{"id": 7, "name": "cat"}],
                        "annotations": [
                            {"image_id": i, "category_id": 7, "bbox": [1, 2, 9, 9]}
                            for i in range(COUNT)
                        ],
                    }
                )
            )
        elif kind in (ImageTextData, CaptioningData, TextToImageData):
            found = pictures(root)
            rows = [f"{i}.png\t{text}" for i, text in enumerate(WORDS)]
            lines(root / f"{split}.tsv", ["file\tcaption", *rows])
        elif kind is VisionChatData:
            found, roles = pictures(root / "images"), ("user", "assistant")
            rows = [
                {
                    "image": path.name,
                    "messages": [
                        {"role": r, "content": t} for r, t in zip(roles, (text, text), strict=True)
                    ],
                }
                for path, text in zip(found, WORDS, strict=True)
            ]
            lines(root / f"{split}.jsonl", map(json.dumps, rows))
        elif kind is SeriesData:
            found = [
                np.random.default_rng(i).normal(3, 2, (5 + i, 2)).round(3) for i in range(COUNT)
            ]
            steps = [
                f"{i},{t},{x},{y},{'ab'[i % 2]},{i}"
                for i, rows in enumerate(found)
                for t, (x, y) in enumerate(rows.tolist())
            ]
            lines(root / f"{split}.csv", ["series,time,x,y,label,mass", *steps])
        elif kind is VisualQuestionsData:
            found = pictures(root / "images")
            rows = [
                {"image": path.name, "question": text, "answer": "yes"}
                for path, text in zip(found, WORDS, strict=True)
            ]
            lines(root / f"{split}.jsonl", map(json.dumps, rows))
        elif kind in (TextClassificationData, TextRegressionData):
            rows = [f"{text}\t{WORDS[i - 1]}\t{i % 2}" for i, text in enumerate(WORDS)]
            lines(root / f"{split}.tsv", ["text\tother\tlabel", *rows])
        elif kind is SentencePairsData:
            lines(root / f"{split}.tsv", [f"{text}\ta circle {i}" for i, text in enumerate(WORDS)])
        elif kind is TaggingData:
            words = [word for text in WORDS for word in (*text.split(), "")]
            lines(
                root / f"{split}.conll",
                [f"{word}\tB-{word[:1].lower()}" * bool(word) for word in words],
            )
        elif kind is QuestionAnsweringData:
            rows = [
                {"question": question, "context": WORDS[3], "answers": []} for question in WORDS
            ]
            lines(root / f"{split}.jsonl", map(json.dumps, rows))
        elif kind is ChatTuningData:
            roles = ("user", "assistant")
            rows = [
                [{"role": r, "content": t} for r, t in zip(roles, (text, text), strict=True)]
                for text in WORDS
            ]
            lines(root / f"{split}.jsonl", (json.dumps({"messages": row}) for row in rows))
        elif kind is PreferenceData:
            rows = [
                {"prompt": talk(text, i), "chosen": WORDS[i - 1], "rejected": f"a {WORDS[i - 1]}"}
                for i, text in enumerate(WORDS)
            ]
            lines(root / f"{split}.jsonl", map(json.dumps, rows))
        elif kind is PromptData:
            lines(root / f"{split}.jsonl", (json.dumps({"prompt": text}) for text in WORDS))
        elif kind is TextToTextData:
            lines(root / f"{split}.tsv", ["source\ttarget", *(f"{text}\t{text}" for text in WORDS)])
        elif kind is TranslationData:
            lines(root / f"{split}.fr", WORDS)
            lines(root / f"{split}.en", WORDS)
        else:
            lines(root / f"{split}.txt", WORDS)
    return found
