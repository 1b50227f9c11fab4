"""Attention beside an answer: the mean over the heads of the last layer, with the tokens at its sides, or what was
read of a picture, a clip or a series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from family.core.attention import Attention
from family.inference.batches import device_of, most_tokens, text_batches
from family.inference.masked import gapped, written
from family.inputs.encode import UNLIMITED, encode_captions, encode_prompt, encode_sources
from family.look.over import cells_of, light_of
from family.look.page import chosen_layer
from family.look.record import record_attention
from family.look.view import as_png
from family.look.views import reads, view_of
from family.models.member import longest_text
from tasks.serve.limits import SHOWN, RefusedError

Map = tuple[list[str], list[str], Tensor]


@torch.no_grad()
def attention_of(
    loaded: Any,
    text: str,
    other: str | None = None,
    source: str | None = None,
    target: str | None = None,
) -> dict[str, Any]:
    """What a model attends to as it reads ``text``, or writes ``other`` as the translation of it.

    Returns:
        ``rows`` and ``columns``, tokens, and ``weights (rows, columns)``.

    Raises:
        ValueError: a text that the model cannot read.
        RefusedError: too long a text, or a model without attention.
    """
    if loaded.task == "Unified":
        rows, columns, weights = of_everything(loaded, text)
    elif loaded.task in ("Translation", "TextToText"):
        rows, columns, weights = alignment(loaded.model, text, other, source, target)
    else:
        rows, columns, weights = own(loaded, text, other)
    values = [[round(value, 4) for value in row] for row in weights.tolist()]
    return {"rows": rows, "columns": columns, "weights": values}


def seen_in(loaded: Any, **given: Any) -> dict[str, Any]:
    """What an answer was read from, as :func:`family.look.view_of` tells: of each class, or number of a series, what
    speaks for it; of each box, segment or word of the answer what it attended to; of each word of a drawing the parts
    that read it.

    Args:
        given: as :func:`~family.look.view_of` takes it.

    Returns:
        ``rows``, their names; the ``picture`` as the model sees it, as a data URL, whose ``grid`` of cells lies over
        ``covers``, parts of its height and width; ``weights (rows, cells)``, row by row.

    Raises:
        ValueError: what cannot be shown of this model, or this input.
    """
    side, found = light_of(view_of(loaded, **given))
    assert side.picture is not None and side.grid is not None
    return {
        "rows": [name for name, _ in found],
        "picture": as_png(side.picture),
        "grid": list(side.grid),
        "covers": list(side.covers),
        "weights": [[round(x, 4) for x in cells_of(side, values)] for _, values in found],
    }


def check_given(loaded: Any, task: str | None, given: dict[str, Any]) -> None:
    """Refuse what a model does not read, and the want of what it does.

    Args:
        task: of a model for everything, what is to be done.
        given: by the names of a request's fields; what is None is not there.

    Raises:
        RefusedError: see above.
    """
    try:
        needs = reads(loaded, task)
    except ValueError as error:
        raise RefusedError(422, str(error)) from None
    for name, value in given.items():
        if name in needs and value is None:
            raise RefusedError(422, f"the answer was read from a {name}: give that too.", name)
        if name not in needs and value is not None:
            raise RefusedError(422, f"this model reads no {name} here: leave that out.", name)


def alignment(
    model: Any, text: str, answer: str | None, source: str | None, target: str | None
) -> Map:
    """Of each token of a translation what the decoder attended to as it wrote that."""
    if answer is None:
        raise RefusedError(422, "give the translation as other.", "other")
    tokenizer, languages = model.tokenizer, getattr(model, "language_tokens", None)
    prompt = [model.bos_id]
    if languages is None:
        ids = encode_sources(tokenizer, [text.strip()])[0]
    else:
        source, target = languages.direction(source, target, model)
        ids = languages.sources(tokenizer, [text.strip()], source, target)[0]
        if target is not None:
            begin = languages.start(target)
            prompt = [model.bos_id if begin is None else begin, *languages.first(target)]
    new = tokenizer.target.encode(answer)
    check_length(max(len(ids), len(new) + len(prompt)), longest_text(model))
    read = torch.tensor([[*prompt, *new]], device=device_of(model))
    with record_attention(model) as maps:
        model(torch.tensor([ids], device=device_of(model)), read)
    # The token at a place is what decides on the next one.
    weights = last(model, maps, cross=True)[len(prompt) - 1 :]
    end = [] if tokenizer.target.eos_id is None else [tokenizer.target.eos_id]
    return (
        shown(tokenizer.target, [*new, *end]),
        shown(tokenizer, ids),
        weights[: len(new) + len(end)],
    )


def of_everything(loaded: Any, text: str) -> Map:
    """Of each token of a translation by a model for everything what it attended to."""
    view = view_of(loaded, text, task="translate")
    panel = view.panels[0]
    weights = panel.maps[chosen_layer(panel.maps, None)]
    assert weights is not None
    rows, columns = (
        [str(token) for token in view.sides[i].tokens] for i in (panel.queries, panel.keys)
    )
    check_length(len(columns), longest_text(loaded.model))
    return rows, columns, weights.float().mean(0).cpu()


def own(loaded: Any, text: str, other: str | None) -> Map:
    """Of each token what it attended to in the last layer of a stack."""
    model, limit = loaded.model, most_tokens(loaded.model) or UNLIMITED
    if loaded.task == "LanguageModeling":
        ids = torch.tensor([encode_prompt(model.tokenizer, text + (other or ""))])
        inputs: tuple[Tensor, ...] = (ids.to(device_of(model)),)
    elif loaded.task == "MaskedLanguageModeling":
        inputs = (torch.tensor([gapped(model, text)], device=device_of(model)),)
    elif other is None:
        inputs = tuple(
            x.to(device_of(model)) for x in encode_captions(model.tokenizer, [text.strip()], limit)
        )
    else:
        inputs = next(text_batches(model, [text], pairs=[other]))
    check_length(inputs[0].shape[1], longest_text(model))
    run = model.encode_text if loaded.task == "SentenceEmbedding" else model
    with record_attention(model) as maps:
        run(*inputs)
    tokens = shown(model.tokenizer, inputs[0][0].tolist())
    return tokens, tokens, last(model, maps, cross=False)


def check_length(tokens: int, most: float) -> None:
    """Refuse texts whose map would be too large.

    Raises:
        RefusedError: see above.
    """
    if tokens > min(SHOWN, most):
        raise RefusedError(
            422,
            f"attention is shown of texts of {int(min(SHOWN, most))} tokens at most, not {tokens}.",
        )


def last(model: Any, maps: dict[str, list[Tensor]], cross: bool) -> Tensor:
    """The map ``(queries, keys)`` of the last layer that attended, the mean over its heads.

    Raises:
        RefusedError: there is none.
    """
    found = [
        maps[name][0]
        for name, module in model.named_modules()
        if isinstance(module, Attention) and module.cross == cross and maps[name]
    ]
    if not found:
        raise RefusedError(422, "this model has no attention that could be shown.")
    return found[-1][0].float().mean(0).cpu()


def shown(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token as text; special ones by their names."""
    return [written(tokenizer, i) for i in ids]
