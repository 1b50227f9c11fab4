"""``family chat``: a conversation by the checkpoint's own template, from standard input."""

from __future__ import annotations

import io
import sys

import pytest
import torch

import family
from family.inputs.tokenizer import Tokenizer
from tasks.cli import main
from tasks.data.tokenizers import train_tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
CONTEXT = 96


@pytest.fixture
def source(tmp_path):
    """A small model that knows the letters of what is said to it."""
    inner = train_tokenizer("char", ["helo wrd!\n<>usaend"]).inner
    inner.add_special_tokens(["<end>"])
    tokenizer = Tokenizer(inner, pad="<pad>", eos="<eos>", unk="<unk>", chat_template=TEMPLATE)
    torch.manual_seed(0)
    model = family.gpt_nano(inner.get_vocab_size(), max_tokens=CONTEXT, dim=32, depth=2)
    with torch.no_grad():
        model.embedding.tokens.weight[[0, 1, 2, 3]] = 0  # specials, which nobody would see
    model.tokenizer = tokenizer
    family.save_pretrained(model, tmp_path / "model")
    return tmp_path / "model"


def talk(monkeypatch, lines, source, *options):
    stdin = io.TextIOWrapper(io.BytesIO(lines.encode("utf-8")))
    monkeypatch.setattr(sys, "stdin", stdin)
    main(["chat", str(source), "--temperature=0", *options])


def answers(source, said, new, system=None):
    """The answers to each line, by the library alone."""
    model, texts = family.from_pretrained(source), []
    messages = [] if system is None else [{"role": "system", "content": system}]
    for line in said:
        messages.append({"role": "user", "content": line})
        ids = torch.tensor(
            [model.tokenizer.encode(model.tokenizer.chat(messages), parse_special=True)]
        )
        stops = [model.tokenizer.eos_id, model.tokenizer.inner.token_to_id("<end>")]
        tokens = model.generate(ids, max_new_tokens=new, stop_ids=stops)
        texts.append(model.tokenizer.decode(tokens[0].tolist()))
        messages.append({"role": "assistant", "content": texts[-1]})
    return "".join(f"{text}\n" for text in texts)


def test_each_line_is_a_turn_of_one_conversation(source, monkeypatch, capsys):
    talk(monkeypatch, "hello\n\nwho\n", source, "--max_new_tokens=7")
    assert capsys.readouterr().out == answers(source, ["hello", "who"], 7)
    talk(monkeypatch, "hello\n", source, "--max_new_tokens=7", "--system=hush")
    assert capsys.readouterr().out == answers(source, ["hello"], 7, "hush")


def test_an_answer_ends_at_the_end_of_a_turn_and_fills_the_context_at_most(
    source, monkeypatch, capsys
):
    options = []

    def stream(self, ids, **given):
        options.append({"used": ids.shape[1], **given})
        hello = family.from_pretrained(source).tokenizer.encode("hello")
        yield from torch.tensor(hello)[:, None]

    monkeypatch.setattr(family.GPT, "stream", stream)
    talk(monkeypatch, "who\nhe\n", source)
    assert capsys.readouterr().out == "hello\nhello\n"
    tokenizer = family.from_pretrained(source).tokenizer
    assert all(given["stop_ids"] == tokenizer.stop_ids() for given in options)
    assert tokenizer.stop_ids() == {tokenizer.eos_id, tokenizer.inner.token_to_id("<end>")}
    assert [given["used"] + given["max_new_tokens"] for given in options] == [CONTEXT, CONTEXT]
    assert options[1]["used"] > options[0]["used"] + len("hello")


def test_a_seed_repeats_a_conversation(source, monkeypatch, capsys):
    said = []
    for seed in "112":
        talk(monkeypatch, "hello\n", source, "--temperature=1.5", f"--seed={seed}", "--top_p=0.99")
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        (f"{'o' * 99}\n", [], "begin a new one"),
        ("hello\n", ["--max_new_tokens=95"], "do not fit the model's context of 96 tokens"),
        ("hello\n", ["--max_new_tokens=0"], "--max_new_tokens must be at least 1, not 0."),
        ("hello\n", ["--top_p=0"], "top_p must be in (0, 1], not 0.0."),
    ],
)
def test_refused_in_one_sentence(source, monkeypatch, capsys, lines, options, said):
    with pytest.raises(SystemExit) as stopped:
        talk(monkeypatch, lines, source, *options)
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and said in message and len(message.splitlines()) == 1


def test_a_model_without_a_template_does_not_chat(source, monkeypatch, capsys, tmp_path):
    model = family.from_pretrained(source)
    model.tokenizer.chat_template = None
    family.save_pretrained(model, tmp_path / "mute")
    with pytest.raises(SystemExit):
        talk(monkeypatch, "hello\n", tmp_path / "mute")
    assert "mute has no chat template" in capsys.readouterr().err


def test_a_template_that_refuses_is_quoted(source, monkeypatch, capsys, tmp_path):
    model = family.from_pretrained(source)
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    model.tokenizer.chat_template = refusal + TEMPLATE
    family.save_pretrained(model, tmp_path / "strict")
    with pytest.raises(SystemExit):
        talk(monkeypatch, "hello\n", tmp_path / "strict", "--system=hush")
    assert "the chat template refuses: no system." in capsys.readouterr().err
