"""No list of members by name: whoever wants to know something of a member asks the member."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
AT_HOME = ("family/models/", "family/baselines/", "family/pretrained/formats/")
"""Where members are, what they are compared with, and where published weights find theirs."""


def members() -> set[str]:
    """The classes that ``@member(...)`` decorates."""
    found = set()
    for folder in AT_HOME[:2]:
        for path in (ROOT / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                decorators = node.decorator_list if isinstance(node, ast.ClassDef) else []
                if any("member" in ast.unparse(each).split("(")[0] for each in decorators):
                    found.add(node.name)
    return found


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every identifier with its line, and what a text of one word ends with: ``family.GPT``, but no
    sentence, such as a docstring or a message."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "name", "asname", "arg"):
            if isinstance(value := getattr(node, field, None), str):
                yield line, value.rpartition(".")[2]
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and len(text.split()) == 1:
            yield line, text.strip().rpartition(".")[2]


def test_it_finds_members_and_their_names():
    assert {"GPT", "ViT", "SentenceEncoder", "CNN"} <= members()
    tree = ast.parse('import x.A as B\nC.D(E="f.G")\n"a sentence of H"\nf"{I} is J, so"')
    assert {name for _, name in named(tree)} >= {"A", "B", "C", "D", "E", "G", "I"}
    assert not {name for _, name in named(tree)} & {"H", "J"}


def test_no_file_names_a_member():
    ours, found = members(), []
    for path in sorted(
        path for part in ("family", "tasks") for path in ROOT.glob(f"{part}/**/*.py")
    ):
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(AT_HOME):
            names = named(ast.parse(path.read_text("utf-8")))
            found += [f"{place}:{line} {name}" for line, name in names if name in ours]
    assert found == []
