"""What is shown of a model and one input, by the model's task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from family.inference.batches import Picture
from family.inference.clips import Clip
from family.inputs.series import Steps
from family.look import (
    of_clips,
    of_drawings,
    of_everything,
    of_pictures,
    of_segments,
    of_series,
    of_texts,
)
from family.look.maps import check_attends
from family.look.view import View


def view_of(
    loaded: Any,
    text: str | None = None,
    picture: Picture | None = None,
    *,
    pair: str | None = None,
    clip: Clip | None = None,
    sound: str | Path | None = None,
    series: Steps | None = None,
    task: str | None = None,
    **options: Any,
) -> View:
    """What a model makes of one input, and where it looks meanwhile.

    Args:
        loaded: what :func:`family.load` gives.
        text: what it reads, or what is asked of the picture or may tell of it.
        picture: of PIL's, or a path.
        pair: the second text, of a model of pairs; the text that a question is about; the answer to be rewarded.
        clip: a folder of frames, a video file, or a list of frames.
        sound: a wav file.
        series: an array ``(steps, channels)``, or lists of steps by channel, in the data's own unit.
        task: of a model for everything, the word for what is to be done: answer, caption, classify, detect,
            translate, draw; None is the first.
        options: of a translation ``source`` and ``target``, the languages, and ``beams``; of what is drawn ``seed``.

    Raises:
        ValueError: a model of another task or without attention, or an input that is missing, empty, or
            too long for the model or a page.
    """
    needs, reader = reads(loaded, task), reader_of(loaded, task)
    given = {
        "text": text,
        "picture": picture,
        "clip": clip,
        "sound": sound,
        "series": series,
        "pair": pair,
    }
    for name in (*options, *(["pair"] if pair is not None else [])):
        if name not in reader.takes:
            raise ValueError(f"{loaded.origin} is for {loaded.task}, which takes no {name}.")
    for name, value in given.items():
        if value is None and name in needs:
            raise ValueError(f"{loaded.origin} is for {loaded.task}: give it a {name}.")
        if isinstance(value, str) and name in ("text", "pair") and not value.strip():
            raise ValueError(f"the {name} is empty: give some words.")
        if value is not None and name not in needs and name != "pair":
            raise ValueError(f"{loaded.origin} is for {loaded.task}, which reads no {name}.")
    inputs = [
        value.strip() if isinstance(value, str) else value
        for value in given.values()
        if value is not None
    ]
    view = reader.show(loaded, *inputs, **options)
    view.check()
    return view


def reads(loaded: Any, task: str | None = None) -> tuple[str, ...]:
    """What a model is to be given: "text", "picture", both, "clip", "sound" or "series".

    Args:
        task: see :func:`view_of`.

    Raises:
        ValueError: a model that :func:`view_of` has no view of.
    """
    needs = reader_of(loaded, task).needs
    check_attends(loaded.model)
    for name in needs:
        loaded.check(("tokenizer" if name == "text" else "preprocess",))
    return needs


def reader_of(loaded: Any, task: str | None) -> Reader:
    """What shows a model.

    Raises:
        ValueError: see :func:`reads`, and a task that it does not know.
    """
    if loaded.task not in READERS:
        raise ValueError(
            f"{loaded.origin} is for {loaded.task or 'no task that is known'}, of which there is nothing to "
            f"show yet: look knows {', '.join(READERS)}."
        )
    reader = READERS[loaded.task]
    if task is None:
        return reader
    if not reader.kinds:
        raise ValueError(f"{loaded.origin} is for {loaded.task} alone: leave the task out.")
    if task not in reader.kinds:
        raise ValueError(f"the task {task!r} is unknown; choose one of: {', '.join(reader.kinds)}.")
    return reader.kinds[task]


class Reader(NamedTuple):
    """What shows a task.

    Args:
        needs: what it is given, in this order.
        takes: what else it may be given.
        kinds: of a model for everything, by the word for each task.
    """

    needs: tuple[str, ...]
    show: Callable[..., View]
    takes: tuple[str, ...] = ()
    kinds: Mapping[str, Any] = {}


EVERYTHING = {
    "answer": Reader(("text", "picture"), of_everything.answered),
    "caption": Reader(("picture",), of_everything.described),
    "classify": Reader(("picture",), partial(of_everything.described, task="classify")),
    "detect": Reader(("picture",), of_everything.detected),
    "translate": Reader(("text",), of_everything.translated),
    "draw": Reader(("text",), of_everything.drawn, ("seed",)),
}
LANGUAGES = ("source", "target", "beams")
READERS = {
    "Translation": Reader(("text",), of_texts.translated, LANGUAGES),
    "TextToText": Reader(("text",), of_texts.translated, LANGUAGES),
    "LanguageModeling": Reader(("text",), of_texts.continued),
    "MaskedLanguageModeling": Reader(("text",), of_texts.filled),
    "TextClassification": Reader(("text",), of_texts.judged, ("pair",)),
    "TextRegression": Reader(("text",), of_texts.judged, ("pair",)),
    "Tagging": Reader(("text",), of_texts.tagged),
    "QuestionAnswering": Reader(("text",), of_texts.answered, ("pair",)),
    "SentenceEmbedding": Reader(("text",), of_texts.embedded),
    "RewardModeling": Reader(("text",), of_texts.rewarded, ("pair",)),
    "ImageClassification": Reader(("picture",), of_pictures.classified),
    "ImageRegression": Reader(("picture",), of_pictures.classified),
    "VideoClassification": Reader(("clip",), of_clips.clip_classified),
    "Detection": Reader(("picture",), of_pictures.detected),
    "Segmentation": Reader(("picture",), of_segments.segmented),
    "Captioning": Reader(("picture",), of_pictures.captioned),
    "VisualQuestions": Reader(("text", "picture"), of_pictures.asked),
    "VisionChat": Reader(("text", "picture"), of_pictures.talked),
    "Unified": EVERYTHING["answer"]._replace(kinds=EVERYTHING),
    "ImageText": Reader(("text", "picture"), of_pictures.matched),
    "TextToImage": Reader(("text",), of_drawings.drawn, ("seed",)),
    "Series": Reader(("series",), of_series.told),
    "SpeechRecognition": Reader(("sound",), of_clips.transcribed),
}
"""By task."""
