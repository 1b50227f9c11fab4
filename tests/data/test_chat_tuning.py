"""Conversations as a model learns them: what counts, what shares a row, and what is refused."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch

from family.inputs.chat import CHATML, TURNS
from family.inputs.conversation import prompt_ids
from family.inputs.tokenizer import Tokenizer
from family.losses.language_model import IGNORE
from tasks.data.chat_tuning import ChatTuningData
from tasks.data.tokenizers import SPECIALS, train_tokenizer
from tasks.errors import UserError

ANSWERS = ["a red circle", "no", "two blue squares and a star", "it is green", "four"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(question, answer, *more):
    roles = ("user", "assistant") * (1 + len(more))
    texts = (question, answer, *more)
    return [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]


def write(conversations, name="train.jsonl"):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"messages": one}) + "\n" for one in conversations)


@pytest.fixture
def talks(folder):
    rows = [said(f"what is in picture {i}?", ANSWERS[i % 5]) for i in range(23)]
    rows[3] += said("and now?", "a star")
    write(rows)
    write(rows[:7], "val.jsonl")
    return rows


def data_of(**options):
    given = {"tokenizer": "char", "context": 96, "batch_size": 4, **options}
    return ChatTuningData(given.pop("root", "."), **given)


def learnt(data, labels):
    """What labels say, special tokens included."""
    ids = [i for i in labels.tolist() if i != IGNORE]
    return data.tokenizer.inner.decode(ids, skip_special_tokens=False)


def answers(messages):
    return "".join(f"{m['content']}<|im_end|>" for m in messages if m["role"] == "assistant")


@pytest.mark.parametrize("context", [96, 200, 1000])
def test_rows_hold_whole_conversations_each_once(talks, context):
    data = data_of(context=context)
    data.setup("fit")
    loader, found, rows = data.loader("train"), [], 0
    for batch in loader:
        assert set(batch) == {"input_ids", "labels", "documents"}
        assert all(value.shape == (len(value), context) for value in batch.values())
        for ids, labels, documents in zip(*batch.values(), strict=True):
            rows += 1
            assert (documents[1:] - documents[:-1])[documents[1:] >= 0].min() >= 0
            assert (labels[documents < 0] == IGNORE).all()
            for number in range(int(documents.max()) + 1):
                own = documents == number
                text = data.tokenizer.inner.decode(ids[own].tolist(), skip_special_tokens=False)
                found.append((text, learnt(data, labels[own])))
                # Each label is the token after its own, the last one's that of no row.
                next_ones, inside = ids[own][1:], labels[own][:-1]
                assert ((inside == next_ones) | (inside == IGNORE)).all()
    expected = [
        (
            re.sub(r"<\|im_end\|>\n$", "", data.tokenizer.chat(m, add_generation_prompt=False)),
            answers(m),
        )
        for m in talks
    ]
    assert sorted(found) == sorted(expected)
    assert rows < len(talks) or context == 96


def test_validation_has_a_row_for_each(talks):
    data = data_of()
    data.setup("fit")
    found = []
    for batch in data.loader("val"):
        assert "documents" not in batch
        for i, messages in enumerate(batch["messages"]):
            found.append(batch["number"][i])
            assert messages == talks[found[-1]]
            assert batch["where"][i] == f"val.jsonl line {found[-1] + 1}"
            assert learnt(data, batch["labels"][i]) == answers(messages)
            prompt = prompt_ids(data.tokenizer, messages[:-1])
            assert batch["input_ids"][i, : len(prompt)].tolist() == prompt
    assert sorted(found) == list(range(7))


def test_the_built_in_dialogues_are_the_same_everywhere():
    one, other = (ChatTuningData(examples=30, vocab_size=300) for _ in range(2))
    for data in (one, other):
        data.setup("fit")
    assert one.rows("train") == other.rows("train") and len(one.rows("val")) == 100
    shared = {row.messages[0]["content"] for row in one.rows("train")}
    assert shared.isdisjoint(row.messages[0]["content"] for row in one.rows("val"))
    for example, row in zip(one.conversations("train"), one.rows("train"), strict=True):
        assert learnt(one, example.labels) == answers(row.messages)


def test_an_end_that_is_also_the_padding_is_learnt(talks, folder):
    made = train_tokenizer(
        "bpe", [m["content"] for t in talks for m in t], 300, specials=(*SPECIALS, *TURNS)
    )
    names = {"pad": "<|im_end|>", "eos": "<|im_end|>", "unk": "<unk>"}
    own = Tokenizer(made.inner, **names, chat_template=CHATML)
    data = data_of()
    data.use_assets({"tokenizers": {"text": own.to_json()}})
    data.setup("fit")
    end = own.token_to_id("<|im_end|>")
    assert data.tokenizer.pad_id == data.tokenizer.eos_id == end
    batch = next(iter(data.loader("train")))
    padding, conversations = batch["documents"] < 0, (batch["documents"].amax(1) + 1).sum()
    assert (
        conversations <= (batch["labels"] == end).sum() <= conversations + 1
    )  # one has two answers
    assert padding.any() and (batch["labels"][padding] == IGNORE).all()


# --- What is too long ---


def test_what_is_too_long_is_cut_or_left_out_and_said(talks, caplog):
    write([*talks, said("why?", "so " * 60), said("why? " * 30, "so")])
    data = data_of()
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "train.jsonl line 25: the prompt is longer than data.context=96 tokens and leaves no room for an "
        "answer; 1 of 25 in train left out.",
        "1 of 25 conversations in train are longer than data.context=96 tokens and lose their end.",
    ]
    found = data.conversations("train")
    assert [one.row for one in found] == list(range(24)) and len(found[-1].input_ids) == 96
    # A row of the context, each of whose last tokens is followed by one that is learnt.
    assert learnt(data, found[-1].labels).startswith("so so") and found[-1].labels[-1] != IGNORE


def test_a_later_answer_that_is_beyond_the_context_goes_with_its_question(talks):
    write([*talks, [*said("why?", "so"), *said("why? " * 30, "so")]])
    data = data_of()
    data.setup("fit")
    last = data.conversations("train")[-1]
    assert learnt(data, last.labels) == "so<|im_end|>"  # and nothing behind it
    assert last.labels[-1] == data.tokenizer.turn_end()


# --- Tokenizers and templates ---


def test_a_template_for_a_tokenizer_that_has_none(talks, folder, caplog):
    made = train_tokenizer("bpe", [m["content"] for t in talks for m in t], 300)
    (folder / "bare.json").write_text(made.inner.to_str())
    with pytest.raises(UserError, match=r"data.tokenizer='bare.json' has no chat template.*Jinja"):
        data_of(tokenizer="bare.json").setup("fit")
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (folder / "chat.jinja").write_text(plain)
    data = data_of(tokenizer="bare.json", chat_template="chat.jinja")
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    assert data.tokenizer.chat_template == plain
    assert [record.getMessage().split(",")[0].split(":")[0] for record in caplog.records] == [
        "the chat template ends answers with no special token that ends a text",
        "the chat template does not mark what the assistant says ({% generation %})",
    ]
    # A checkpoint's own stays, and is what the option says.
    again = data_of(chat_template="chat.jinja")
    again.use_assets(data.assets())
    (folder / "chat.jinja").write_text(plain + "!")
    with pytest.raises(
        UserError, match=r"data.chat_template=chat.jinja .*another chat template of its"
    ):
        data_of(chat_template="chat.jinja").use_assets(data.assets())
    with pytest.raises(UserError, match=r"nowhere.jinja does not exist"):
        data_of(chat_template="nowhere.jinja").setup("fit")


def test_marks_of_the_template_are_passed_over_in_silence(talks, caplog):
    with caplog.at_level(logging.INFO):
        data_of().setup("fit")
    assert not caplog.records


def test_what_a_checkpoint_says_of_generation(talks):
    data = data_of()
    end, eos = (data._tokenizer().token_to_id(t) for t in ("<|im_end|>", "<eos>"))
    assert data.assets()["generation"] == {"eos_token_id": sorted([eos, end]), "trained_tokens": 96}
    texts = data.assets()["tokenizers"]
    for own, expected in (
        ({"eos_token_id": 7, "top_p": 0.5}, {"eos_token_id": sorted([7, eos, end]), "top_p": 0.5}),
        ({}, {"eos_token_id": sorted([eos, end])}),  # a published model keeps its own length
        ({"trained_tokens": 40}, {"eos_token_id": sorted([eos, end]), "trained_tokens": 96}),
    ):
        data.use_assets({"tokenizers": texts, "generation": own})
        assert data.assets()["generation"] == expected


def test_characters_that_nobody_has_written_are_refused(talks):
    write([said("what?", "ŵ")], "val.jsonl")
    with pytest.raises(UserError, match=r"val.jsonl line 1: the tokenizer does not know .*'ŵ'"):
        data_of().setup("fit")


# --- Files ---


def test_one_file_is_divided_and_the_same_question_held_out_together(folder):
    write([said(f"what is {i % 10}?", ANSWERS[i % 5] + str(i)) for i in range(60)], "all.jsonl")
    data = data_of(root="all.jsonl", val_fraction=0.2, test_fraction=0.2)
    rows = {split: data.rows(split) for split in ("train", "val", "test")}
    assert sum(map(len, rows.values())) == 60
    asked = [{row.messages[0]["content"] for row in found} for found in rows.values()]
    assert sum(map(len, asked)) == len(set.union(*asked)) == 10


def test_sharegpt_is_read_too(folder):
    row = {"conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}]}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps(row) + "\n")
    found = data_of().read(folder / "train.jsonl")
    assert found[0].messages == said("why?", "so") and found[1].where.endswith("line 3")


REFUSES = (
    CHATML
    + "{% if 'silly' in messages[-1]['content'] %}{{ raise_exception('be serious') }}{% endif %}"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "message 2 is of the user"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}, "has no content"),
        ({"messages": said("a", "b", "c")}, "its last message must be the assistant's"),
        ({"text": "a"}, "has no messages or conversations, but: text"),
        ({"messages": said("a", "silly")}, "the chat template refuses: be serious."),
        ("nothing", "is no JSON object"),
    ],
)
def test_a_mistake_is_said_with_its_line_before_training(talks, folder, line, expected):
    tokenizer = train_tokenizer(
        "char", ["user assistant a b silly?\n"], specials=(*SPECIALS, *TURNS)
    )
    tokenizer.chat_template = REFUSES
    with open("train.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    data = data_of()
    data.use_assets({"tokenizers": {"text": tokenizer.to_json()}})
    with pytest.raises(UserError) as found:
        data.setup("fit")
    text = str(found.value)
    assert text.startswith("train.jsonl line 24") and expected in text and "\n" not in text


def test_prompts_that_leave_no_room_at_all(folder):
    write([said("why? " * 50, "so")] * 3)
    write([said("why?", "so")], "val.jsonl")
    with pytest.raises(
        UserError, match=r"^train.jsonl line 1 and others: .* all 3 conversations of train"
    ):
        data_of().setup("fit")


def test_a_template_without_the_assistant(talks, folder):
    (folder / "mute.jinja").write_text("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}"
                                       "<|im_end|>{% endif %}{% endfor %}")  # fmt: skip
    with pytest.raises(
        UserError, match=r"line 1: the chat template writes no word of the assistant's"
    ):
        data_of(chat_template="mute.jinja").setup("fit")


def test_a_resumed_run_packs_alike(talks):
    one, other = data_of(), data_of()
    other.use_assets(one.assets())
    pairs = zip(one.loader("train"), other.loader("train"), strict=True)
    assert all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)
