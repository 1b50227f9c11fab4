"""Chat templates see what transformers gives them, and reach nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from family.inputs.chat import render
from family.inputs.tokenizer import Tokenizer

TALK = [
    {"role": "user", "content": "<b>é & 'it'</b>"},
    {"role": "assistant", "content": "yes"},
    {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {"x": 1}}]},
]
TEMPLATES = (
    "{% if tools is none and documents is none %}none{% endif %}{{ tools }}",
    "{% if not tools is defined %}undefined{% endif %}",
    "{%- if tools is not none %}{{ raise_exception('tools') }}{% endif %}{{ bos_token }}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2, sort_keys=true) }}",
    "{{ messages | tojson(ensure_ascii=true, separators=(',', ':')) }}",
    "{% if add_generation_prompt %}more{% endif %}{{ pad_token is defined }}{{ nothing }}",
    "{{ strftime_now('%Y') }}{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{{ m.content }}{% break %}{% endfor %}",
    "{% set ns = namespace(found=false) %}{% for m in messages %}{% set ns.found = true %}"
    "{% endfor %}{{ ns.found }}{{ dict(a=1) }}",
    "{% for m in messages %}\n    {% if m.content is string %}\n{{ m.content }}\n{% endif %}\n"
    "{% endfor %}",
    "{{ 'content' in messages[2] }}{{ messages[2].tool_calls[0].arguments.x + 1 }}",
    "{% generation %}{{ messages[1].content }}{% endgeneration %}",
)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("more", [True, False])
def test_as_transformers_renders(template, more):
    transformers = pytest.importorskip("transformers")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "?": 1}, unk_token="?"))
    ours = Tokenizer(inner, bos="<s>", chat_template=template)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    expected = theirs.apply_chat_template(
        TALK, chat_template=template, tokenize=False, add_generation_prompt=more
    )
    assert ours.chat(TALK, add_generation_prompt=more) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ strftime_now.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('touch FILE') }}",
        "{{ messages|attr('__class__')|attr('__base__') }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{% set _ = messages[0].pop('role') %}",
        "{{ messages|tojson(default=raise_exception) }}",
        "{{ messages|tojson(cls=namespace) }}",
        "{% include 'FILE' %}",
        "{% import 'os' as os %}{{ os }}",
        "{% for i in range(10000000) %}x{% endfor %}",
        "{{ open('FILE', 'w') }}",
        "{{ tool.touch() }}",
    ],
)
def test_what_a_hostile_template_may_not_do(tmp_path, template):
    file = tmp_path / "made"
    messages = [{"role": "user", "content": "hello"}]
    try:  # what is not to be had may also be nothing
        found = render(template.replace("FILE", str(file)), messages=messages, tool=file)
    except ValueError as error:
        found, sentence = "", str(error)
        assert sentence.startswith("the chat template") and "\n" not in sentence
    assert found == ""
    assert not file.exists() and messages == [{"role": "user", "content": "hello"}]


def test_objects_are_seen_by_their_kind_alone():
    class Name(str):
        def __str__(self):
            return "another"

    found = render("{{ a }} {{ b[0] }} {{ c }}", a=Path("x"), b=(1.5,), c=True)
    assert found in ("<PosixPath> 1.5 True", "<WindowsPath> 1.5 True")
    assert render("{{ a }}", a=Name("own")) == "own"
