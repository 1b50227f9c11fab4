"""Pictures from words: a model learns to draw what a sentence says."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tasks.errors import UserError
from tasks.training.image_tokens import TokenizedTask
from tasks.training.pictures import sheet, to_picture
from tasks.training.reading import check_room

SHOWN = 8
"""Sentences of the sheet."""
SEED = 0
"""Of the random numbers that the sheet is drawn with."""


class TextToImage(TokenizedTask):
    """Train what draws from sentences, by the loss that it brings along.

    Of a split it reports that loss, and what else the model says of it, as means over the pictures: of one
    that draws token by token ``bits_per_token``, for example. Each validation draws a sheet of the first
    sentences, by the same random numbers each time, which are of a generator of their own.

    A batch has ``pixel_values (batch, 3, height, width)`` in -1..1, ``input_ids`` and ``mask (batch,
    tokens)``, True = a token, the sentence of each picture; to be shown also lists of ``caption`` and ``file``.
    The model is one of the contract ``losses(pixel_values, input_ids, mask) -> {"loss", ...}``,
    ``draw(input_ids, mask, guidance=..., generator=...) -> pixel_values``.

    Args:
        model: the model, or what builds it from the vocabulary size.
        guidance: of the sheet and of predictions: how far the sentence is overstated; None is as it is said.
        options: of :class:`~tasks.training.image_tokens.TokenizedTask` (``image_tokenizer``, where it draws in
            tokens or latents) and :class:`~tasks.training.task.Task`.

    Raises:
        UserError: before training: a source that is no image tokenizer, or is for pictures of another size than
            the data's; sentences longer than the model reads; a model that does not draw, or has no guidance.
    """

    monitor = ("val/loss", "min")
    fields = ("pixel_values", "input_ids", "mask")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        guidance: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.guidance = guidance

    # --- Training ---

    def configure_model(self) -> None:
        super().configure_model()
        if getattr(self.model, "image_tokenizer", None) is not None:  # which is to be so
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        check_draws(self.model)
        check_room(self.model, self.data)
        if self.guidance not in (None, 1) and not getattr(self.model, "caption_dropout", True):
            raise UserError(
                f"model.guidance={self.guidance} needs a model that learns with some captions left out: give "
                "it a caption_dropout, such as 0.1."
            )

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self.model.losses(batch["pixel_values"], batch["input_ids"], batch.get("mask"))

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> None:
        """Log the loss, and what else the model says."""
        found = {f"{split}/{name}": value.float() for name, value in self.loss(batch).items()}
        self.log_mean(found, len(batch["input_ids"]))

    def on_validation_epoch_start(self) -> None:
        self.pictures = {}

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")
        if not self.pictures:
            first = {name: rows[:SHOWN] for name, rows in batch.items()}
            pictures = [to_picture(one) for one in self.drawn(first)]
            captions = first.get("caption", [""] * len(pictures))
            self.pictures = {"drawn": sheet(pictures, captions, columns=SHOWN // 2)}

    def test_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each sentence a picture, with the name of the true one."""
        made = [to_picture(one) for one in self.drawn(batch, SEED + index)]
        known = [name for name in ("file", "caption") if name in batch]
        return [
            {**{name: batch[name][i] for name in known}, "picture": picture}
            for i, picture in enumerate(made)
        ]

    def drawn(self, batch: dict[str, Any], seed: int = SEED) -> Tensor:
        """Pictures of the sentences of a batch, ``(batch, 3, height, width)`` uint8."""
        ids = batch["input_ids"]
        generator = torch.Generator(ids.device).manual_seed(seed)
        options = {"guidance": self.guidance, "generator": generator}
        return self.restored(self.model.draw(ids, batch.get("mask"), **options).float())


def check_draws(model: Any) -> None:
    """Refuse a model of another contract.

    Raises:
        UserError: see above.
    """
    for name in ("losses", "draw"):
        if not hasattr(model, name):
            raise UserError(
                f"a {type(model).__name__} has no method {name}: TextToImage trains what has "
                "losses(pixel_values, input_ids, mask) and draw(input_ids, mask)."
            )
