"""Pictures in conversations: each has a token of its own, which becomes as many as the picture has vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from family.inputs.tokenizer import Message, Tokenizer

IMAGE = "<image>"
"""The token that stands for a picture; written in a message it is one."""
DESCRIBE = "describe the picture."
"""What is asked of a picture, where nobody asks."""


def with_image_token(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer with the special token for pictures behind all others; one that has it stays as it is.

    Raises:
        ValueError: a tokenizer that takes no more tokens.
    """
    if tokenizer.token_to_id(IMAGE) in tokenizer.special_ids:
        return tokenizer
    if tokenizer.vocabulary is not None or tokenizer.target is not tokenizer:
        raise ValueError(
            f"the tokenizer has its vocabulary in files of its own, which take no token {IMAGE}."
        )
    made = Tokenizer.from_json(tokenizer.to_json())  # the one that was given stays as it is
    made.inner.add_special_tokens([IMAGE])
    return Tokenizer.from_json(made.to_json())


def image_id_of(tokenizer: Tokenizer) -> int:
    """The id of the token for pictures.

    Raises:
        ValueError: there is none.
    """
    found = tokenizer.token_to_id(IMAGE)
    if found is None:
        raise ValueError(f"the tokenizer has no token {IMAGE}, which stands for a picture.")
    return found


def place_pictures(messages: Sequence[Message], pictures: int) -> list[dict[str, Any]]:
    """A conversation with an ``<image>`` for each of its pictures: where it stands, or, where none does, all
    of them first in the user's first message.

    Raises:
        ValueError: not as many as pictures; or one that is not in what the user says.
    """
    made = [dict(one) for one in messages]
    there = [one["content"].count(IMAGE) for one in made]
    if not any(there) and pictures:
        first = next((one for one in made if one["role"] == "user"), None)
        if first is None:
            raise ValueError("there is no message of the user's for a picture to stand in.")
        first["content"] = f"{IMAGE}\n" * pictures + first["content"]
        return made
    for one, count in zip(made, there, strict=True):
        if count and one["role"] != "user":
            raise ValueError(
                f"{IMAGE} stands in what the {one['role']} says: pictures are for the user to show."
            )
    if sum(there) != pictures:
        raise ValueError(
            f"{IMAGE} stands {sum(there)} times in a conversation with {pictures} pictures: give each "
            "its place, or none."
        )
    return made


def spread(ids: Sequence[int], image_id: int, slots: int) -> list[int]:
    """Ids with so many tokens of a picture in the place of each one."""
    return [one for i in ids for one in ([i] * slots if i == image_id else [i])]
