"""Defaults of generation in a folder of the hub's layout, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from family.generation import Generation
from family.generation.defaults import LISTED
from family.pretrained.weights import read_json

FILE = "generation_config.json"
OWN = {"transformers_version", "_from_model_config"}
"""What says nothing of how to generate."""
USUAL_LENGTH = 20
"""Of transformers, which once wrote it into every model's config: nobody's choice."""
PADDING = {"pad_token_id"}


def read_generation(folder: Path, config: Mapping[str, Any]) -> Generation | None:
    """What ``generation_config.json`` says, or the model's config, as older folders have it; None where
    neither says anything.

    Raises:
        ValueError: a value that makes no sense.
    """
    file = folder / FILE
    if file.is_file():
        fields = read_json(file)
    else:
        fields = {n: config[n] for n in LISTED if n in config}
        if fields.get("max_length") == USUAL_LENGTH:
            del fields["max_length"]
    fields = {n: v for n, v in fields.items() if v is not None and n not in OWN}
    if not fields.keys() - PADDING:  # encoders name their padding too
        return None
    try:
        return Generation.from_fields(fields)
    except ValueError as error:
        raise ValueError(f"{file if file.is_file() else folder}: {error}") from None


def generation_of(fields: Mapping[str, Any] | None) -> Generation | None:
    """The same of the assets of a checkpoint."""
    return None if fields is None else Generation.from_fields(fields)
