"""A language model of ours behind lm-evaluation-harness's interface (extra ``eval``), which then has its own
tasks, examples, normalisations and stop rules (Gao et al. 2024)::

    lm_eval.simple_evaluate(model=HarnessModel(family.load("RUN").model), tasks=["hellaswag"])
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import lm_eval
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager

from family import Sampling
from family.inference.batches import TEXTS, chunks, device_of
from family.inference.likelihood import (
    Likelihood,
    begin_of,
    begun_once,
    encode_pairs,
    log_likelihoods,
    longest_read,
    score,
)
from family.inference.pieces import pieces, until
from family.inference.texts import random_numbers, stops_of
from family.inputs.encode import pad_rows
from family.models.member import longest_text
from tasks.errors import UserError, closest

DRAWING = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call the most tokens of an answer, the first that is there counts."""
NEW_TOKENS = 256
"""Of a generated answer, where a task does not say: the harness's own."""


class HarnessModel(TemplateLM):
    """What the harness asks of a model.

    Args:
        model: a language model with its ``tokenizer``.
        batch_size: texts at a time; no score depends on it.
        seed: of what is drawn, where a task draws.
        chat: prompts are written by the tokenizer's chat template, whose special tokens they spell.
    """

    def __init__(
        self, model: Any, batch_size: int = TEXTS, seed: int = 0, chat: bool = False
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.chat = model, model.tokenizer, chat
        self.batch_size, self.generator = batch_size, random_numbers(model, seed)
        self.cut: Counter[str] = Counter()
        """Of each task, how many prompts were longer than what the model reads."""

    @property
    def eot_token_id(self) -> int | None:
        return self.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int | None:
        return begin_of(self.tokenizer)

    @property
    def max_length(self) -> int | None:
        return longest_read(self.model)

    @property
    def tokenizer_name(self) -> str:
        return type(self.model).__name__

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **options: Any
    ) -> list[int]:
        if add_special_tokens is False:
            return self.tokenizer.encode(string, parse_special=self.chat)
        return begun_once(self.tokenizer, [string], self.chat)[0]

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        pairs = [request.args for request in requests]
        found = log_likelihoods(self.model, pairs, self.batch_size, self.chat)
        self._count(requests, found)
        return [(one.total, one.greedy) for one in found]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """A text behind the token that begins one, in windows; an empty one is certain."""
        some = [request for request in requests if request.args[0]]
        rows = encode_pairs(self.tokenizer, [("", request.args[0]) for request in some])
        found = score(self.model, rows, self.batch_size)
        totals = iter(one.total for one in found)
        return [next(totals) if request.args[0] else 0.0 for request in requests]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **options: Any
    ) -> list[tuple[float, bool]]:
        rows = [(context, continuation) for _, context, continuation in requests]
        found = score(self.model, rows, self.batch_size)
        return [(one.total, one.greedy) for one in found]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy, unless the task says otherwise; requests that say the same are answered together.

        Raises:
            ValueError: an option of the task's that means nothing here.
        """
        alike: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
        texts = [""] * len(requests)
        for key, places in alike.items():
            options = generation_options(json.loads(key))
            prompts = begun_once(self.tokenizer, [requests[i].args[0] for i in places], self.chat)
            kept = [self._fitting(prompt, options["max_new_tokens"]) for prompt in prompts]
            for i, whole, prompt in zip(places, prompts, kept, strict=True):
                self.cut[requests[i].task_name or ""] += len(prompt) < len(whole)
            order = sorted(range(len(places)), key=lambda at: -len(kept[at]))
            for some in chunks(order, self.batch_size):
                answers = self._written([kept[at] for at in some], **options)
                for at, answer in zip(some, answers, strict=True):
                    texts[places[at]] = answer
        return texts

    def _fitting(self, prompt: list[int], new: int) -> list[int]:
        """The end of a prompt that leaves room for so many tokens."""
        longest = longest_text(self.model)
        if longest <= new:
            raise ValueError(
                f"the task asks for {new} new tokens, which leave no room for a prompt in the model's "
                f"context of {longest}."
            )
        return prompt if len(prompt) + new <= longest else prompt[-int(longest - new) :]

    def _written(self, prompts: list[list[int]], stop: list[str], **options: Any) -> list[str]:
        padded = pad_rows(prompts, -1).to(device_of(self.model))
        mask = padded >= 0
        rows = self.model.generate(
            padded.masked_fill(~mask, self.tokenizer.pad_id or 0),
            mask,
            stop_ids=stops_of(self.model),
            stop_strings=stop,
            generator=self.generator,
            pad_id=-1,
            beams=1,
            **options,
        ).tolist()
        new = ([token for token in row if token >= 0] for row in rows)
        told = zip(prompts, new, strict=True)
        return ["".join(until(pieces(self.tokenizer, ids, prompt), stop)) for prompt, ids in told]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text; one that is to go on within its last message ends with that."""
        text = self.tokenizer.chat(chat_history, add_generation_prompt)
        if add_generation_prompt:
            return text
        said = chat_history[-1]["content"].strip()
        return text[: text.rindex(said) + len(said)]

    def _count(self, requests: Sequence[Any], found: Sequence[Likelihood]) -> None:
        for request, one in zip(requests, found, strict=True):
            self.cut[request.task_name or ""] += one.cut


