"""The wheel carries what ``family fit --config gpt/shapes`` needs in any folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_wheel_carries_code_configs_and_templates(tmp_path):
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("setuptools is older than the build asks for")
    source = tmp_path / "source"
    for name in ("family", "tasks", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(source)], check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    for name in ("family", "tasks"):
        for file in (ROOT / name).rglob("*.py"):
            assert str(file.relative_to(ROOT)) in held
    for file in (ROOT / "configs").rglob("*.yaml"):
        assert f"tasks/{file.relative_to(ROOT)}" in held
    for folder in ("tasks/compare/templates", "family/look/page", "tasks/serve/static"):
        for file in (path for path in (ROOT / folder).iterdir() if path.is_file()):
            assert str(file.relative_to(ROOT)) in held
