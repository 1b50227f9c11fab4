"""Whatever a file of tasks for a language model holds, its items are read, or one sentence says why not."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from answers import PROFILES, answered, search
from damage import Damage, damages, write

from tasks.evaluation.files import read_tasks

ROWS = {
    "choices": [{"question": f"q{i}", "choices": ["a", "b"], "answer": i % 2} for i in range(4)],
    "completions": [{"prompt": f"{i} red", "completion": "circles"} for i in range(4)],
    "pairs": [
        {"sentence_good": f"a {i}", "sentence_bad": f"an {i}", "field": "x"} for i in range(4)
    ],
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ROWS)
def test_damaged_tasks_end_in_an_answer(name, profile, tmp_path):
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS[name])

    def holds(chosen: list[Damage]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as place:
            write(Path(place), {"a.jsonl": lines.encode()}, chosen)
            with answered(root=Path(place)):
                for task in read_tasks(place):
                    list(task.shown(0 if name == "pairs" else 1, 0))
                    assert task.items and task.names()

    holds([])
    search(holds, damages(), profile)
