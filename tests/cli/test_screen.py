"""What a run shows, and what it is called: nothing that says nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks.cli import main
from tasks.cli.resuming import name_of_run
from tasks.commands import COMMANDS
from tasks.runs.numbers import short

FIT = [
    "fit",
    "--config=text_classification/shapes",
    "--run_folder=run",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.accelerator=cpu",
    "--trainer.num_sanity_val_steps=0",
    "--data.examples=64",
    "--data.batch_size=8",
    *(f"--model.model.config.{one}" for one in ("dim=16", "depth=1", "heads=2", "ffn_dim=16")),
]


def test_a_quiet_screen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(FIT)
    shown = capsys.readouterr().out
    for noise in ("v_num", "FLOPs", "/-2", "train mode", "TPU"):
        assert noise not in shown
    assert "parameters learn" in shown and "BERT" in shown and "Epoch 0" in shown


def test_counts():
    assert [short(n) for n in (7, 1234, 1234567, 7e9)] == ["7", "1.23 k", "1.23 M", "7 G"]


def test_names_do_not_grow(tmp_path):
    name = "gpt-shapes"
    for stamp in ("20260101-000000", "20260102-000000-2"):
        file = tmp_path / f"{name}-{stamp}" / "config.yaml"
        assert name_of_run(file, "fit") == name
        assert name_of_run(file, "test") == f"{name}-test"
    again = tmp_path / f"{name}-test-20260101-000000" / "config.yaml"
    assert name_of_run(again, "test") == f"{name}-test"
    assert name_of_run(Path("configs/gpt/shapes.yaml"), "fit") == name


def test_the_shell_completes(capsys, tmp_path):
    main(["--print_completion", "bash"])
    script = capsys.readouterr().out
    (tmp_path / "it.sh").write_text(
        script + 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _family; echo "${COMPREPLY[@]}"\n'
    )

    def completed(*words):
        call = ["bash", str(tmp_path / "it.sh"), "family", *words]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()

    assert completed("det") == ["detect"]
    assert set(COMMANDS) <= set(completed(""))
    assert completed("fit", "--config", "gpt/") == ["gpt/shapes"]
    assert completed("export", "--lay") == ["--layout"]
    assert "--trainer.max_steps" in completed("fit", "--trainer.max")
    with pytest.raises(SystemExit):
        main(["--print_completion", "fish"])
    assert "give bash or zsh" in capsys.readouterr().err
