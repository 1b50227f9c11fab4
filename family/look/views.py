"""What is shown of a model and one input, by the model's task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from family.inference.batches import Picture
from family.look import of_pictures, of_texts
from family.look.maps import check_attends
from family.look.view import View


def view_of(
    loaded: Any,
    text: str | None = None,
    picture: Picture | None = None,
    *,
    pair: str | None = None,
    **options: Any,
) -> View:
    """What a model makes of one input, and where it looks meanwhile.

    Args:
        loaded: what :func:`family.load` gives.
        text: what it reads, or what is asked of the picture.
        picture: of PIL's, or a path.
        pair: the second text, of a model of pairs; the text that a question is about.
        options: of a translation ``source`` and ``target``, the languages, and ``beams``.

    Raises:
        ValueError: a model of another task or without attention, or an input that is missing, empty, or
            too long for the model or a page.
    """
    needs, reader = reads(loaded), READERS[loaded.task]
    given = {"text": text, "picture": picture, "pair": pair}
    for name in (*options, *(["pair"] if pair is not None else [])):
        if name not in reader.takes:
            raise ValueError(f"{loaded.origin} is for {loaded.task}, which takes no {name}.")
    for name, value in given.items():
        if value is None and name in needs:
            raise ValueError(f"{loaded.origin} is for {loaded.task}: give it a {name}.")
        if isinstance(value, str) and name != "picture" and not value.strip():
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


def reads(loaded: Any) -> tuple[str, ...]:
    """What a model is to be given, "text" or "picture" or both.

    Raises:
        ValueError: a model that :func:`view_of` has no view of.
    """
    if loaded.task not in READERS:
        raise ValueError(
            f"{loaded.origin} is for {loaded.task or 'no task that is known'}, of which there is nothing to "
            f"show yet: look knows {', '.join(READERS)}."
        )
    check_attends(loaded.model)
    needs = READERS[loaded.task].needs
    for name in needs:
        loaded.check(("preprocess" if name == "picture" else "tokenizer",))
    return needs


class Reader(NamedTuple):
    """What shows a task.

    Args:
        needs: what it is given, in this order.
        takes: what else it may be given.
    """

    needs: tuple[str, ...]
    show: Callable[..., View]
    takes: tuple[str, ...] = ()


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
    "ImageClassification": Reader(("picture",), of_pictures.classified),
    "ImageRegression": Reader(("picture",), of_pictures.classified),
    "Detection": Reader(("picture",), of_pictures.detected),
    "Captioning": Reader(("picture",), of_pictures.captioned),
    "VisualQuestions": Reader(("text", "picture"), of_pictures.asked),
    "VisionChat": Reader(("text", "picture"), of_pictures.talked),
}
"""By task."""
