"""Pictures drawn from sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from family.inference.batches import PICTURES, caption_batches, chunks, device_of, most_tokens
from family.inputs.encode import UNLIMITED, encode_captions


@torch.no_grad()
def draw_pictures(
    model: Any,
    sentences: Sequence[str],
    num: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    batch_size: int = PICTURES,
    **options: Any,
) -> list[Any]:
    """A picture of PIL's for each sentence; spaces around a sentence are left out, as in training.

    Args:
        num: so many pictures of each sentence, a list of them in place of one picture.
        guidance: how far the sentence is overstated; None is as it is said.
        seed: of the random numbers of all pictures together: with as many and with the same ``batch_size``
            they are the same.
        options: of the model's ``draw``: ``sampling`` or ``steps``, say.

    Raises:
        ValueError: no picture at all, what :func:`check_sentences` refuses, or the model's ``draw``.
    """
    if num is not None and num < 1:
        raise ValueError(f"num={num} must be at least 1.")
    check_sentences(model, sentences)
    generator = torch.Generator(device_of(model)).manual_seed(seed)
    options |= {"guidance": guidance, "generator": generator}
    each = [sentence for sentence in sentences for _ in range(num or 1)]
    made = list(drawn(model, each, batch_size, options))
    return made if num is None else [list(some) for some in chunks(made, num)]


def drawn(
    model: Any, sentences: Sequence[str], batch_size: int, options: dict[str, Any]
) -> Iterator[Image.Image]:
    """A picture for each sentence, in turn."""
    for input_ids, mask in caption_batches(model, sentences, batch_size):
        pixels = model.draw(input_ids, mask, **options)
        yield from as_pictures(model.preprocess, pixels)


def as_pictures(preprocess: Any, pixel_values: Tensor) -> list[Image.Image]:
    """What was drawn, ``(batch, 3, height, width)`` normalised, to look at."""
    return [to_pil_image(one) for one in preprocess.restore(pixel_values.float()).cpu()]


def check_sentences(model: Any, sentences: Sequence[str]) -> None:
    """Refuse sentences of which a model would not see all.

    Raises:
        ValueError: one that is longer than it reads, or has a word that its tokenizer does not know.
    """
    tokenizer, most = model.tokenizer, most_tokens(model) or UNLIMITED
    for sentence in sentences:
        said = sentence.strip()
        ids, _ = encode_captions(tokenizer, [said], UNLIMITED)
        if ids.shape[1] > most:
            raise ValueError(
                f"{said!r} has {ids.shape[1]} tokens, but the model reads {most} at most, and nothing is "
                "cut off: say it shorter."
            )
        if tokenizer.unk_id is not None and tokenizer.unk_id in tokenizer.encode(said):
            parts = said.split()
            unknown = [part for part in parts if tokenizer.unk_id in tokenizer.encode(part)]
            raise ValueError(
                f"the tokenizer does not know {', '.join(map(repr, unknown or [said]))} in {said!r}: the "
                "texts that it was trained on have no such word."
            )
