"""Questions about pictures to answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from family.inference.batches import PICTURES, Picture, class_names, most_tokens, picture_batches
from family.inputs.encode import UNLIMITED, encode_captions


@torch.no_grad()
def answer_about_pictures(
    model: Any,
    pictures: Sequence[Picture],
    questions: Sequence[str],
    batch_size: int = PICTURES,
    without: str | None = None,
) -> list[dict[str, Any]]:
    """Of each question about its picture the likeliest ``answer`` and its ``score``.

    Args:
        questions: one a picture.
        batch_size: pictures at a time, at most.
        without: "picture" or "question", what the model was not shown in training.

    Raises:
        ValueError: not as many questions as pictures, a picture that cannot be read, or a question that is
            empty or too long.
    """
    if len(pictures) != len(questions):
        raise ValueError(f"{len(pictures)} pictures but {len(questions)} questions: give as many.")
    asked = [question.strip() for question in questions]
    limit = most_tokens(model) or UNLIMITED
    found: list[dict[str, Any]] = []
    for batch, pixels in picture_batches(model, pictures, batch_size):
        some = asked[len(found) : len(found) + len(batch)]
        if not all(some):
            raise ValueError("a question is empty: ask something of the picture.")
        texts = [""] * len(some) if without == "question" else some
        ids, mask = encode_captions(model.tokenizer, texts, UNLIMITED)
        if ids.shape[1] > limit:
            longest = some[int(mask.sum(1).argmax())]
            raise ValueError(
                f"the question {longest!r} has {ids.shape[1]} tokens, more than the {limit} that the "
                "model reads."
            )
        seen = torch.zeros_like(pixels) if without == "picture" else pixels
        logits = model(seen, ids.to(pixels.device), mask.to(pixels.device)).float()
        names = class_names(model, logits.shape[1])
        scores, best = logits.softmax(-1).max(-1)
        pairs = zip(best.tolist(), scores.tolist(), strict=True)
        found += [{"answer": names[i], "score": score} for i, score in pairs]
    return found
