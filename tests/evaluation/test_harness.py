"""Through lm-evaluation-harness and by our own short path: the same scores, to the last digit."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
import yaml

from family.inference.likelihood import encode_pairs, log_likelihoods
from tasks.errors import UserError
from tasks.evaluation.files import read_task
from tasks.evaluation.scores import outcomes_of, summary

lm_eval = pytest.importorskip("lm_eval")
harness = importlib.import_module("tasks.evaluation.harness")

SHAPES = ["circle", "square", "star", "cross", "heart", "hexagon"]
CHOICES = [
    {
        "question": f"Q{i}: what is {i} times as red as a {SHAPES[i % 6]}?",
        "choices": [
            f"the {name}" * (1 + (i + n) % 3) + "é" * n for n, name in enumerate(SHAPES[:4])
        ],
        "answer": i % 4,
    }
    for i in range(12)
]
COMPLETIONS = [{"prompt": f"{i} red", "completion": f"{name}s"} for i, name in enumerate(SHAPES)]
PAIRS = [
    {
        "sentence_good": f"the {SHAPES[i % 6]} is red, {i}",
        "sentence_bad": f"the {SHAPES[i % 6]} are red, {i}",
        "field": "syntax" if i % 2 else "morphology",
        "linguistics_term": "agreement",
    }
    for i in range(12)
]
PAIRS.append({**PAIRS[0], "sentence_bad": PAIRS[0]["sentence_good"]})  # as likely, and right
OURS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True}
                        for name in ("acc", "acc_norm", "acc_bytes")],
    },
    "completions": {
        "output_type": "loglikelihood",
        "doc_to_text": "prompt",
        "doc_to_target": "{{' ' + completion}}",
        "target_delimiter": "",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
}  # fmt: skip


def their_task(name, rows, **config):
    """A task of the harness over rows in memory."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    split = config.get("validation_split", "test")
    config = {
        "task": name,
        **config,
        "custom_dataset": lambda **_: {split: Dataset.from_list(rows)},
    }
    if "validation_split" not in config:
        config |= {"test_split": "test", "fewshot_split": "test"}
    return ConfigurableTask(config=config)


def through(model, name, task, shots=0, limit=None, batch_size=5):
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    found = lm_eval.evaluate(
        lm=harness.HarnessModel(model, batch_size),
        task_dict={name: task},
        limit=limit,
        bootstrap_iters=10,
        log_samples=False,
    )
    return found["results"][name]


def written(tmp_path, rows):
    file = tmp_path / "task.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def by_ourselves(tmp_path, model, rows, shots=0, limit=None, batch_size=3):
    task = read_task(written(tmp_path, rows))
    outcomes = outcomes_of(model, task, shots, 1234, limit, batch_size)
    return {record["metric"]: record for record in summary(outcomes)}


def blimp():
    """The harness's own definition."""
    file = Path(lm_eval.__file__).parent / "tasks" / "blimp" / "_template_yaml"
    return {k: v for k, v in yaml.safe_load(file.read_text()).items() if k != "dataset_path"}


@pytest.mark.parametrize("kind", ["choices", "completions"])
def test_examples_are_drawn_as_theirs(tmp_path, kind):
    rows = [*CHOICES, CHOICES[0], CHOICES[0]] if kind == "choices" else COMPLETIONS
    task = their_task(kind, rows, **OURS[kind])
    for seed in range(5):
        task.set_fewshot_seed(seed)
        theirs = [task.fewshot_context(row, 3) for row in task.test_docs()]
        file = read_task(written(tmp_path, rows))
        drawn = zip(file.items, file.shown(3, seed), strict=True)
        ours = [item.pairs(examples)[0][0] for item, examples in drawn]
        assert ours == theirs
        # Never the item itself, nor one that says the same.
        assert all(
            text.count(item.prompt) == 1 for text, item in zip(ours, file.items, strict=True)
        )


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("kind", ["pairs", "choices", "completions"])
def test_scores_are_the_same(tmp_path, model, kind, shots):
    rows = {"pairs": PAIRS, "choices": [*CHOICES, CHOICES[0]], "completions": COMPLETIONS}[kind]
    if kind == "pairs" and shots:
        pytest.skip("they take none")
    task = their_task(kind, rows, **(blimp() if kind == "pairs" else OURS[kind]))
    for limit in (None, 4):
        theirs = through(model, kind, task, shots, limit)
        ours = by_ourselves(tmp_path, model, rows, shots, limit)
        assert ours.keys() == {name.split(",")[0] for name in theirs if name.endswith(",none")
                               and "stderr" not in name}  # fmt: skip
        for name, record in ours.items():
            assert record["value"] == pytest.approx(theirs[f"{name},none"], rel=1e-6)
            if name != "perplexity":  # theirs by a bootstrap
                assert record["stderr"] == pytest.approx(theirs[f"{name}_stderr,none"], rel=1e-6)


def test_contexts_are_encoded_as_theirs(model):
    pairs = [
        ("a red ", "circle"),
        ("a red", " circle"),
        ("the star\n\n", "is small"),
        ("thre", "e"),
    ]
    wrapped = harness.HarnessModel(model)
    assert encode_pairs(model.tokenizer, pairs) == [wrapped._encode_pair(*pair) for pair in pairs]
    found = importlib.import_module("lm_eval.api.model").TemplateLM.loglikelihood(
        wrapped, [asked(*p) for p in [*pairs, ("", "a")]]
    )
    ours = log_likelihoods(model, [*pairs, ("", "a")])
    assert found == [(one.total, one.greedy) for one in ours]


