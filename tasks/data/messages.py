"""Conversations in JSON lines, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.errors import UserError, in_short

Message = dict[str, str]
ROLES = ("system", "user", "assistant")
SHARED = {"human": "user", "gpt": "assistant", "system": "system"}
"""Roles as ShareGPT's files have them, by "from" and "value"."""


def conversation(value: Any, where: str, ends: str = "assistant") -> list[Message]:
    """The messages of a conversation: an optional "system", then "user" and "assistant" in turn.

    Args:
        value: a list of ``{"role": ..., "content": text}``, or of ``{"from": ..., "value": text}``.
        where: file and line, for messages.
        ends: the role of the last message.

    Raises:
        UserError: what is wrong with it, and where.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} is no conversation: it needs a list of messages.")
    messages = [message(one, f"{where}, message {i}") for i, one in enumerate(value, 1)]
    first = 2 if messages[0]["role"] == "system" else 1
    for i, one in enumerate(messages, 1):
        wanted = ("user", "assistant")[(i - first) % 2] if i >= first else "system"
        if one["role"] != wanted:
            raise UserError(
                f"{where}, message {i} is of the {one['role']}, where the {wanted} has the word: after "
                "an optional system message, user and assistant take turns."
            )
    if messages[-1]["role"] != ends:
        raise UserError(
            f"{where} ends with the {messages[-1]['role']}: its last message must be the {ends}'s."
        )
    return messages


def message(value: Any, where: str) -> Message:
    """One message, by its role and its text.

    Raises:
        UserError: it has none, or an unknown role.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is no object of a role and a content.")
    role, content = value.get("role"), value.get("content")
    if "from" in value and "role" not in value:
        role, content = SHARED.get(str(value["from"]), value["from"]), value.get("value")
    if role not in ROLES:
        raise UserError(
            f"{where} has the role {in_short(role)}: it must be one of {', '.join(ROLES)}."
        )
    if not isinstance(content, str) or not content.strip():
        raise UserError(f"{where}, of the {role}, has no content.")
    return {"role": str(role), "content": content}
