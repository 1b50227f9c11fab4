"""The command trains, tests, generates, translates, and refuses in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.cli import main

SMALL = [
    "--trainer.max_steps=4",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_language_model_from_fit_to_generate(folder, capsys):
    main(["fit", "--config", "gpt/shapes", "--run_folder", "run", *SMALL])
    record = json.loads((folder / "run/metrics-fit.json").read_text())
    assert record["step"] == 4
    assert record["metrics"]["val/bits_per_byte"] > 0
    assert list((folder / "run/samples").glob("*.txt"))
    assert (folder / "run/config.yaml").exists()
    capsys.readouterr()
    main(["generate", "run", "--prompt", "a red", "--max_new_tokens", "5"])
    first = capsys.readouterr().out
    assert first.startswith("a red")
    main(["generate", "run", "--prompt", "a red", "--max_new_tokens", "5"])
    assert capsys.readouterr().out == first


def test_translation_from_fit_to_translate(folder, capsys):
    sizes = {"dim": 16, "depth": 1, "heads": 2, "ffn_dim": 32}
    tiny = [f"--model.model.init_args.config.{name}={value}" for name, value in sizes.items()]
    few = ["--data.examples=100", "--data.tokens_per_batch=512", "--trainer.max_steps=2"]
    main(["fit", "--config", "translation/shapes", "--run_folder", "run", *SMALL, *tiny, *few])
    record = json.loads((folder / "run/metrics-fit.json").read_text())
    assert "tok:13a" in record["signatures"]["val/bleu"]
    capsys.readouterr()
    main(["translate", "run", "un cercle rouge", "une étoile verte"])
    assert len(capsys.readouterr().out.splitlines()) == 2


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code != 0
    return capsys.readouterr().err


def test_mistakes_end_in_one_sentence(folder, capsys):
    assert "gpt/shapes" in refused(["fit", "--config", "gpt/shape"], capsys)
    (folder / "run").mkdir()
    said = refused(["fit", "--config", "gpt/shapes", "--run_folder", "run", *SMALL], capsys)
    assert "run exists" in said
    assert "does not exist" in refused(["translate", "nothing.ckpt", "x"], capsys)
    (folder / "bad.ckpt").write_bytes(b"no")
    assert "not a checkpoint" in refused(["translate", "bad.ckpt", "x"], capsys)


def test_list(capsys):
    main(["list"])
    assert "translation/shapes" in capsys.readouterr().out


@pytest.mark.slow
def test_custom_member_trains_through_its_class_path(folder, monkeypatch):
    examples = Path(__file__).parents[2] / "examples"
    monkeypatch.syspath_prepend(examples)
    second = ["--config", str(examples / "custom_member.yaml")]
    main(["fit", "--config", "gpt/shapes", *second, "--run_folder", "run", *SMALL])
    assert (folder / "run/metrics-fit.json").exists()
