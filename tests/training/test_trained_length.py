"""How long the texts of a training were goes with the model: checkpoint, saved folder, training on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import family
from tasks.cli import main

FIXTURES = Path(__file__).parents[1] / "fixtures/runs"
TEXT = "a red circle is left of a blue square\n" * 60
FIT = [
    *("fit", "--config=gpt/shapes", "--data.root=text.txt", "--data.batch_size=2"),
    *("--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.limit_val_batches=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.accelerator=cpu", "--run_folder=run"),
]
SMALL = [f"--model.model.init_args.config.{n}" for n in ("dim=16", "heads=2", "depth=1")]
SMALL += ["--model.model.init_args.config.ffn_dim=32"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)


def length(source):
    generation = family.from_pretrained(source).generation
    return generation and generation.trained_tokens


def test_a_run_and_what_is_saved_of_it(capsys):
    main([*FIT, *SMALL, "--data.context=12"])
    assert length("run") == 12
    family.save_pretrained(family.from_pretrained("run"), "saved")
    assert length("saved") == 12
    assert family.load("saved").assets["generation"]["trained_tokens"] == 12
    capsys.readouterr()
    for source in ("run", "saved"):
        model = family.from_pretrained(source)
        ids = model.tokenizer.encode("a red")
        text = list(ids)
        with torch.no_grad():
            for _ in range(40):
                text.append(int(model(torch.tensor([text[-12:]]))[0, -1].argmax()))
        greedy = ["--prompt=a red", "--temperature=0"]
        main(["generate", source, *greedy, "--max_new_tokens=40"])
        shown = capsys.readouterr()
        assert shown.out == model.tokenizer.decode(text) + "\n"
        assert shown.err == (
            f"{source} was trained on texts of 12 tokens: of one that grows longer it reads the last "
            "12.\n"
        )
        main(["generate", source, *greedy, f"--max_new_tokens={13 - len(ids)}"])
        assert not capsys.readouterr().err
        assert (
            model.generate(torch.tensor([ids]), max_new_tokens=40)[0].tolist() == text[len(ids) :]
        )


@pytest.mark.parametrize(("context", "found"), [(8, 12), (20, 20)])
@pytest.mark.slow
def test_a_run_that_goes_on_knows_the_longest(context, found):
    main([*FIT, *SMALL, "--data.context=12"])
    more = ["--ckpt_path=run", "--trainer.max_steps=4", "--run_folder=more"]
    main([*FIT, *SMALL, f"--data.context={context}", *more])
    # The best may be that of before, which saw no more than it says.
    assert length("more/checkpoints/last.ckpt") == found


def test_a_published_model_keeps_its_own_length():
    main([*FIT, *SMALL, "--data.context=12"])
    model = family.from_pretrained("run")
    model.generation = None
    family.save_pretrained(model, "published")
    fit = [option for option in FIT[1:] if "--config" not in option]
    data = "--data=tasks.data.language_modeling.LanguageModelingData"
    source = ["--model=tasks.LanguageModeling", "--model.pretrained=published", data]
    main(["fit", *source, *fit, "--data.context=9", "--run_folder=tuned"])
    assert length("published") is None and length("tuned") is None


def test_a_run_of_before_says_it_by_the_options_of_its_data(tmp_path):
    assert length(FIXTURES / "language_modeling") == 16
    assert length(FIXTURES / "language_modeling_lora") is None  # of a published model
    file = next((FIXTURES / "language_modeling").rglob("*.ckpt"))
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(file.read_bytes())
    assert length(alone) is None
    content = torch.load(file, weights_only=True)
    content["LanguageModelingData"]["options"] = {"context": 11}
    torch.save(content, alone)
    assert length(alone) == 11
