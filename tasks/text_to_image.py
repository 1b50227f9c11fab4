"""Pictures from words: a model learns to draw what a sentence says."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from family.models.member import describe
from tasks.errors import UserError
from tasks.runs.sources import check_suits, located, open_published
from tasks.training.finite_task import FiniteTask
from tasks.training.pictures import sheet, to_picture
from tasks.training.reading import check_room

SHOWN = 8
"""Sentences of the sheet."""
SEED = 0
"""Of the random numbers that the sheet is drawn with."""
TOKENIZING = "ImageTokenizing"
"""The task of what pictures are tokens of."""


class TextToImage(FiniteTask):
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
        image_tokenizer: what the model's ``image_tokenizer`` is, where it draws in tokens or latents: a run of
            an image tokenizer, or a folder that it was saved in. Its arguments and its weights become the
            model's; it learns nothing.
        guidance: of the sheet and of predictions: how far the sentence is overstated; None is as it is said.
        options: of :class:`~tasks.training.task.Task`.

    Raises:
        UserError: before training: a source that is no image tokenizer, or is for pictures of another size than
            the data's; sentences longer than the model reads; a model that does not draw, or has no guidance.
    """

    monitor = ("val/loss", "min")
    fields = ("pixel_values", "input_ids", "mask")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        image_tokenizer: str | None = None,
        guidance: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if image_tokenizer is not None and self.pretrained is not None:
            raise UserError(
                f"model.image_tokenizer={image_tokenizer} beside model.pretrained={self.pretrained}, which "
                "brings its own: leave one of them out."
            )
        self.image_tokenizer = None if image_tokenizer is None else located(image_tokenizer)
        # A run goes on from wherever it is called.
        self.options = {**self.options, "image_tokenizer": self.image_tokenizer}
        self.guidance = guidance
        self._source: Any = None

    # --- The image tokenizer ---

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decide of the model, and of which image tokenizer it is; of a run that goes on, that
        which it began with."""
        given = super().model_arguments
        known = self.decided.get("image_tokenizer")
        if known is None and self.copies:
            known = describe(self.source())["arguments"]
        return given if known is None else {**given, "image_tokenizer": known}

    @property
    def copies(self) -> bool:
        """Whether weights come from ``model.image_tokenizer``, and not from a checkpoint."""
        loaded = self.kept is not None or "image_tokenizer" in self.decided
        return self.image_tokenizer is not None and not loaded

    def source(self) -> Any:
        """The image tokenizer of ``model.image_tokenizer``, read once.

        Raises:
            UserError: see the class.
        """
        name = self.image_tokenizer
        assert name is not None
        if self._source is None:
            made = open_published(name)
            check_suits(made, name, (TOKENIZING,))
            wanted = super().model_arguments.get("image_size")
            if wanted is not None and tuple(wanted) != tuple(made.image_size):
                height, width = made.image_size
                raise UserError(
                    f"model.image_tokenizer={name} is for pictures of {height} x {width} pixels, but "
                    f"data.image_size={list(wanted)}: give data.image_size={[height, width]}, or another "
                    "tokenizer."
                )
            object.__setattr__(self, "_source", made)  # no part of the task, nor of its checkpoints
        return self._source

    def build_model(self, arguments: dict[str, Any] | None = None) -> nn.Module:
        """The model, with the weights of the image tokenizer."""
        name = self.image_tokenizer
        if name is None or not self.copies:
            return super().build_model(arguments)
        if (self.model_spec.get("init_args") or {}).get("image_tokenizer") is not None:
            raise UserError(
                f"model.image_tokenizer={name} beside model.model.init_args.image_tokenizer, which would be "
                "its arguments: leave the latter out."
            )
        model: Any = super().build_model(arguments)
        own = getattr(model, "image_tokenizer", None)
        if own is None:
            raise UserError(
                f"model.image_tokenizer={name}: a {type(model).__name__} takes none: leave it out."
            )
        copy_weights(own, self.source(), name)
        return model

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


def copy_weights(ours: nn.Module, theirs: nn.Module, source: str) -> None:
    """Give an image tokenizer the weights of another.

    Raises:
        UserError: they do not fit: the model was given arguments of its own.
    """
    for name, value in theirs.state_dict().items():
        own = ours.state_dict().get(name)
        if own is None or own.shape != value.shape:
            shape = "none" if own is None else tuple(own.shape)
            raise UserError(
                f"model.image_tokenizer={source} does not fit the image_tokenizer that the model is given: "
                f"{name} is {tuple(value.shape)} there and {shape} here; leave the model's out, which is then "
                "the source's."
            )
    ours.load_state_dict(theirs.state_dict())
