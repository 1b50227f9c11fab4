"""Conversations in JSON lines: what is read, and one sentence for whatever is wrong."""

from __future__ import annotations

import pytest

from tasks.data.messages import conversation
from tasks.errors import UserError

USER = {"role": "user", "content": "what is it?"}
ASSISTANT = {"role": "assistant", "content": "a circle"}
SYSTEM = {"role": "system", "content": "be brief."}


def test_both_ways_to_write_one():
    messages = [SYSTEM, USER, ASSISTANT, USER, ASSISTANT]
    assert conversation(messages, "x") == messages
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    shared = [{"from": names[m["role"]], "value": m["content"]} for m in messages]
    assert conversation(shared, "x") == messages
    assert conversation([USER], "x", ends="user") == [USER]
    more = [{**USER, "name": "somebody"}, ASSISTANT]
    assert conversation(more, "x") == [USER, ASSISTANT]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([USER, USER, ASSISTANT], "message 2 is of the user, where the assistant has the word"),
        ([ASSISTANT], "message 1 is of the assistant, where the user has the word"),
        ([SYSTEM, ASSISTANT], "message 2 is of the assistant, where the user has the word"),
        ([USER, SYSTEM, ASSISTANT], "message 2 is of the system, where the assistant has the word"),
        ([USER, ASSISTANT, USER], "ends with the user: its last message must be the assistant's"),
        ([SYSTEM], "ends with the system"),
        ([USER, {"role": "assistant"}], "message 2, of the assistant, has no content"),
        (
            [USER, {"role": "assistant", "content": " \n"}],
            "message 2, of the assistant, has no con",
        ),
        ([USER, {"role": "assistant", "content": None}], "message 2, of the assistant, has no con"),
        ([{"role": "user", "content": 7}, ASSISTANT], "message 1, of the user, has no content"),
        ([USER, {"from": "gpt"}], "message 2, of the assistant, has no content"),
        (
            [{"role": "tool", "content": "x"}],
            "message 1 has the role 'tool': it must be one of sys",
        ),
        ([{"from": "bing", "value": "x"}], "message 1 has the role 'bing'"),
        ([{"content": "x"}], "message 1 has the role None"),
        (["what is it?"], "message 1 is no object of a role and a content"),
        ([], "is no conversation: it needs a list of messages"),
        ("what is it?", "is no conversation: it needs a list of messages"),
        (None, "is no conversation: it needs a list of messages"),
    ],
)
def test_what_is_wrong_is_said_with_the_line(value, said):
    with pytest.raises(UserError) as found:
        conversation(value, "chat.jsonl line 3")
    assert str(found.value).startswith("chat.jsonl line 3") and said in str(found.value)
    assert "\n" not in str(found.value)
