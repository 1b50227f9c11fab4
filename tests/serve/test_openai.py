"""OpenAI's own client, against a server on loopback."""

from __future__ import annotations

import base64

import httpx2
import numpy as np
import pytest
import torch

from family import Sampling
from tasks.serve.app import make_app
from tasks.serve.limits import Limits

openai = pytest.importorskip("openai")
HELLO = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(models, help):
    chosen = {name: models[name] for name in ("LanguageModeling", "SentenceEmbedding", "Tagging")}
    with help.running(make_app(chosen, Limits(new_tokens=60))) as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture
def chat(client):
    def ask(**options):
        options = {"model": "LanguageModeling", "messages": HELLO, "temperature": 0, **options}
        return client.chat.completions.create(**options)

    return ask


@pytest.fixture(scope="module")
def greedy(models):
    """The answer of 20 tokens, by the library alone, and how many tokens it is to."""
    model = models["LanguageModeling"].model
    ids = torch.tensor([model.tokenizer.chat_ids(HELLO)])
    stops = model.tokenizer.stop_ids()
    made = model.generate(ids, max_new_tokens=20, stop_ids=stops, sampling=Sampling())[0].tolist()
    return model.tokenizer.decode(made), ids.shape[1], len(made)


def test_what_is_served(client):
    assert [one.id for one in client.models.list()][:2] == ["LanguageModeling", "SentenceEmbedding"]


def test_an_answer_whole_and_in_pieces(chat, greedy):
    text, read, made = greedy
    whole = chat(max_completion_tokens=20)
    [choice] = whole.choices
    assert choice.message.content == text and choice.message.role == "assistant"
    assert choice.finish_reason == ("length" if made == 20 else "stop")
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (read, made)
    assert whole.usage.total_tokens == read + made and whole.object == "chat.completion"
    parts = list(chat(max_tokens=20, stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == text
    assert parts[-1].usage == whole.usage and not parts[-1].choices
    assert parts[-2].choices[0].finish_reason == choice.finish_reason
    assert parts[0].choices[0].delta.role == "assistant" and len(parts) > 4


def test_an_answer_ends_before_a_string(chat, greedy):
    text, _, _ = greedy
    end = text[3:5]
    before = text[: text.find(end)]
    for stop in (end, [end, "nowhere"]):
        found = chat(max_tokens=20, stop=stop)
        assert found.choices[0].message.content == before
        assert found.choices[0].finish_reason == "stop" and found.usage.completion_tokens < 20


def test_answers_that_are_asked_for_together_are_one_batch(chat, models, monkeypatch):
    kind = type(models["LanguageModeling"].model)
    rows, stream = [], kind.stream
    counted = lambda self, ids, *args, **options: (  # noqa: E731
        rows.append(len(ids)) or stream(self, ids, *args, **options)
    )
    monkeypatch.setattr(kind, "stream", counted)
    assert len(chat(n=3, temperature=1.0, max_tokens=5).choices) == 3 and rows == [3]


def test_several_answers_and_seeds(chat):
    drawn = {"temperature": 1.5, "top_p": 0.99, "max_tokens": 12}
    some = [one.message.content for one in chat(n=3, seed=5, **drawn).choices]
    again = [chat(seed=seed, **drawn).choices[0].message.content for seed in (5, 6, 7)]
    assert some == again and len(set(some)) == 3
    told = ["", "", ""]
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    *parts, last = chat(n=3, seed=5, **asked, **drawn)
    for part in parts:
        for choice in part.choices:
            told[choice.index] += choice.delta.content or ""
    assert told == some
    # The prompt was read once.
    whole, one = (chat(n=n, seed=5, **drawn).usage for n in (3, 1))
    assert last.usage == whole and whole.prompt_tokens == one.prompt_tokens
    unseeded = {chat(**drawn).choices[0].message.content for _ in range(4)}
    assert len(unseeded) > 1


def test_parts_of_content_are_one_text(chat):
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    messages = [{**HELLO[0], "role": "developer"}, {"role": "user", "content": parts}]
    found = chat(messages=messages, max_tokens=8), chat(max_tokens=8)
    assert found[0].choices[0].message.content == found[1].choices[0].message.content


def test_texts_that_go_on(client, models):
    prompts = ["a red", "two"]
    made = models["LanguageModeling"].predict(prompts, max_new_tokens=7, sampling=Sampling())
    options = {"model": "LanguageModeling", "max_tokens": 7, "temperature": 0}
    found = client.completions.create(prompt=prompts, **options)
    assert [choice.text for choice in found.choices] == made
    told = client.completions.create(prompt="two", stream=True, **options)
    assert "".join(part.choices[0].text for part in told) == made[1]


def test_vectors(client, models):
    texts = ["a red star", "hello"]
    wanted = models["SentenceEmbedding"].embed(texts).numpy()
    for form in ("float", "base64"):
        found = client.embeddings.create(
            model="SentenceEmbedding", input=texts, encoding_format=form
        )
        rows = [one.embedding for one in found.data]
        if form == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        assert np.allclose(rows, wanted, atol=1e-5) and found.usage.prompt_tokens > 2
    one = client.embeddings.create(model="SentenceEmbedding", input="hello")  # its own way
    assert np.allclose(one.data[0].embedding, wanted[1], atol=1e-5)
    with pytest.raises(openai.BadRequestError, match="8 dimensions"):
        client.embeddings.create(model="SentenceEmbedding", input="hello", dimensions=4)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": "nobody"}, "NotFoundError", "no model of that name is served here"),
        ({"model": "Tagging"}, "NotFoundError", "is for Tagging and cannot chat"),
        ({"messages": []}, "UnprocessableEntityError", "messages: "),
        ({"max_tokens": 61}, "BadRequestError", "more than the 60 that are made"),
        ({"temperature": -1}, "UnprocessableEntityError", "temperature: "),
        ({"logprobs": True}, "BadRequestError", "does not know 'logprobs': leave it out"),
        ({"extra_body": {"colour": 1}}, "BadRequestError", "does not know 'colour'"),
        (
            {"messages": [{"role": "user", "content": "o" * 99}]},
            "UnprocessableEntityError",
            "no room",
        ),
    ],
)
def test_refused_as_the_client_knows_it(chat, options, error, said):
    with pytest.raises(getattr(openai, error), match=said) as refused:
        chat(**options)
    assert refused.value.body["type"] == "invalid_request_error"


def test_no_probabilities_are_asked_for_by_false_and_by_none_but_not_by_zero(client):
    options = {"model": "LanguageModeling", "prompt": "a", "max_tokens": 1}
    with pytest.raises(openai.BadRequestError, match="does not know 'logprobs': leave it out"):
        client.completions.create(logprobs=0, **options)
    for nothing in (False, None):
        assert client.completions.create(extra_body={"logprobs": nothing}, **options).choices


def test_options_that_say_nothing_are_passed_over(chat):
    options = {"user": "me", "frequency_penalty": 0, "logprobs": False, "tools": []}
    assert chat(max_tokens=2, **options).choices[0].message.content is not None


def test_who_goes_away_leaves_the_queue(client, models, chat):
    url = f"{client.base_url}chat/completions"
    body = {"model": "LanguageModeling", "messages": HELLO, "stream": True, "temperature": 2}
    for _ in range(5):
        with httpx2.stream("POST", url, json=body) as answer:
            next(answer.iter_bytes())
    assert chat(max_tokens=2).usage.completion_tokens <= 2