def asked(*args, kind="loglikelihood"):
    instance = importlib.import_module("lm_eval.api.instance").Instance
    return instance(request_type=kind, doc={}, arguments=args, idx=0, metadata=("t", 0, 1))


def test_a_rolling_likelihood_has_their_windows(make_model):
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    model = make_model(max_tokens=8)
    wrapped = harness.HarnessModel(model)
    text = "the star is small, three large crosses above two blue squares"
    ids = model.tokenizer.encode(text)
    windows = map(
        make_disjoint_window,
        get_rolling_token_windows(ids, model.tokenizer.bos_id, 8, 1),
    )
    theirs = sum(total for total, _ in wrapped._loglikelihood_tokens([(None, *w) for w in windows]))
    assert len(ids) > 16
    assert wrapped.loglikelihood_rolling([asked(text), asked("")]) == [pytest.approx(theirs), 0.0]


def test_answers_end_where_the_task_says_and_no_batch_moves_them(model):
    prompts = ["a red", "the star is small, three large crosses", "two blue squares above", "Q"]
    free = {"until": [], "max_gen_toks": 12}
    one, all_of = (
        harness.HarnessModel(model, size).generate_until([asked(p, free) for p in prompts])
        for size in (1, 4)
    )
    assert one == all_of
    for prompt, text in zip(prompts, one, strict=True):
        new = model.generate(torch.tensor([model.tokenizer.encode(prompt)]), max_new_tokens=12)[
            0
        ].tolist()
        assert text == model.tokenizer.decode(new)
    stop = one[0][4:6]
    ended = {"until": [stop], "max_gen_toks": 12, "do_sample": False}
    (text,) = harness.HarnessModel(model).generate_until([asked(prompts[0], ended)])
    assert text == one[0].split(stop)[0]
    with pytest.raises(ValueError, match="num_beams=4, which is unknown here"):
        harness.HarnessModel(model).generate_until([asked("a", {"num_beams": 4})])


def test_long_prompts_are_cut_and_counted(make_model):
    model = make_model(max_tokens=8)
    wrapped = harness.HarnessModel(model)
    long, short = asked("the star is small, three large crosses", " above"), asked("a", " red")
    wrapped.loglikelihood([long, short])
    assert wrapped.cut == {"t": 1}
    wrapped.generate_until([asked("the star is small, three large crosses", {"max_gen_toks": 4})])
    assert wrapped.cut == {"t": 2}
    with pytest.raises(ValueError, match="256 new tokens, which leave no room for a prompt"):
        wrapped.generate_until([asked("a", {})])


def test_a_conversation(make_model):
    model = make_model()
    model.tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    wrapped = harness.HarnessModel(model, chat=True)
    asks = [{"role": "user", "content": "a red"}]
    text = wrapped.apply_chat_template(asks)
    assert text == "<bos><user>a red<eos><assistant>"
    begun = [*asks, {"role": "assistant", "content": "the star is"}]
    assert wrapped.apply_chat_template(begun, add_generation_prompt=False).endswith("the star is")
    # What the template spells is special, and not said again.
    assert wrapped.tok_encode(text) == model.tokenizer.chat_ids(asks)


def test_an_unknown_task(model, monkeypatch):
    class Manager:  # to read all of theirs takes half a minute
        all_tasks = ("hellaswag", "arc_easy")

        def match_tasks(self, names):
            return [name for name in names if name in self.all_tasks]

    monkeypatch.setattr(harness, "TaskManager", Manager)
    with pytest.raises(UserError, match="no task 'hellaswagg'. Did you mean 'hellaswag'"):
        list(harness.harness_records(harness.HarnessModel(model), ["arc_easy", "hellaswagg"]))


@pytest.mark.slow  # the harness loads much
def test_tasks_by_their_names(tmp_path, model, monkeypatch):
    """From the harness's own files to records, with the shots that are asked for."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(written(tmp_path, CHOICES))}},
    }
    missing = {"dataset_path": str(tmp_path / "nowhere")}
    for name, where in (("mine", data), ("gone", missing)):
        config = {
            "task": name,
            "test_split": "test",
            "fewshot_split": "test",
            **where,
            **OURS["choices"],
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    manager = harness.TaskManager
    monkeypatch.setattr(
        harness, "TaskManager", lambda: manager(include_path=str(tmp_path), include_defaults=False)
    )
    found = list(harness.harness_records(harness.HarnessModel(model, 4), ["mine"], 2, 8))
    ours = by_ourselves(tmp_path, model, CHOICES, 2, 8)
    assert {row["metric"]: row["value"] for row in found} == pytest.approx(
        {name: record["value"] for name, record in ours.items()}
    )
    assert {(row["task"], row["items"], row["shots"], row["cut"]) for row in found} == {
        ("mine", 8, 2, 0)
    }
    with pytest.raises(UserError, match="^gone cannot be loaded: "):
        list(harness.harness_records(harness.HarnessModel(model), ["gone"]))
    with pytest.raises(UserError, match="tokenizer has no chat template"):
        list(harness.harness_records(harness.HarnessModel(model, chat=True), ["mine"]))
