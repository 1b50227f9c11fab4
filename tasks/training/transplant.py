"""A model in training starts from parts of a trained one of another kind, and says from which."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from family.adapt.transplant import Entry, common_parts, differences, transplant
from tasks.errors import UserError
from tasks.runs.sources import open_published

log = logging.getLogger(__name__)
WORDS = ("loaded", "resized", "fresh")


@dataclass
class Transplant:
    """Where parts of a model come from, see :func:`family.adapt.transplant.transplant`.

    Args:
        source: a ``.ckpt`` file, the folder of a run, or anything that
            :func:`family.from_pretrained` takes.
        map: parts of the model by name -> parts of the source; None finds the stacks that are
            equally wide.
    """

    source: str
    map: dict[str, str] | None = None


@dataclass(frozen=True)
class Report:
    """What became of each weight of a model, and in what its stacks differ from the source's."""

    source: str
    parts: dict[str, str]
    differences: dict[str, dict[str, tuple[Any, Any]]]
    entries: list[Entry]

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "source": self.source,
            "parts": self.parts,
            "differences": self.differences,
            "entries": [entry._asdict() for entry in self.entries],
        }

    def counts(self) -> str:
        """How many weights were loaded, resized and left fresh."""
        found = Counter(entry.what for entry in self.entries)
        return ", ".join(f"{found[word]} {word}" for word in WORDS)

    def text(self) -> str:
        """A page of Markdown."""
        lines = [f"# Transplant from {self.source}", "", f"Weights: {self.counts()}.", ""]
        lines += [f"- {ours} from {theirs}" for ours, theirs in self.parts.items()]
        lines += ["", "| weight | | from |", "| --- | --- | --- |"]
        lines += [f"| {name} | {what} | {origin} |" for name, what, origin in self.entries]
        if self.differences:
            lines += ["", "With the same weights these still compute something else:", ""]
            lines += [
                f"- {part}: {field} is {ours}, but in the source {theirs}"
                for part, fields in self.differences.items()
                for field, (ours, theirs) in fields.items()
            ]
        return "\n".join(lines) + "\n"


def carry_out(model: nn.Module, wanted: Transplant) -> Report:
    """Change a model in place.

    Raises:
        UserError: no such source, or parts that are not there or do not fit.
    """
    source = open_published(wanted.source)
    try:
        parts = common_parts(model, source) if wanted.map is None else dict(wanted.map)
        entries = transplant(model, source, parts)
    except ValueError as error:
        raise UserError(f"model.transplant: {error}") from None
    report = Report(wanted.source, parts, differences(model, source, parts), entries)
    log.warning("transplant from %s: %s.", wanted.source, report.counts())
    return report
