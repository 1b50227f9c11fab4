"""Baselines train through ``family fit`` and are used from their checkpoints, as members are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tasks.cli import main
from tasks.runs.checkpoints import load_checkpoint

SMALL = [
    "--run_folder=run",
    "--trainer.max_steps=4",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--model.model.init_args.dim=16",
]
TEXT = "a red circle is left of a blue square\n" * 200


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "run/metrics-fit.json").read_text())["metrics"]


@pytest.mark.slow
def test_translation_with_attention(folder, capsys):
    main(["fit", "--config", "translation/shapes_lstm", "--data.examples=300", *SMALL])
    assert "val/bleu" in metrics(folder)
    capsys.readouterr()
    main(["translate", "run", "un cercle rouge", "une étoile verte"])
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.slow
def test_translation_by_one_vector_in_mixed_precision(folder):
    more = [
        "--data.examples=300",
        "--data.shared_vocabulary=false",
        "--model.model.init_args.attention=false",
        "--trainer.precision=bf16-mixed",
    ]
    main(["fit", "--config", "translation/shapes_lstm", *more, *SMALL])
    model = load_checkpoint("run", "Translation").model
    state = torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[f"model.{name}"])
    assert not model.training and model.attention is None
    assert model.target_embedding is not model.source_embedding


def test_language_model_from_fit_to_generate(folder, capsys):
    config = "language_modeling/tinyshakespeare_lstm"
    main(["fit", "--config", config, "--data.root=text.txt", *SMALL])
    assert metrics(folder)["val/bits_per_byte"] > 0
    assert list((folder / "run/samples").glob("*.txt"))
    capsys.readouterr()
    for temperature in ("0", "1"):
        arguments = ["--max_new_tokens", "7", "--temperature", temperature]
        main(["generate", "run", "--prompt", "a red", *arguments])
        assert len(capsys.readouterr().out.rstrip("\n")) >= len("a red") + 1


def test_text_classifier_from_fit_to_classify(folder, capsys):
    main(["fit", "--config", "text_classification/shapes_lstm", "--data.examples=300", *SMALL])
    assert 0 <= metrics(folder)["val/accuracy"] <= 1
    capsys.readouterr()
    main(["classify", "run", "the red circle is left of the blue square", "--top=1"])
    assert capsys.readouterr().out.startswith("the red circle is left of the blue square\t")


# --- Any module that meets a contract ---


class Words(nn.Module):
    """A language model that has what its contract asks for, and nothing else."""

    def __init__(self, vocab_size: int, dim: int = 4) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(vocab_size, dim), nn.Linear(dim, vocab_size)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.out(self.table(input_ids))

    def generate(self, input_ids: Tensor, *, max_new_tokens: int, **options: object) -> Tensor:
        return input_ids[:, -1:].expand(-1, max_new_tokens)


class Pairs(Words):
    """The same of translation."""

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        return super().forward(target)

    def generate(
        self, source: Tensor, source_mask: Tensor | None = None, *, max_new_tokens: int,
        beams: int = 1, **options: object,
    ) -> Tensor:  # fmt: skip
        return source[:, :max_new_tokens]


class Topics(nn.Module):
    """The same of text classification."""

    def __init__(self, vocab_size: int, num_classes: int = 2, dim: int = 4) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(vocab_size, dim), nn.Linear(dim, num_classes)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        return self.out(self.table(input_ids).mean(1))


@pytest.mark.parametrize(
    ("config", "module"),
    [
        ("gpt/shapes", Words),
        ("translation/shapes_lstm", Pairs),
        ("text_classification/shapes_lstm", Topics),
    ],
)
@pytest.mark.slow
def test_a_module_needs_nothing_beyond_the_contract(folder, monkeypatch, config, module):
    (folder / "modules.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(folder)
    (folder / "other.yaml").write_text(
        f"model: {{init_args: {{model: {{class_path: modules.{module.__name__}}}}}}}\n"
    )
    examples = [] if module is Words else ["--data.examples=300"]
    main(["fit", "--config", config, "--config", "other.yaml", *examples, *SMALL])
    assert load_checkpoint(
        "run", *map(str, ("LanguageModeling", "Translation", "TextClassification"))
    )
