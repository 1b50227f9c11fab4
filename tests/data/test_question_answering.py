"""Questions: files, division by paragraphs, windows and the tokens of answers, each mistake in a sentence."""

from __future__ import annotations

import json

import pytest
import torch

from tasks.data.question_answering import QuestionAnsweringData
from tasks.data.squad import asked_shapes, read_questions
from tasks.errors import UserError

TEXT = "Ann lives in a red house by the sea, and Bob in the big white one."


def question(name, asked, *answers, text=TEXT, **more):
    given = [{"text": answer, "answer_start": text.index(answer)} for answer in answers]
    return {"id": name, "question": asked, "answers": given, **more}


def squad(*paragraphs):
    """Pairs of a text and its questions, two paragraphs an article."""
    rows = [{"context": text, "qas": list(qas)} for text, qas in paragraphs]
    articles = [rows[i : i + 2] for i in range(0, len(rows), 2)]
    return json.dumps(
        {"version": "2.0", "data": [{"title": "x", "paragraphs": a} for a in articles]}
    )


SOME = [
    question("1", "Who lives by the sea? ", "Ann"),
    question("2", "Whose house is white?", "Bob", "Bob in the big white one"),
    question("3", "Who is Eve?", is_impossible=True),
]


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")


def data(root=None, **options):
    given = {"tokenizer": "char", "max_tokens": 60, "stride": 10, "batch_size": 4}
    return QuestionAnsweringData(None if root is None else str(root), **{**given, **options})


def test_both_kinds_of_files_say_the_same(tmp_path):
    columns = {"text": ["Bob"], "answer_start": [TEXT.index("Bob")]}
    lines = [
        {**SOME[0], "context": TEXT},
        {**SOME[1], "context": TEXT, "answers": columns},
        {**SOME[2], "context": TEXT},
    ]
    write(tmp_path, a__json=squad((TEXT, SOME)), b__jsonl="\n".join(map(json.dumps, lines)))
    one, other = (read_questions(tmp_path / name) for name in ("a.json", "b.jsonl"))
    assert [row.id for row in one] == [row.id for row in other] == ["1", "2", "3"]
    assert one[0].question == "Who lives by the sea?" and one[0].answers == other[0].answers
    assert [len(row.answers) for row in one] == [1, 2, 0]
    assert len({row.paragraph for row in one}) == len({row.paragraph for row in other}) == 1
    likely = {**SOME[2], "plausible_answers": SOME[0]["answers"], "answers": SOME[0]["answers"]}
    write(tmp_path, a__json=squad((TEXT, [likely])))
    assert read_questions(tmp_path / "a.json")[0].answers == ()


def parallel(language):
    """Forty paragraphs in a language, one to three questions each."""
    found = []
    for i in range(40):
        text = f"{language} {i} says that."
        found.append(
            (text, [question(f"{i}-{n}", "what?", str(i), text=text) for n in range(1 + i % 3)])
        )
    return squad(*found)


def test_one_file_is_divided_by_paragraphs_alike_in_all_languages(tmp_path):
    write(tmp_path, en__json=parallel("English"), de__json=parallel("Deutsch, mit mehr"))
    splits = {}
    for language in ("en", "de"):
        made = data(tmp_path / f"{language}.json", val_fraction=0.1, test_fraction=0.2)
        splits[language] = {split: [row.id for row in made.rows(split)] for split in made.splits}
        places = {split: {row.paragraph for row in made.rows(split)} for split in made.splits}
        assert not places["test"] & places["train"] and not places["val"] & places["train"]
    assert splits["en"] == splits["de"]
    count = sum(map(len, splits["en"].values()))
    assert len(splits["en"]["test"]) == pytest.approx(0.2 * count, abs=2)
    other = data(tmp_path / "en.json", val_fraction=0, test_fraction=0.2, split_seed=1)
    assert [row.id for row in other.rows("test")] != splits["en"]["test"] and not other.rows("val")


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_the_tokens_of_an_answer_spell_it(tmp_path, kind):
    write(tmp_path, **{f"{split}__json": squad((TEXT, SOME)) for split in ("train", "val", "test")})
    made = data(tmp_path, tokenizer=kind, vocab_size=290 if kind == "bpe" else 50)
    made.setup("fit")
    assert made.impossible and made.model_arguments["num_classes"] == 2
    whole = {}
    for batch in made.val_dataloader():
        assert batch["input_ids"].shape[1] <= 60 and batch["places"].shape[2] == 2
        for i, name in enumerate(batch["id"]):
            first, last = int(batch["starts"][i]), int(batch["ends"][i])
            ids = batch["input_ids"][i]
            assert ids[0] == made.tokenizer.bos_id and batch["question"][i] == int(name) - 1
            said = made.tokenizer.decode(ids[batch["token_types"][i] == 0].tolist())
            assert said.strip() == batch["asked"][i]
            if first == 0:
                assert last == 0
                continue
            start, end = batch["places"][i, first, 0], batch["places"][i, last, 1]
            assert TEXT[start:end] == batch["answers"][i][0]
            whole[name] = True
    assert whole == {"1": True, "2": True}


