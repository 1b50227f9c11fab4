"""What docstrings of public names show, runs and gives what they say."""

from __future__ import annotations

import doctest
import inspect

import pytest
import torch

import family
import tasks

SHOWN = (
    "Attention",
    "Block",
    "FeedForward",
    "GPT.generate",
    "Transformer",
    "TransformerConfig",
    "from_pretrained",
)
"""Names that are used most."""


def examples():
    """Of each public name, and of the methods of a class, what its docstring shows."""
    finder, found = doctest.DocTestFinder(exclude_empty=True, recurse=True), {}
    for package in (family, tasks):
        for name in dir(package):
            one = getattr(package, name)
            if inspect.isclass(one) or inspect.isfunction(one):
                module = inspect.getmodule(one)
                known = {**vars(module), "torch": torch, "family": family, "tasks": tasks}
                for test in finder.find(one, name, module=module, globs=known):
                    if test.examples:
                        found[test.name] = test
    return found


EXAMPLES = examples()


def test_the_names_that_are_used_most_have_one():
    assert {*SHOWN} <= EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_a_docstring_shows_is_so(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    doctest.DocTestRunner().run(EXAMPLES[name], out=said.append)
    assert not said, "".join(said)
