"""What is shown of a model and one input, by the model's task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from family.heads.detection import postprocess
from family.heads.problem import answers
from family.inference.batches import Picture, class_names, device_of, text_batches
from family.inference.classes import described
from family.inference.detection import SURE
from family.inference.detection import described as described_box
from family.inference.masked import gapped
from family.inputs.conversation import prompt_ids
from family.inputs.encode import encode_captions, encode_prompt
from family.inputs.image_slots import IMAGE, image_id_of, place_pictures, spread
from family.look.lens import logit_lens, writes
from family.look.maps import StackMaps, check_attends, recorded_maps
from family.look.relevance import relevances
from family.look.sides import patch_side, pixels_of, prefix_names, said, seen_by, words
from family.look.view import MOST, Panel, Side, View, lens_of
from family.look.written import source_ids, written_ids
from family.models.member import longest_text

CLASSES = 3
"""Of which relevance is shown, the likeliest."""
BOXES = 12
"""That are shown, at most."""
ANSWER = 24
"""Tokens of an answer about a picture."""


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


# --- Texts ---


def translated(loaded: Any, text: str, **options: Any) -> View:
    """Source, target, and their alignment; a row is the word that is being written."""
    model, tokenizer = loaded.model, loaded.tokenizer
    ids, target = source_ids(model, text, **options)
    start, made = written_ids(model, ids, target, options.get("beams"), text_to_text(loaded))
    return wrote(loaded, ids, start, made, Side("source", [*words(tokenizer, ids[0].tolist())]))


def text_to_text(loaded: Any) -> bool:
    return loaded.task == "TextToText"


def wrote(loaded: Any, source: Tensor, start: Tensor, made: Tensor, read: Side) -> View:
    """An encoder-decoder that wrote some tokens.

    Args:
        source: what its front-end reads.
        start, made: ``(1, tokens)`` that its target begins with, and those that follow.
        read: what it read.
    """
    model, target = loaded.model, loaded.tokenizer.target
    so_far = torch.cat([start, made], dim=1)[:, :-1]
    maps, _ = recorded_maps(model, lambda: model(source, so_far))
    given = words(target, so_far[0].tolist())
    writes_now = [*given[1:], said(target, int(made[0, -1]))]
    sides = [read, Side("written", [*writes_now]), Side("read so far", [*given])]
    decoder, encoder = maps["decoder"], maps.get("encoder")
    panels = [Panel("written \N{LEFTWARDS ARROW} source", 1, 0, first(decoder.across))]
    if encoder is not None:
        panels.append(Panel("source \N{LEFTWARDS ARROW} source", 0, 0, first(encoder.own)))
    panels.append(Panel("written \N{LEFTWARDS ARROW} read so far", 1, 2, first(decoder.own)))
    lens = lens_of(logit_lens(model, source, so_far)[:, 0], target, said)
    answer = [target.decode(made[0].tolist())]
    return View(loaded.task, answer, sides, kept(panels), lens={**lens, "side": 1, "wrote": True})


def continued(loaded: Any, text: str) -> View:
    """A text as a language model reads it, and what it would go on with after each token."""
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = encode_prompt(tokenizer, text)
    if len(ids) > longest_text(model):
        raise ValueError(
            f"a text of {len(ids)} tokens does not fit the model's {longest_text(model)}."
        )
    view = of_tokens(loaded, torch.tensor([ids], device=device_of(model)))
    best = [words[0] for words in view.lens["words"][-1]] if view.lens else []
    view.answer = [f"next: {best[-1]}"] if best else []
    return view


def filled(loaded: Any, text: str) -> View:
    """A text with gaps, or without any."""
    model, tokenizer = loaded.model, loaded.tokenizer
    try:
        ids = gapped(model, text)
        answer = [
            ", ".join(f"{one['token'].strip()} {one['score']:.2f}" for one in gap[:LENGTH])
            for gap in loaded.predict([text])[0]
        ]
    except ValueError as error:
        if "has no gap" not in str(error):
            raise
        (ids,), answer = encode_captions(tokenizer, [text], int(1e9))[0].tolist(), []
    view = of_tokens(loaded, torch.tensor([ids], device=device_of(model)))
    view.answer = answer
    return view


LENGTH = 5
"""Words for a gap in a line."""


def of_tokens(loaded: Any, *inputs: Tensor) -> View:
    """One stack over the tokens of a text."""
    model = loaded.model
    maps, _ = recorded_maps(model, lambda: model(*inputs))
    side = Side("text", [*words(loaded.tokenizer, inputs[0][0].tolist())])
    panels = [Panel("text", 0, 0, first(own(maps).own))]
    view = View(loaded.task, [], [side], kept(panels))
    if writes(model):
        lens = lens_of(logit_lens(model, *inputs)[:, 0], loaded.tokenizer, said)
        view.lens = {**lens, "side": 0, "wrote": False}
    return view


def judged(loaded: Any, text: str, pair: str | None = None) -> View:
    """A text, or a pair, that has classes as a whole."""
    loaded.check_pairs(pair is not None)
    inputs = next(text_batches(loaded.model, [text], pairs=None if pair is None else [pair]))
    view = of_tokens(loaded, *inputs)
    classes(loaded, view, lambda: loaded.model(*inputs))
    return view


def tagged(loaded: Any, text: str) -> View:
    """A text whose tokens have classes."""
    view = of_tokens(loaded, *next(text_batches(loaded.model, [text])))
    view.answer = [f"{one['word']} {one['label']}" for one in loaded.predict([text])[0]]
    return view


def embedded(loaded: Any, text: str) -> View:
    """A text that becomes a vector."""
    return of_tokens(loaded, *next(text_batches(loaded.model, [text])))


def answered(loaded: Any, text: str, pair: str | None = None) -> View:
    """A question and the text that it is asked of."""
    if pair is None:
        raise ValueError("a question is asked of a text: give that as the pair.")
    view = of_tokens(loaded, *next(text_batches(loaded.model, [text], pairs=[pair])))
    view.answer = [str(loaded.predict([text], [pair])[0]["answer"])]
    return view


# --- Pictures ---


def classified(loaded: Any, picture: Picture) -> View:
    """A picture in patches, and what its classes were told from."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    maps, _ = recorded_maps(model, lambda: model(pixels))
    side = patch_side(
        "picture", model, model.embedding, pixels, prefix_names(model, model.embedding)
    )
    view = View(loaded.task, [], [side], kept([Panel("picture", 0, 0, first(own(maps).own))]))
    classes(loaded, view, lambda: model(pixels))
    return view