def test_windows_of_a_question_are_in_one_batch_in_evaluation_alone(tmp_path):
    long = TEXT * 4
    many = [question(str(i), "Where?", "sea", text=long) for i in range(9)]
    write(tmp_path, **{f"{split}__json": squad((long, many)) for split in ("train", "val")})
    made = data(tmp_path, batch_size=12)
    made.setup("fit")
    seen = [set(batch["question"]) for batch in made.val_dataloader()]
    assert len(seen) > 1 and sum(map(len, seen)) == 9
    batches = list(made.train_dataloader())
    assert all(len(batch["question"]) <= 12 for batch in batches)
    rows = sum(len(batch["question"]) for batch in batches)
    windows = list(made.read_windows(made.rows("train")))
    assert rows == sum(map(len, windows)) > 9
    found = [window.start > 0 for window in windows[0]]
    assert any(found) and not all(found)


def test_questions_without_answers_are_for_prediction(tmp_path):
    bare = {"id": "7", "question": "Who?"}
    write(tmp_path, train__json=squad((TEXT, SOME)), val__json=squad((TEXT, SOME)))
    write(tmp_path, test__json=squad((TEXT, [bare])))
    made = data(tmp_path)
    made.setup("predict")
    (batch,) = made.predict_dataloader()
    assert set(batch["id"]) == {"7"} and batch["answers"][0] == []
    with pytest.raises(
        UserError, match=r"test.json: data\[0\].paragraphs\[0\].qas\[0\] has no list"
    ):
        made.test_dataloader()


def test_the_world_of_shapes_answers_by_what_it_says():
    rows = asked_shapes(600, 0, "train")
    assert all(r.context[a.start :].startswith(a.text) for r in rows for a in r.answers)
    share = sum(not row.answers for row in rows) / len(rows)
    assert 0.1 < share < 0.3 and len({row.id for row in rows}) == 600
    assert not {row.context for row in rows} & {row.context for row in asked_shapes(200, 0, "val")}
    for row in rows:
        if not row.answers:  # neither the shape nor the place alone tells
            shape, _, place = row.question.partition(" is the ")[2][:-1].partition(" ")
            assert f"{shape} is" in row.context and f"is {place}" in row.context
            assert f"{shape} is {place}" not in row.context


# --- Mistakes ---


def broken(**change):
    return squad((TEXT, [{**SOME[0], **change}]))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("{", "train.json is not JSON: line 1"),
        ("[]", "train.json has no list 'data'"),
        (squad(("  ", SOME)), r"data\[0\].paragraphs\[0\] has an empty 'context'"),
        (broken(question=" "), r"qas\[0\] has an empty 'question'"),
        (broken(question=3), r"qas\[0\] has no text 'question'"),
        (broken(answers=None), r"qas\[0\] has no list 'answers'"),
        (broken(answers=[]), "question 1 has no answers, but is_impossible is not true"),
        (
            broken(answers=[{"text": "Ann", "answer_start": 4}]),
            "question 1: the answer 'Ann' is said to stand at character 4, but 'liv' stands there",
        ),
        (broken(answers=[{"text": "Ann", "answer_start": -3}]), "at character -3, but"),
        (
            broken(answers=[{"text": "Ann", "answer_start": "0"}]),
            "question 1: answer_start='0' of 'Ann' is no number",
        ),
        (broken(answers=[{"answer_start": 0}]), "question 1: an answer has no text 'text'"),
        (
            squad((TEXT, [SOME[0], {**SOME[1], "id": "1"}])),
            "question 1 has the id of .*train.json: question 1: ids must differ",
        ),
        (squad(), "holds no question"),
        (
            broken(question="who is it that lives in a red house by the sea, and why?"),
            "train.json: question 1: 'who is .*' has 56 tokens, which leaves 1 of max_tokens=60",
        ),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, file, words):
    write(tmp_path, train__json=file, val__json=squad((TEXT, SOME)))
    with pytest.raises(UserError, match=words) as caught:
        data(tmp_path).setup("fit")
    assert "\n" not in str(caught.value)


def test_bad_lines_and_options(tmp_path):
    row = {"question": "Who?", "context": TEXT}
    for line, words in (
        ("{", "train.jsonl line 1 is not JSON"),
        (json.dumps({"question": "Who?"}), "train.jsonl line 1 has no text 'context'"),
        (json.dumps(row), "train.jsonl line 1 has no list 'answers'"),
        (
            json.dumps({**row, "answers": {"text": ["Ann"], "answer_start": []}}),
            "line 1 has 1 answers in 'text', but 0 in 'answer_start'",
        ),
    ):
        write(tmp_path, train__jsonl=line)
        with pytest.raises(UserError, match=words):
            data(tmp_path).rows("train")
    with pytest.raises(UserError, match=r"data\.stride must be at least 0"):
        data(stride=-1)


def test_a_batch_of_padding(tmp_path):
    made = data(tokenizer="bpe", vocab_size=300, examples=40, max_tokens=200, batch_size=40)
    made.setup("fit")
    batch = next(iter(made.train_dataloader()))
    assert (batch["places"][~batch["mask"]] == -1).all()
    assert torch.equal(
        batch["input_ids"][~batch["mask"]].unique(), torch.tensor([made.tokenizer.pad_id])
    )


def test_a_text_that_stands_in_several_paragraphs_is_in_one_split(tmp_path):
    again = [(TEXT, [question(str(i), f"Who is {i}?", "Ann")]) for i in range(3)]
    other = ("Bob is here.", [question("9", "Who is here?", "Bob", text="Bob is here.")])
    write(tmp_path / "d", **{"all.json": squad(*again, other)})
    rows = read_questions(tmp_path / "d/all.json")
    groups = [row.paragraph for row in rows]
    assert groups[0] == groups[1] == groups[2] != groups[3]
