"""What the command refuses before a run begins, each in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.cli import main

FIT = [
    "fit",
    "--config=image_classification/shapes",
    "--trainer.max_steps=1",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=40",
    "--data.batch_size=8",
]
REFUSED = {
    "--trainer.devices=abc": "trainer.devices must be a number of devices, a list of their numbers "
    "or 'auto', not abc.",
    "--trainer.devices=[7]": "trainer.devices=[7] picks devices by number, but this runs on the CPU",
    "--trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches must be at least 1",
    "--trainer.log_every_n_steps=0": "trainer.log_every_n_steps must be at least 1, not 0.",
    "--trainer.val_check_interval=0": "trainer.val_check_interval must be above 0, not 0.",
    "--trainer.val_check_interval=0.0": "trainer.val_check_interval must be above 0, not 0.",
    "--seed_everything=-1": "seed_everything must be between 0 and 4294967295, not -1.",
    "--config=latin.yaml": "--config latin.yaml is not UTF-8: see the byte at offset 2.",
    "--config=empty.yaml": "unknown option 'optimiser'. Did you mean 'optimizer'?",
    "--config=nothing.yaml": "unknown option 'optimiser'. Did you mean 'optimizer'?",
    "--ckpt_path=none.ckpt": "none.ckpt does not exist.",
    "--ckpt_path=none": "--ckpt_path none is no checkpoint of ours to go on from",
    "--model.lora.rnk=2": "unknown option 'rnk' of model.lora. Did you mean 'rank'?",
    "--model.freeze=embedding.*": "model.freeze",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("latin.yaml").write_bytes("# é\ntrainer:\n  max_steps: 1\n".encode("latin-1"))
    Path("empty.yaml").write_text("optimiser: {}\ntrainer:\n  max_steps: 1\n")
    Path("nothing.yaml").write_text("optimiser:\ntrainer:\n  max_steps: 1\n")


@pytest.mark.parametrize("argument", REFUSED)
def test_one_sentence_and_no_run_folder(argument, capsys):
    name = argument.partition("=")[0]
    given = [a for a in FIT if a.partition("=")[0] != name or name == "--config"]
    with pytest.raises(SystemExit) as stopped:
        main([*given, "--run_folder=run", argument])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert REFUSED[argument] in said
    assert len(said.splitlines()) == 1
    assert not Path("run").exists()


def test_a_checkpoint_is_read_by_us_and_by_the_trainer_once_each(monkeypatch):
    main([*FIT, "--run_folder=run"])
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda f, **k: read.append(k.get("mmap")) or load(f, **k))
    main([*FIT, "--run_folder=more", "--ckpt_path=run", "--trainer.max_steps=2"])
    # Ours are mapped, and no weight is read for them: of the record, and of what was best before.
    assert read == [True, None, True]
