"""Tasks whose models work in the tokens of an image tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from family.models.member import describe
from tasks.errors import UserError
from tasks.runs.sources import check_suits, located, open_published
from tasks.training.task import Task

TOKENIZING = "ImageTokenizing"
"""The task of what pictures are tokens of."""


class TokenizedTask(Task):
    """Train a model that owns an image tokenizer, which another run has trained.

    Args:
        model: the model, or what builds it.
        image_tokenizer: what the model's ``image_tokenizer`` is: a run of an image tokenizer, or a folder that
            it was saved in. Its arguments and its weights become the model's; it learns nothing.
        options: of :class:`~tasks.training.task.Task`.

    Raises:
        UserError: before training: a source that is no image tokenizer, or is for pictures of another size than
            the data's.
    """

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        image_tokenizer: str | None = None,
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
        self._source: Any = None

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
