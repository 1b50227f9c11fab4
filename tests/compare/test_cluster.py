"""Runs go through submitit; its local executor stands for a cluster."""

from __future__ import annotations

import sys

import pytest

from tasks.cli import main


@pytest.mark.slow
def test_without_submitit_one_is_told_what_to_install(comparison, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit):
        main([*comparison(), "--submitit", "timeout_min=10"])
    assert "pip install 'transformer-family[slurm]'" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_are_jobs(comparison, results, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    variants = {"a": {}, "b": {"model.init_args.optimizer": "adamw"}}
    arguments = comparison(
        variants=variants, seeds=[0], budget={"steps": 2}, validations=1, test=False
    )
    main([*arguments, "--submitit", "timeout_min=10"])
    found = results("made")["variants"]
    assert all(len(found[name]["values"]) == 1 for name in variants)
