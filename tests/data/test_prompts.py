"""Prompts: what is read, what a batch has, and how often it is given."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from family.inputs.conversation import prompt_ids
from tasks.data.batching import LoaderProgress, Part
from tasks.data.prompts import PromptData, RepeatedBatches
from tasks.data.sums import pairs, sums
from tasks.errors import UserError

USER = {"role": "user", "content": "how many?"}


def write(folder, *rows):
    for split in ("train", "val", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PromptData(str(folder), vocab_size=280, batch_size=2)


def test_texts_and_fields_come_as_they_stand(tmp_path):
    rows = [{"prompt": "a b", "answer": 3, "kind": "x"}, {"prompt": "c", "answer": 4, "kind": "y"}]
    data = write(tmp_path, *rows)
    (batch,) = data.loader("val")
    assert batch["prompt"] == ["a b", "c"] and batch["index"] == [0, 1] and batch["use"] == 0
    assert batch["fields"] == {"answer": [3, 4], "kind": ["x", "y"]}
    assert batch["line"] == [1, 2] and batch["file"][0].endswith("val.jsonl")
    for row, mask, text in zip(batch["input_ids"], batch["mask"], ["a b", "c"], strict=True):
        assert row[mask].tolist() == prompt_ids(data.tokenizer, text)


def test_conversations_are_read_up_to_where_the_assistant_answers(tmp_path):
    data = write(tmp_path, {"prompt": [{"role": "system", "content": "be brief"}, USER]})
    (batch,) = data.loader("val")
    assert batch["prompt"] == ["how many?"]
    assert batch["fields"]["messages"][0][0]["content"] == "be brief"
    text = data.tokenizer.inner.decode(batch["input_ids"][0].tolist(), skip_special_tokens=False)
    assert text.endswith("how many?<|im_end|>\n<|im_start|>assistant\n")
    assert data.tokenizer.stop_ids() >= {data.tokenizer.token_to_id("<|im_end|>")}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "a"}], r'line 1 has no "prompt": it must be a text, or a list of messages'),
        ([{"prompt": " "}], r'line 1 has no "prompt"'),
        (
            [{"prompt": "a"}, {"prompt": "b", "x": 1}],
            "line 2 has the fields x, but line 1 has none",
        ),
        ([{"prompt": "a"}, {"prompt": [USER]}], "line 2: its prompt is of another kind"),
        ([{"prompt": "a", "answers": []}], "line 1 has a field 'answers'"),
        ([{"prompt": [USER, {"role": "assistant", "content": "two"}]}], "ends with the assistant"),
        ([{"prompt": [USER, USER]}], "message 2 is of the user, where the assistant has the word"),
        (
            [{"prompt": "a"}, {"prompt": "a " * 600}],
            r"line 2: the prompt has \d+ tokens, more than",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path, rows, says):
    with pytest.raises(UserError, match=says):
        write(tmp_path, *rows).setup()


def test_a_template_that_refuses_is_quoted_with_the_line(tmp_path):
    data = write(tmp_path, {"prompt": [USER]})
    data.prepare_data()
    data.tokenizer.chat_template = "{{ raise_exception('no system here') }}"
    with pytest.raises(UserError, match=r"line 1: the chat template refuses: no system here\."):
        data.setup()


def test_the_built_in_views_have_answers():
    data = PromptData(examples=20, vocab_size=300, batch_size=4)
    batch = next(iter(data.loader("val")))
    assert len(batch["fields"]["answer"]) == 4 and "messages" in batch["fields"]
    batch = next(iter(PromptData(view="sums", tokenizer="char").loader("train")))
    for prompt, answer in zip(batch["prompt"], batch["fields"]["answer"], strict=True):
        assert eval(prompt.removesuffix("=")) == int(answer)
    with pytest.raises(UserError, match="data.view='sum' is unknown; choose shapes or sums"):
        PromptData(view="sum")


def test_held_out_sums_are_held_out_in_either_order():
    splits = {split: {frozenset(p) for p in pairs(split)} for split in ("train", "val", "test")}
    assert not splits["val"] & (splits["train"] | splits["test"])
    assert sum(len(pairs(split)) for split in splits) == 90 * 90
    assert sums(5, 0, "val") == sums(9, 0, "val")[:5] != sums(5, 1, "val")


# --- How often a batch is given ---


def batches(uses, done=(), count=10, size=4):
    progress = LoaderProgress()
    progress.resumed = (0, [Part(*part) for part in done])
    return RepeatedBatches(count, size, uses, 0, progress)


@pytest.mark.parametrize("uses", [1, 3])
def test_each_batch_is_given_so_often_and_a_resumed_run_goes_on(uses):
    whole = list(batches(uses))
    assert len(whole) == len(batches(uses)) == 2 * uses
    assert [[pick.use for pick in batch] for batch in whole[:uses]] == [
        [u] * 4 for u in range(uses)
    ]
    assert len({tuple(pick.index for pick in batch) for batch in whole[:uses]}) == 1
    for done in range(len(whole) + 1):
        rest = batches(uses, [(done, 1, [4, uses])])
        assert list(rest) == whole[done:] and rest.left() == len(whole) - done


def test_other_batches_go_on_with_prompts_that_are_not_begun():
    seen = {pick.index for pick in next(iter(batches(2)))}
    rest = [[pick.index for pick in batch] for batch in batches(1, [(1, 1, [4, 2])], size=3)]
    assert len(rest) == 2 and not seen & {i for batch in rest for i in batch}


def test_the_task_says_how_often(tmp_path):
    data = write(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"})
    assert len(list(data.loader("train"))) == 1
    data.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(uses=3), world_size=1, global_rank=0, current_epoch=0
    )
    found = list(data.loader("train"))
    assert [batch["use"] for batch in found] == [0, 1, 2]
    assert all(torch.equal(found[0]["input_ids"], batch["input_ids"]) for batch in found)
