"""Chat templates: Jinja, as transformers writes and reads them, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""The template of conversations for tokenizers that are trained here, by OpenAI's marks of turns."""
TURNS = ("<|im_start|>", "<|im_end|>")
"""Its special tokens."""


ABSENT = {"tools": None, "documents": None}
"""What templates ask for and may find to be none."""

BARE: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
"""What makes a plain value of one of a class of its own."""


class Generation(Extension):
    """``{% generation %}`` marks what the assistant says, for training: it is written between the values
    ``generation_begin`` and ``generation_end``, which are nothing unless they are given."""

    tags: set[str] = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        said = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [nodes.Name(f"generation_{end}", "load", lineno=line) for end in ("begin", "end")]
        first, last = (nodes.Output([mark], lineno=line) for mark in marks)
        return [first, *said, last]


def refuse(message: str) -> None:
    """What a template calls when it cannot take a conversation."""
    raise TemplateError(message)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter, no HTML; the options are Python's, and no others of these."""
    options: dict[str, Any] = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def plain(value: Any) -> Any:
    """What a template may see of a value: plain ones, without methods that do something."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return (
            type(value)(map(plain, value)) if type(value) in (list, tuple) else [*map(plain, value)]
        )
    for kind, bare in BARE.items():
        if isinstance(value, kind):
            return bare(value)
    return f"<{type(value).__name__}>"


@lru_cache(maxsize=8)
def compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def render(template: str, **values: Any) -> str:
    """The text of a template; it sees these values and nothing else, as plain ones.

    Raises:
        ValueError: the template is broken, or refuses the values.
    """
    try:
        return compiled(template).render(**plain({**ABSENT, **values}))
    except TemplateError as error:
        raise ValueError(f"the chat template refuses: {error}.".replace("..", ".")) from None
    except Exception as error:  # what code of a template may raise has no bounds
        raise ValueError(f"the chat template fails: {type(error).__name__}, {error}.") from None