def classes(loaded: Any, view: View, call: Callable[[], Tensor]) -> None:
    """Add the likeliest classes to a view, and what speaks for each."""
    model = loaded.model
    with torch.no_grad():
        chances = answers(model, call().float())
    if loaded.task.endswith("Regression"):
        view.answer = [f"{float(chances.flatten()[0]):.3f}"]
        view.relevance = [{"class": "the number", "score": None, "values": shares(model, call, 0)}]
        return
    names = class_names(model, chances.shape[1])
    found = described(model, chances.cpu())[0]["probabilities"]
    best = chances[0].topk(min(CLASSES, len(names))).indices.tolist()
    listed = list(found.items())
    view.answer = [f"{listed[i][0]} {listed[i][1]:.2f}" for i in best]
    view.relevance = [
        {"class": listed[i][0], "score": listed[i][1], "values": shares(model, call, i)}
        for i in best
    ]


def shares(model: Any, call: Callable[[], Tensor], target: int) -> list[float]:
    """What each token says for a class, as a share of the most."""
    values = relevances(model, call, target)[0]
    return [round(value, 4) for value in (values / values.max().clamp(min=1e-12)).tolist()]


def captioned(loaded: Any, picture: Picture) -> View:
    """A sentence about a picture, word by word."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    start, made = written_ids(model, pixels, None, None, True)
    front = model.source_embedding
    side = patch_side("picture", model, front, pixels, prefix_names(model, front))
    return wrote(loaded, pixels, start, made, side)


def detected(loaded: Any, picture: Picture) -> View:
    """Boxes, and the part of the picture that the query of each read."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    if not hasattr(model, "decoder"):
        raise ValueError(f"a {type(model).__name__} has no queries that read a picture.")
    cells: list[Tensor] = []
    hook = model.backbone.register_forward_hook(lambda _, given, made: cells.append(made[0]))
    try:
        maps, outputs = recorded_maps(model, lambda: model(pixels))
    finally:
        hook.remove()
    found = postprocess(outputs, [(1, 1)], getattr(model, "classification", "softmax"))[0]
    sure = loaded.assets.get("threshold", getattr(model, "threshold", None)) or SURE
    count = min(BOXES, max(1, int((found["scores"] >= sure).sum())))
    rows = found["queries"][:count]
    height, width = pixels.shape[-2:]
    grid, stride = tuple(cells[0].shape[-2:]), model.backbone.stride
    boxes = [
        {
            **described_box(model, int(found["labels"][i]), round(float(found["scores"][i]), 3)),
            "box": [round(x, 4) for x in found["boxes"][i].tolist()],
            "row": i,
        }
        for i in range(count)
    ]
    covers = grid[0] * stride / height, grid[1] * stride / width
    cell_names: list[str | int] = [*range(grid[0] * grid[1])]
    sides = [
        Side("boxes", [f"{one['label']} {one['score']:.2f}" for one in boxes]),
        Side("picture", cell_names, seen_by(model, pixels), (grid[0], grid[1]), covers),
    ]
    across = [None if m is None else m[0][:, rows] for m in maps["decoder"].across]
    panels = [Panel("boxes \N{LEFTWARDS ARROW} picture", 0, 1, across)]
    encoder = first(maps["encoder"].own)
    if sum(m.numel() for m in encoder if m is not None) < MOST // 2:
        panels.append(Panel("picture \N{LEFTWARDS ARROW} picture", 1, 1, encoder))
    answer = [f"{one['label']} {one['score']:.2f}" for one in boxes]
    if found["scores"][0] < sure:
        answer = [f"nothing over {sure:g}; the likeliest is {answer[0]}"]
    return View(loaded.task, answer, sides, kept(panels), boxes=boxes)