def generation_options(given: dict[str, Any]) -> dict[str, Any]:
    """What a task says of its answers, as a model's ``generate`` takes it.

    Raises:
        ValueError: an option that is unknown here.
    """
    options = dict(given)
    stop = options.pop("until", None) or []
    drawn = options.pop("do_sample", options.get("temperature", 0) > 0)
    new = [options.pop(name) for name in LENGTHS if name in options]
    unknown = options.keys() - {*DRAWING}
    if unknown:
        raise ValueError(
            f"the task generates with {min(unknown)}={options[min(unknown)]!r}, which is unknown here: "
            f"known are until, max_gen_toks, do_sample, {', '.join(DRAWING)}."
        )
    if drawn:
        options = {"temperature": 1.0, **options}
    else:  # greedy, whatever is said of drawing
        options = {name: options[name] for name in DRAWING[:1] if name in options}
    return {
        "max_new_tokens": int(new[0]) if new else NEW_TOKENS,
        "stop": [stop] if isinstance(stop, str) else [one for one in stop if one],
        "sampling": Sampling(**options),
    }


def harness_records(
    model: HarnessModel,
    names: Sequence[str],
    shots: int | None = None,
    limit: int | None = None,
    seed: int = 1234,
) -> Iterator[dict[str, Any]]:
    """The scores of tasks of the harness and of their groups, a record for each metric.

    Raises:
        UserError: no such task, or one whose data or packages are not here.
    """
    manager = TaskManager()
    for name in names:
        if not manager.match_tasks([name]):
            near = closest(name, manager.all_tasks)
            raise UserError(f"lm-evaluation-harness has no task {name!r}.{near}")
    if model.chat and model.tokenizer.chat_template is None:
        raise UserError("--apply_chat_template: the model's tokenizer has no chat template.")
    try:
        # What it prints on its way is no answer.
        with contextlib.redirect_stdout(sys.stderr):
            found = lm_eval.simple_evaluate(
                model=model,
                tasks=list(names),
                num_fewshot=shots,
                limit=limit,
                log_samples=False,
                apply_chat_template=model.chat,
                task_manager=manager,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except (OSError, ImportError) as error:
        said = str(error).strip().splitlines()
        raise UserError(
            f"{', '.join(names)} cannot be loaded: {said[0] if said else error}"
        ) from error
    assert found is not None
    for task, scores in found["results"].items():
        yield from records_of(found, task, scores, model.cut[task])


def records_of(
    found: dict[str, Any], task: str, scores: dict[str, Any], cut: int
) -> Iterator[dict[str, Any]]:
    """A record for each metric of a task, under each of its filters."""
    counts = found["n-samples"].get(task, {})
    for key, value in scores.items():
        metric, comma, rule = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        error = scores.get(f"{metric}_stderr,{rule}")
        yield {
            "task": task,
            "group": "",
            "kind": "lm-evaluation-harness",
            "metric": metric if rule == "none" else f"{metric} ({rule})",
            "value": value,
            "stderr": error if isinstance(error, float) else None,
            "items": counts.get("effective"),
            "cut": cut,
            "tied": 0,
            "left_out": 0,
            "shots": found["n-shot"].get(task),
            "file": "",
            "sha256": "",
            "version": found["versions"].get(task),
        }
