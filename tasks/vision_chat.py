"""Conversations about pictures: a picture tower and a language model learn to answer together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from family.inputs.conversation import prompt_ids
from family.inputs.image_slots import IMAGE, image_id_of, spread
from family.models.vision_language import join_vision_language
from tasks.chat_tuning import ChatTuning, exact
from tasks.errors import UserError, user_errors
from tasks.runs.gathering import gather
from tasks.training.finetuning import LoRA
from tasks.training.reading import packed

PARTS = ("vision.", "projection.", "language.")
"""How the names of the model's weights begin."""


class VisionChat(ChatTuning):
    """As :class:`~tasks.chat_tuning.ChatTuning`, about pictures; ``exact`` by kind of question, too.

    It is learnt in stages (Liu et al. 2023, section 4.2): at first ``vision`` and ``language`` say which trained
    models are put together, and ``freeze: ["vision.*", "language.*"]`` lets the projection between them learn
    alone; then ``pretrained`` is the run of that, and ``freeze: ["vision.*"]`` or ``lora`` lets the language
    model learn as well. With ``lora`` the projection learns as a whole.

    A batch has ``pixel_values (pictures, 3, height, width)`` and what a batch of that task has; the slots of the
    pictures stand in ``input_ids``: see :class:`~tasks.data.vision_chat.VisionChatData`.

    Args:
        model: the model, or what builds it: ``model(pixel_values, input_ids, documents=...) -> logits``.
        vision: where the picture tower comes from: a run, a folder or a published model of pictures, or a Captioner.
        language: where the language model does.
        projector, shuffle: between the two, see
            :class:`~family.models.vision_language.VisionLanguage`.
        pretrained: a model of this task, of the stage before.
        lora: as elsewhere; targets are names within the language model, unless they begin with ``vision.``.
        options: of :class:`~tasks.chat_tuning.ChatTuning`.
    """

    gives = ""
    fields = ("pixel_values", "input_ids", "labels")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        vision: str | None = None,
        language: str | None = None,
        projector: Literal["mlp", "linear"] = "mlp",
        shuffle: int = 1,
        pretrained: str | None = None,
        lora: LoRA | None = None,
        **options: Any,
    ) -> None:
        if (vision is None) != (language is None):
            given, other = ("language", "vision") if vision is None else ("vision", "language")
            raise UserError(f"model.{given} without model.{other}: two models are put together.")
        if vision is not None and language is not None:
            for name, value in (("model", model), ("pretrained", pretrained)):
                if value is not None:
                    raise UserError(
                        f"model.{name} beside model.vision and model.language: choose where the model "
                        "comes from."
                    )
            object.__setattr__(self, "parts", (vision, language))
        if lora is not None:
            within = [t if t.startswith(PARTS) else f"language.{t}" for t in lora.targets]
            lora = dataclasses.replace(lora, targets=within)
        super().__init__(model, pretrained=pretrained, lora=lora, **options)
        self.joined = {"projector": projector, "shuffle": shuffle}
        self.by_kind: list[tuple[str, float]] = []
        """Of each answer its kind, and whether it is the true one."""

    # --- The model ---

    def made_of(self, source: nn.Module, *more: nn.Module) -> nn.Module:
        if more:
            with user_errors():
                return join_vision_language(source, *more, **self.joined)
        self.check_model(source)
        return source

    def check_model(self, model: Any) -> None:
        """Refuse a model that reads no pictures in a text.

        Raises:
            UserError: see above.
        """
        if not (hasattr(model, "slots") and hasattr(model, "image_id")):
            raise UserError(
                f"a {type(model).__name__} does not read pictures among words: model.vision and "
                "model.language would put two models together that do."
            )

    def adapt_model(self) -> None:
        super().adapt_model()
        if self.lora is not None:
            self.model.projection.requires_grad_(True)

    def configure_model(self) -> None:
        super().configure_model()
        self.check_model(self.model)
        given = getattr(self.data, "slots", None)
        if given is not None and given != self.model.slots:
            raise UserError(
                f"data.slots={given}, but the model has {self.model.slots} vectors for a picture."
            )
        tokenizer = self.tokenizer()
        if tokenizer is not None:
            with user_errors():
                found = image_id_of(tokenizer)
            if found != self.model.image_id:
                raise UserError(
                    f"the model's image_id is {self.model.image_id}, but the tokenizer's {IMAGE} is "
                    f"{found}."
                )

    def logits(self, batch: dict[str, Any], **asked: Any) -> Tensor:
        return self.model(batch["pixel_values"], batch["input_ids"], **packed(batch), **asked)

    # --- Answers ---

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        ids = prompt_ids(self.tokenizer(), messages, (IMAGE,))
        return spread(ids, self.model.image_id, self.model.slots)

    def write(self, batch: dict[str, Any], rows: list[int], *inputs: Any, **options: Any) -> Tensor:
        pictures = batch["pixel_values"].split(batch["pictures"])
        shown = torch.cat([pictures[row] for row in rows])
        return self.model.generate(shown, *inputs, **options)

    def answer(self, batch: dict[str, Any], rows: Sequence[int]) -> list[tuple[str, str, str]]:
        found = super().answer(batch, rows)
        for row, (_, made, true) in zip(rows if found else (), found, strict=True):
            self.by_kind.append((batch["kind"][row] if "kind" in batch else "", exact(made, true)))
        return found

    def _judge(self, split: str) -> None:
        super()._judge(split)
        scored, self.by_kind = gather(self.by_kind), []
        kinds = sorted({kind for kind, _ in scored})
        for kind in kinds if len(kinds) > 1 else ():
            right = [one for name, one in scored if name == kind]
            self.log(f"{split}/exact_{kind or 'other'}", sum(right) / len(right))
