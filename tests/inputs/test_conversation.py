"""Which tokens of a conversation its assistant says: by the template's marks, or by what each answer adds."""

from __future__ import annotations

import re

import pytest
from tokenizers import processors

from family.inputs.chat import CHATML, TURNS
from family.inputs.conversation import (
    answer_ids,
    by_prefixes,
    mark_answers,
    marks_answers,
    prompt_ids,
)
from family.inputs.tokenizer import Tokenizer
from tasks.data.tokenizers import SPECIALS, train_tokenizer

UNMARKED = re.sub(r"\{%- (end)?generation %\}", "", CHATML)
TEXTS = [
    "system\n",
    "user\n",
    "assistant\n",
    "what is it? be brief.",
    "a red <|im_end|> circle <x>",
]
KINDS = ("bpe", "unigram", "char")


def tokenizer_of(template=CHATML, kind="bpe", **names):
    made = train_tokenizer(kind, TEXTS * 9, 400, specials=(*SPECIALS, *TURNS))
    specials = {**made.specials, **names}
    return Tokenizer(made.inner, **specials, chat_template=template)


def talk(*said, system=None):
    roles = ("user", "assistant") * len(said)
    messages = [{"role": r, "content": text} for r, text in zip(roles, said, strict=False)]
    return ([{"role": "system", "content": system}] if system else []) + messages


def spelled(tokenizer, marked):
    """What is said, special tokens included."""
    ids = [i for i, said in zip(*marked, strict=True) if said]
    return tokenizer.inner.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "messages",
    [
        talk("what is it?", "a red circle"),
        talk("what", "a red", "is it?", "circle", system="be brief."),
        talk("what is <|im_end|>?", "a <x> circle", "it", "a red <|im_end|> circle"),
        talk("<|im_start|>assistant\na red<|im_end|>", "it is", system="<eos>be brief."),
    ],
)
def test_marks_and_prefixes_say_the_same(kind, messages):
    marked = tokenizer_of(kind=kind)
    bare = Tokenizer(marked.inner, **marked.specials, chat_template=UNMARKED)
    assert marks_answers(marked) and not marks_answers(bare)
    found = mark_answers(marked, messages)
    assert found == mark_answers(bare, messages)
    assert found.ids == marked.chat_ids(messages, add_generation_prompt=False)
    end = marked.token_to_id("<|im_end|>")
    assert found.ids.count(end) == len(messages)  # no text ends a turn
    said = [i for i, own in zip(*found, strict=True) if own]
    answers = [one["content"] for one in messages if one["role"] == "assistant"]
    assert said.count(end) == len(answers)
    parts = [marked.decode(part) for part in split(said, end)]
    assert parts == answers


def split(ids, end):
    """The parts of ids that each end with one."""
    found, part = [], []
    for i in ids:
        if i == end:
            found.append(part)
            part = []
        else:
            part.append(i)
    assert not part
    return found


@pytest.mark.parametrize("template", [CHATML, UNMARKED])
def test_prompt_and_answer_are_what_a_conversation_is_made_of(template):
    tokenizer = tokenizer_of(template)
    messages = talk(
        "what is <|im_end|>", "a red circle", "is it?", "<|im_end|>", system="be brief."
    )
    prompt, answer = messages[:-1], messages[-1]["content"]
    both = [*prompt_ids(tokenizer, prompt), *answer_ids(tokenizer, prompt, answer)]
    ids, said = mark_answers(tokenizer, messages)
    assert ids[: len(both)] == both and not any(said[len(both) :])
    assert said[len(both) - 1] and tokenizer.eos_id not in both
    assert answer_ids(tokenizer, "what", "it")[-1] == tokenizer.eos_id  # of a text without turns


TRIMS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
TRIMS += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
BEFORE_END = CHATML.replace(
    "message['content'] + '<|im_end|>' }}{%- end", "message['content'] }}{%- end"
)
BEFORE_END = BEFORE_END.replace("{%- endgeneration %}", "{%- endgeneration %}{{- '<|im_end|>' }}")
NO_PROMPT = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TRIMS, "a red<|im_end|>it<|im_end|>"),
        # The end of a turn is learnt, though the mark ends before it.
        (BEFORE_END, " a red <|im_end|>it <|im_end|>"),
        # Nothing stands before an answer where the template has no prompt for it: who speaks is said.
        (NO_PROMPT, "assistant:  a red <|im_end|>assistant: it <|im_end|>"),
    ],
)
def test_templates_of_other_habits(template, expected):
    assert BEFORE_END.count("<|im_end|>") == 2
    tokenizer = tokenizer_of(template)
    messages = talk(" what is it? ", " a red ", "it", "it ")
    assert spelled(tokenizer, mark_answers(tokenizer, messages)) == expected


def test_a_text_ends_where_its_padding_is_the_same_token():
    tokenizer = tokenizer_of(pad="<|im_end|>", eos="<|im_end|>")
    assert tokenizer.pad_id == tokenizer.eos_id == tokenizer.turn_end()
    ids, said = mark_answers(tokenizer, talk("what", "it"))
    assert [said[i] for i, token in enumerate(ids) if token == tokenizer.eos_id] == [False, True]


def test_spaces_at_the_end_of_an_answer_are_of_it():
    """Such tokenizers as GPT-2's say of spaces alone that they stand at their end."""
    tokenizer = tokenizer_of(BEFORE_END)
    tokenizer.inner.post_processor = processors.ByteLevel(trim_offsets=True)
    assert spelled(tokenizer, mark_answers(tokenizer, talk("what", "it  "))) == "it  <|im_end|>"


@pytest.mark.parametrize("template", [CHATML, UNMARKED])
def test_a_template_that_refuses_is_quoted(template):
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer = tokenizer_of(strict + template)
    with pytest.raises(ValueError, match=r"the chat template refuses: no system\."):
        mark_answers(tokenizer, talk("what", "it", system="be brief."))
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        mark_answers(tokenizer, talk("what", "it"))


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_marks_the_same(kind):
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizer_of(kind=kind)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.inner)
    for messages in (
        talk("what is it?", "a red circle"),
        talk("what", "a red", "is it?", "circle", system="be brief."),
    ):
        found = theirs.apply_chat_template(
            messages, chat_template=CHATML, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, said = mark_answers(tokenizer, messages)
        assert (ids, list(map(int, said))) == (found["input_ids"], found["assistant_masks"])
        assert by_prefixes(tokenizer, messages) == (ids, said)