# --- Pictures and words ---


def asked(loaded: Any, text: str, picture: Picture) -> View:
    """A question about a picture, in one stack of words and patches."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    ids, mask = encode_captions(loaded.tokenizer, [text], int(1e9))
    if ids.shape[1] > longest_text(model):
        raise ValueError(
            f"a question of {ids.shape[1]} tokens does not fit the model's {longest_text(model)}."
        )
    ids, mask = ids.to(pixels.device), mask.to(pixels.device)
    maps, _ = recorded_maps(model, lambda: model(pixels, ids, mask))
    before = [*words(loaded.tokenizer, ids[0].tolist()), *prefix_names(model, model.patches)]
    side = patch_side("words and picture", model, model.patches, pixels, before)
    view = View(loaded.task, [], [side], kept([Panel(side.name, 0, 0, first(own(maps).own))]))
    classes(loaded, view, lambda: model(pixels, ids, mask))
    return view


def talked(loaded: Any, text: str, picture: Picture) -> View:
    """A question about a picture, and the words of the answer, in one language model."""
    model, tokenizer, pixels = loaded.model, loaded.tokenizer, pixels_of(loaded.model, picture)
    image_id = image_id_of(tokenizer)
    turns = place_pictures([{"role": "user", "content": text}], 1)
    ids = spread(prompt_ids(tokenizer, turns, (IMAGE,)), image_id, model.slots)
    start = torch.tensor([ids], device=pixels.device)
    room = int(min(ANSWER, longest_text(model) - len(ids)))
    if room < 1:
        raise ValueError(
            f"a question of {len(ids)} tokens leaves no room in the model's {longest_text(model)}."
        )
    made = model.generate(
        pixels, start, max_new_tokens=room, stop_ids=tokenizer.stop_ids(), beams=1
    )
    whole = torch.cat([start, made], dim=1)[:, :-1]
    maps, _ = recorded_maps(model, lambda: model(pixels, whole))
    rows, columns = (n // model.shuffle for n in model.vision.grid(*pixels.shape[-2:]))
    prefix = model.slots - rows * columns
    cells, tokens = iter(range(-prefix, rows * columns)), list[str | int]()
    for i in whole[0].tolist():
        cell = next(cells, -1) if i == image_id else None
        tokens.append(said(tokenizer, i) if cell is None else "[class]" if cell < 0 else cell)
    side = Side("words and picture", tokens, seen_by(model, pixels), (rows, columns))
    panel = Panel(side.name, 0, 0, first(maps["language.transformer"].own))
    view = View(loaded.task, [tokenizer.decode(made[0].tolist()).strip()], [side], kept([panel]))
    lens = lens_of(logit_lens(model, pixels, whole)[:, 0], tokenizer, said)
    view.lens = {**lens, "side": 0, "wrote": False}
    return view


# --- What all share ---


def own(maps: dict[str, StackMaps]) -> StackMaps:
    """Those of the stack that the model reads with, its last."""
    return list(maps.values())[-1]


def first(layers: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Of a batch of one."""
    return [None if one is None else one[0] for one in layers]


def kept(panels: list[Panel]) -> list[Panel]:
    """Those with a map."""
    return [panel for panel in panels if any(one is not None for one in panel.maps)]


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
    "Translation": Reader(("text",), translated, LANGUAGES),
    "TextToText": Reader(("text",), translated, LANGUAGES),
    "LanguageModeling": Reader(("text",), continued),
    "MaskedLanguageModeling": Reader(("text",), filled),
    "TextClassification": Reader(("text",), judged, ("pair",)),
    "TextRegression": Reader(("text",), judged, ("pair",)),
    "Tagging": Reader(("text",), tagged),
    "QuestionAnswering": Reader(("text",), answered, ("pair",)),
    "SentenceEmbedding": Reader(("text",), embedded),
    "ImageClassification": Reader(("picture",), classified),
    "ImageRegression": Reader(("picture",), classified),
    "Detection": Reader(("picture",), detected),
    "Captioning": Reader(("picture",), captioned),
    "VisualQuestions": Reader(("text", "picture"), asked),
    "VisionChat": Reader(("text", "picture"), talked),
}
"""By task."""
