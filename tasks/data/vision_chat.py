"""Conversations about pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from family.inputs.conversation import Marked, mark_answers
from family.inputs.image_slots import (
    DESCRIBE,
    IMAGE,
    image_id_of,
    place_pictures,
    spread,
    with_image_token,
)
from family.inputs.preprocess import Preprocess, as_preprocess
from family.inputs.tokenizer import Tokenizer
from tasks.data import shapes
from tasks.data.captions import IMAGE_COLUMNS, picture_folder
from tasks.data.chat_tuning import (
    ChatTuningData,
    Conversation,
    Example,
    PackedConversations,
)
from tasks.data.images import check_images, open_picture, picture_size
from tasks.data.sampling import Pick
from tasks.data.splits import joined
from tasks.data.stored import Stored
from tasks.data.visual_questions import about_shapes, shown
from tasks.errors import UserError, at_least, in_short, user_errors

DESCRIBED = 4
"""Every so many pictures of the built-in world one is described; the others are asked about."""


class VisionChatData(ChatTuningData):
    """As :class:`~tasks.data.chat_tuning.ChatTuningData`, with pictures in what the user says.

    Where ``<image>`` stands in a message, there stands a picture; where it stands nowhere, the pictures come
    first in the user's first message. In the rows each is as many tokens as the model has vectors for it, its
    slots, and no conversation loses any of them.

    A batch of training has packed rows:

    - ``input_ids (batch, context)`` int64: the conversations, padded at the right;
    - ``labels (batch, context)`` int64: the token after each, where the assistant says it; else -100;
    - ``documents (batch, context)`` int64: the number of each token's conversation; -1 for padding;
    - ``pixel_values (pictures, 3, height, width)`` float32: normalised, in the order in which they stand in
      the rows, packed or not;

    one of validation or test a conversation a row, no ``documents``, and lists with an entry for each:

    - ``messages``: the conversation; ``where``: its file and line; ``number``: which of the split's it is;
    - ``pictures``: how many it has;
    - ``kind``: of what is asked.

    Args:
        root: as there; a line is ``{"image": "a.png", "messages": [...]}`` or ``{"images": ["a.png", "b.png"],
            "messages": [...]}``, with the paths beside the file or in ``images/``, and by choice a ``kind``.
            One file of everything is divided by pictures. None are questions about the built-in world of
            shapes, and requests to describe it.
        slots: tokens of a picture. None is what the model says, where it is made of trained ones; of a new
            one it must be given.
        image_size: of all pictures, ``(height, width)``, where the model is new; None is the model's.
        options: of :class:`~tasks.data.chat_tuning.ChatTuningData`.
    """

    task = "VisionChat"
    decided = (*ChatTuningData.decided, "slots", "image_size")

    def __init__(
        self,
        root: str | None = None,
        slots: int | None = None,
        image_size: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if slots is not None:
            at_least(1, slots=slots)
        self.slots, self.size = slots, None if image_size is None else picture_size(image_size)
        self.preprocess: Any = None
        """What the model brings."""

    # --- What there is ---

    def generated(self, count: int, split: str) -> list[Conversation]:
        found = []
        for i in range(count):
            one = about_shapes(i, self.seed, split)
            assert isinstance(one.picture, shapes.Scene)
            question, answer, kind = one.question, one.answer, one.kind
            if i % DESCRIBED == 0:
                question, answer, kind = DESCRIBE, shapes.caption(one.picture), "description"
            said = zip(("user", "assistant"), (question, answer), strict=True)
            talk: Any = [{"role": role, "content": text} for role, text in said]
            found.append(Conversation(place_pictures(talk, 1), one.where, (one.picture,), kind))
        return found

    def told(self, row: dict[str, Any], where: str) -> Conversation:
        talk, names = super().told(row, where), pictures_of(row, where)
        try:
            messages = place_pictures(talk.messages, len(names))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        return Conversation(messages, where, names, str(row.get("kind") or ""))

    def read(self, file: Path) -> list[Conversation]:
        rows = super().read(file)
        folder = picture_folder(file, [row.pictures[0] for row in rows], file.stem)
        rows = [
            row._replace(pictures=tuple(folder / name for name in row.pictures)) for row in rows
        ]
        try:
            check_images(list(dict.fromkeys(path for row in rows for path in row.pictures)), "stop")
        except UserError:
            for row in rows:  # which line it is of
                for path in row.pictures:
                    try:
                        open_picture(path, None).close()
                    except UserError as error:
                        raise UserError(f"{row.where}: {error}") from None
        return rows

    def kinds(self, rows: list[Conversation]) -> tuple[Sequence[Hashable], Sequence[str]]:
        return [0] * len(rows), joined([str(path) for path in row.pictures] for row in rows)

    def said(self, row: Conversation) -> Sequence[str]:
        return [text.replace(IMAGE, "") for text in super().said(row)]

    def stored(self, split: str) -> Stored:
        rows = self.rows(split)
        return (
            super()
            .stored(split)
            ._replace(content=lambda i: [*self.said(rows[i]), *map(self._shown, rows[i].pictures)])
        )

    def _shown(self, picture: Any) -> Any:
        return shown(picture, self.preprocess)

    def written(self) -> Iterator[str]:
        yield from (text.replace(IMAGE, "") for text in super().written())

    def marked(self, row: Conversation) -> Marked:
        tokenizer = self._tokenizer()
        ids, said = mark_answers(tokenizer, row.messages, (IMAGE,))
        image_id, slots = image_id_of(tokenizer), self.slots_each()
        if (there := ids.count(image_id)) != len(row.pictures):
            raise ValueError(
                f"the chat template writes {there} of the {len(row.pictures)} pictures."
            )
        counts = (slots if i == image_id else 1 for i in ids)
        own = [one for one, count in zip(said, counts, strict=True) for _ in range(count)]
        return Marked(spread(ids, image_id, slots), own)

    def check_cut(self, row: Conversation, ids: list[int], last: int) -> None:
        image_id = image_id_of(self._tokenizer())
        if image_id in ids[last:]:
            raise UserError(
                f"{row.where}: {len(row.pictures)} pictures of {self.slots_each()} tokens each, and what "
                f"is said, do not fit data.context={self.context}: slots of pictures are never cut off."
            )

    # --- What the model decides, or a checkpoint carries ---

    def slots_each(self) -> int:
        """Tokens of a picture.

        Raises:
            UserError: nobody says how many.
        """
        if self.slots is None:
            raise UserError(
                "data.slots is missing: how many vectors a new model has for a picture, such as 36 for "
                "48 x 48 pixels in patches of 8."
            )
        return self.slots

    def prepares(self) -> Any:
        """What makes ``pixel_values`` of a picture.

        Raises:
            UserError: neither model nor options say how.
        """
        if self.preprocess is None:
            if self.size is None:
                raise UserError("data.image_size is missing: the size of pictures for a new model.")
            with user_errors():
                self.preprocess = Preprocess(self.size)
        return self.preprocess

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            made = super()._tokenizer()
            with user_errors():
                self.tokenizer = with_image_token(made)
        assert self.tokenizer is not None
        return self.tokenizer

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size``, ``image_id`` and ``image_size``."""
        tokenizer = self._tokenizer()
        image_id, size = image_id_of(tokenizer), tokenizer.vocab_size
        table = size - (image_id == size - 1)  # a picture has no row in the table of words
        return {"vocab_size": table, "image_id": image_id, "image_size": self.prepares().size}

    def assets(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self.prepares())
        return {**super().assets(), "preprocess": fields, "slots": self.slots_each()}

    def use_assets(self, assets: dict[str, Any]) -> None:
        super().use_assets(assets)
        with user_errors():
            image_id_of(self._tokenizer())
            self.preprocess = as_preprocess(assets["preprocess"])
        slots, size = assets["slots"], tuple(self.preprocess.size)
        if self.slots not in (None, slots):
            raise UserError(f"data.slots={self.slots}, but the model has {slots} for a picture.")
        if self.size not in (None, size):
            raise UserError(f"data.image_size={self.size}, but the model's pictures are {size}.")
        self.slots = slots

    # --- Batches ---

    def packed(self, examples: list[Example], pad_id: int) -> PackedConversations:
        return PackedPictures(examples, self.context, pad_id, self.pixels("train"))

    def collate(self, split: str, pad_id: int) -> Callable[[list[tuple[int, Example]]], Any]:
        return partial(with_pictures, super().collate(split, pad_id), self.pixels(split))

    def pixels(self, split: str) -> Pixels:
        return Pixels(self.rows(split), self.prepares())


