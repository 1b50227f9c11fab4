"""What a request asks of a model, as a call that can be joined with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from family.heads.problem import REGRESSION
from tasks.serve.limits import RefusedError
from tasks.serve.pictures import data_url, segments
from tasks.serve.served import WORDS, Served
from tasks.serve.worker import Call


def given(**options: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def unified(action: str, texts: Any = None, pictures: Any = None, weight: int = 0) -> Call:
    """A call of a model of all tasks."""
    columns = given(texts=texts, pictures=pictures)
    return Call(
        tuple(columns.values()),
        tuple(columns),
        options={"task": WORDS.get(action, action)},
        alone=action == "draw",
        weight=weight,
    )


def as_many(first: Sequence[Any], second: Sequence[Any], what: str, others: str) -> None:
    """Refuse columns of unequal length.

    Raises:
        RefusedError: see above.
    """
    if len(first) != len(second):
        raise RefusedError(
            422, f"there are {len(first)} {what} but {len(second)} {others}: give as many.", others
        )


def one_of(served: Served, body: Any, *fields: str) -> str:
    """The field of a request that is given: one of these, which the model reads.

    Raises:
        RefusedError: none, or several, or another than the model reads.
    """
    found = [name for name in fields if getattr(body, name) is not None]
    if len(found) != 1:
        raise RefusedError(422, f"give {' or '.join(fields)}, one of them.")
    reads = {"texts" if name == "pairs" else name for name in served.reads}
    if found[0] not in reads:
        raise RefusedError(
            422, f"the model reads {' or '.join(sorted(reads))}, not {found[0]}.", found[0]
        )
    return found[0]


def classified(served: Served, rows: list[Any]) -> list[Any]:
    """Answers of a classifier, of a regression or of a model that says the class in words."""
    if served.unified:
        return [{"label": row, "score": None, "probabilities": {}} for row in rows]
    return rows


def of_series(served: Served, rows: list[Any]) -> list[dict[str, Any]]:
    """Answers about series: classes, or numbers by target."""
    if getattr(served.model, "problem_type", None) == REGRESSION:
        return [{"numbers": row} for row in rows]
    return rows


def asked(rows: list[Any]) -> list[dict[str, Any]]:
    """Answers about pictures, of models that choose and of those that write."""
    return [{"answer": row} if isinstance(row, str) else row for row in rows]


def segmented(served: Served, rows: list[Any]) -> list[dict[str, Any]]:
    """Classes of pixels as pictures."""
    assets = served.loaded.assets
    return [
        segments(torch.as_tensor(row), served.loaded.labels, assets.get("category_ids"))
        for row in rows
    ]


def instances(rows: list[Any]) -> list[dict[str, Any]]:
    """The objects of a picture, with their masks as pictures and the boxes around these."""
    found = []
    for row in rows:
        mask = row["mask"]
        across, down = mask.any(0).nonzero(), mask.any(1).nonzero()
        box = [across[0], down[0], across[-1] + 1, down[-1] + 1]
        shown = data_url(Image.fromarray(mask.numpy().astype("uint8") * 255))
        found.append({**row, "box": [float(side) for side in box], "mask": shown})
    return found


def drawn(rows: list[Any]) -> list[list[str]]:
    """Pictures, or several of each input, as data URLs."""
    return [[data_url(one) for one in (row if isinstance(row, list) else [row])] for row in rows]


def ranked(query: list[Any], rows: list[Any]) -> list[dict[str, Any]]:
    """Vectors by how near they are to the one of the query, the nearest first."""
    wanted = F.normalize(torch.tensor(query[0]), dim=0)
    near = F.normalize(torch.tensor(rows), dim=1) @ wanted
    order = near.argsort(descending=True).tolist()
    return [{"index": i, "similarity": float(near[i])} for i in order]
