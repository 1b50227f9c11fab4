"""What may be installed beside the project is free of holes that are known."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
GROUPS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
REQUIRED = [Requirement(text) for group in GROUPS for text in group]
HOLES = {
    "pytorch-lightning": ["2.6.0", "2.6.1", "2.6.2", "2.6.3", "2.6.5"],
    "pillow": ["11.3.0", "12.1.0", "12.1.1"],
    "jinja2": ["3.1.5"],
    "torch": ["2.5.1", "2.7.1"],
    "transformers": ["4.52.4"],
    "onnx": ["1.17.0", "1.20.1"],
    "sentencepiece": ["0.2.0"],
    "pytest": ["9.0.2"],
}
"""The last versions with one, or one that was tampered with."""


@pytest.mark.parametrize("name", HOLES)
def test_no_version_with_a_known_hole(name):
    bounds = [one.specifier for one in REQUIRED if one.name == name]
    assert bounds
    assert not [version for version in HOLES[name] for one in bounds if version in one]


def test_every_requirement_has_a_lower_bound():
    assert all(any(one.operator == ">=" for one in r.specifier) for r in REQUIRED)