class Pixels:
    """The pictures of conversations, as the model sees them."""

    def __init__(self, rows: Sequence[Conversation], preprocess: Any) -> None:
        self.rows, self.preprocess = rows, preprocess

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Those of some conversations, one after another: ``(pictures, 3, height, width)``."""
        given = [picture for i in indices for picture in self.rows[i].pictures]
        return torch.stack([self.preprocess(shown(one, self.preprocess)) for one in given])


class PackedPictures(PackedConversations):
    """As there, with the pictures of each batch in ``pixel_values``."""

    def __init__(
        self, examples: Sequence[Example], context: int, pad_id: int, pixels: Pixels
    ) -> None:
        super().__init__(examples, context, pad_id)
        self.pixels = pixels
        begins = [part[0] for row in self.rows for part in row]
        self.told = dict(zip(begins, (one.row for one in examples), strict=True))

    def __getitems__(self, picks: list[Pick]) -> dict[str, Tensor]:
        shown = [self.told[first] for pick in picks for first, _ in self.rows[pick.index]]
        return {"pixel_values": self.pixels(shown), **super().__getitems__(picks)}


def with_pictures(
    collate: Callable[[list[tuple[int, Example]]], Any],
    pixels: Pixels,
    picked: list[tuple[int, Example]],
) -> dict[str, Any]:
    """A batch of conversations with a row each, and their pictures."""
    told = [pixels.rows[one.row] for _, one in picked]
    return {
        **collate(picked),
        "pixel_values": pixels([one.row for _, one in picked]),
        "pictures": [len(one.pictures) for one in told],
        "kind": [one.kind for one in told],
    }


def pictures_of(row: dict[str, Any], where: str) -> tuple[str, ...]:
    """The names of a line's pictures.

    Raises:
        UserError: it has none, or what is no name.
    """
    name = next((name for name in ("images", *IMAGE_COLUMNS) if name in row), "image")
    given = row.get(name)
    names = given if name == "images" else [given]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise UserError(
            f"{where} needs a picture in image, or several in a list of images, but {name} is {in_short(given)}."
        )
    return tuple(names)
