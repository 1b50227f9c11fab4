"""Pairs of answers: how they are read, cut and laid out, and what is wrong with a file, by its line."""

from __future__ import annotations

import json

import pytest
import torch

from family.inputs.chat import CHATML
from family.inputs.conversation import answer_ids, prompt_ids
from family.losses.language_model import IGNORE
from tasks.data.preferences import PreferenceData
from tasks.data.tokenizers import train_tokenizer
from tasks.errors import UserError

USER = [{"role": "user", "content": "how many?"}]
GOOD = {"prompt": USER, "chosen": "two", "rejected": "three"}


def said(text, role="assistant"):
    return {"role": role, "content": text}


def written(folder, *rows, **options):
    for split in ("train", "val", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)
    return PreferenceData(str(folder), **{"tokenizer": "char", "batch_size": 4, **options})


def test_all_layouts_say_the_same(tmp_path):
    whole = [*USER, said("two")], [*USER, said("three")]
    data = written(
        tmp_path,
        GOOD,
        {"prompt": USER, "chosen": [said("two")], "rejected": [said("three")]},
        {"chosen": whole[0], "rejected": whole[1]},
        {"prompt": "how many?", "chosen": "two", "rejected": "three"},
    )
    rows = data.rows("train")
    assert [row.prompt for row in rows] == [USER, USER, USER, "how many?"]
    assert {(row.chosen, row.rejected) for row in rows} == {("two", "three")}
    assert [row.line for row in rows] == [1, 2, 3, 4]
    keys = [one.key for one in data.encoded("train")]
    assert len(set(keys)) == 2 and keys[0] == keys[2] != keys[3]


def test_a_batch_has_prompt_and_answer_cut_apart(tmp_path):
    data = written(tmp_path, GOOD, {**GOOD, "prompt": "so how many? "})
    (batch,) = data.loader("val")
    tokenizer = data.tokenizer
    assert tokenizer.chat_template == CHATML
    for i, pair in enumerate(batch["index"]):
        prompt = prompt_ids(tokenizer, data.rows("val")[pair].prompt)
        for side, answer in enumerate(("two", "three")):
            own = answer_ids(tokenizer, data.rows("val")[pair].prompt, answer)
            ids = batch["input_ids"][i, side][batch["mask"][i, side]]
            assert ids.tolist() == [*prompt, *own]
            labels = batch["labels"][i, side]
            assert labels[labels != IGNORE].tolist() == own
            place = len(prompt) - 1  # the last of the prompt says the first of the answer
            assert labels[place : place + len(own)].tolist() == own
    again = written(tmp_path, GOOD, {**GOOD, "prompt": "so how many? "})
    assert torch.equal(next(iter(again.every("val")))["key"], batch["key"])


def test_long_answers_are_cut_and_what_is_then_alike_left_out(tmp_path, caplog):
    long = {"prompt": "how many?", "chosen": "three" * 9 + "!", "rejected": "three" * 9 + "?"}
    data = written(tmp_path, long, {**GOOD, "prompt": "how many?"}, max_tokens=14)
    found = data.encoded("train")
    assert [one.place for one in found] == [1]
    assert "1 that are alike up to there are left out" in caplog.text
    assert max(map(len, found[0].rows)) == 14
    data = written(tmp_path, long, max_tokens=14)
    with pytest.raises(UserError, match="alike in their first 14 tokens"):
        data.setup()


def test_margins_stand_in_the_batch(tmp_path):
    data = written(tmp_path, {**GOOD, "margin": 2}, {**GOOD, "margin": 0.5, "chosen": "one"})
    (batch,) = data.loader("val")
    assert sorted(batch["margin"].tolist()) == [0.5, 2] and data.has_margins("train")


def test_one_file_is_divided_by_prompts(tmp_path):
    rows = [{**GOOD, "prompt": f"{i % 20} how many?", "rejected": f"{i}"} for i in range(60)]
    file = tmp_path / "all.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = PreferenceData(str(file), tokenizer="char")
    prompts = [{row.prompt for row in data.rows(split)} for split in ("train", "val", "test")]
    assert all(prompts) and not (prompts[0] & prompts[1] or prompts[0] & prompts[2])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({**GOOD, "rejected": "two"}, "line 2: chosen and rejected are equal"),
        ({**GOOD, "chosen": ""}, "line 2 has an empty chosen"),
        ({**GOOD, "chosen": "  "}, "line 2, chosen is empty"),
        ({"prompt": USER, "chosen": "two"}, "line 2 has no rejected"),
        ({**GOOD, "prompt": " "}, "line 2 has an empty prompt"),
        ({"chosen": "two", "rejected": "three"}, "line 2 has no prompt: without one"),
        ({**GOOD, "prompt": [said("a")]}, "line 2, prompt, message 1 is of the assistant, where"),
        ({**GOOD, "prompt": [*USER, said("a")]}, "line 2, prompt ends with the assistant"),
        ({**GOOD, "chosen": [said("a", "user")]}, "line 2, chosen is of the user: it must be"),
        ({**GOOD, "chosen": [said("a"), *USER]}, "line 2, chosen has 2 messages"),
        (
            {**GOOD, "prompt": "a", "chosen": [said("a")]},
            "line 2, chosen is a list: it must be a te",
        ),
        (
            {"chosen": [*USER, said("a")], "rejected": [said("no?", "user"), said("b")]},
            "line 2: chosen and rejected must be one conversation up to .* they part after 0 messages",
        ),
        ({"chosen": [*USER, said("a")], "rejected": [*USER, said("a")]}, "line 2: .* are equal"),
        ({**GOOD, "margin": "much"}, "line 2 has the margin 'much': it must be a number"),
        ({**GOOD, "margin": -1}, "line 2 has the margin -1"),
        ({**GOOD, "margin": 1}, r"line 1 has no margin, but .* line 2 has one"),
        (
            {**GOOD, "prompt": "how many? " * 30},
            "line 2: the prompt has 300 tokens, which leaves no",
        ),
    ],
)
def test_mistakes_are_one_sentence_with_their_line(tmp_path, row, sentence):
    with pytest.raises(UserError, match=sentence):
        written(tmp_path, GOOD, row).setup("fit")


def test_a_template_that_refuses_says_so_in_its_own_words(tmp_path):
    tokenizer = train_tokenizer("char", ["how many? two three"])
    tokenizer.chat_template = "{{ raise_exception('we take no users') }}"
    (tmp_path / "data").mkdir()
    data = written(tmp_path / "data", GOOD)
    data.use_assets({"tokenizers": {"text": tokenizer.to_json()}})
    with pytest.raises(UserError, match=r"line 1: the chat template refuses: we take no users\."):
        data.setup("fit")
    tokenizer.chat_template = None
    data.use_assets({"tokenizers": {"text": tokenizer.to_json()}})
    with pytest.raises(UserError, match=r"line 1: this tokenizer has no chat template"):
        data.setup("fit")
