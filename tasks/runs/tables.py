"""Records as tables: one row each, for spreadsheets and other programs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from family.files import whole


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """What is nested, by names with dots between them: ``probabilities.cat``, ``box.0``."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        found: dict[str, Any] = {}
        for key, inner in pairs:
            found |= flat(inner, f"{name}.{key}" if name else str(key))
        return found
    return {name: value}


def write_table(file: Path, records: Sequence[dict[str, Any]]) -> None:
    """A CSV file with a column for all that any of the records has."""
    rows = [flat(record) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with whole(file) as new, new.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
