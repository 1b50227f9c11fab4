"""Configs of before, read as they would be written now."""

from __future__ import annotations

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from family.models.member import STACK, is_member, placed
from tasks.errors import UserError
from tasks.runs.checkpoints import find_class

MODE = "family"
"""What the parser calls YAML that is read so."""


def renewed(value: Any) -> Any:
    """A config in which the members' arguments stand where they do now: ``patches: {stem: conv}`` for
    ``stem: conv``. The fields of a stack never stood beside it: there the parser refuses them."""
    if isinstance(value, list):
        return [renewed(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {name: renewed(item) for name, item in value.items()}
    path, given = value.get("class_path"), value.get("init_args")
    if isinstance(path, str) and path.startswith("family.") and isinstance(given, dict):
        stack = {name: item for name, item in given.items() if name in STACK}
        own = {name: item for name, item in given.items() if name not in STACK}
        try:
            cls = find_class(path)
            if is_member(cls):
                value["init_args"] = {**placed(cls, own), **stack}
        except (UserError, ValueError):
            pass  # for the parser to refuse
    return value


def load(text: str) -> Any:
    """A file, or a value of the command line: a null that is meant for a part of a part comes to it as "None"."""
    if text == "None":
        return None
    return renewed(get_loader("yaml")(text))


set_loader(MODE, load, (yaml.YAMLError,))
