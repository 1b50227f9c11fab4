"""A published sentence encoder as it is on the STS benchmark, by ours and by sentence-transformers' evaluator.

    pip install sentence-transformers
    python examples/real_stsb.py MODEL STSB [--split en-test] [--out result.json]

MODEL is a folder or the name of a model (sentence-transformers/all-MiniLM-L6-v2), STSB a folder with
``en-test.csv``: two sentences and a number from 0 to 5 a line, no header. A minute on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

from tasks.cli import main as family

CONFIG = "sentence_embedding/stsb_minilm"


def by_ours(model: str, root: Path, split: str) -> dict[str, float]:
    """Correlations by ``family test``."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        data = [f"--data.root={root}", f"--data.test={split}"]
        called = ["test", f"--config={CONFIG}", f"--ckpt_path={model}", *data]
        family([*called, "--trainer.accelerator=cpu", f"--run_folder={run}"])
        found = json.loads((run / "metrics-test.json").read_text())["metrics"]
    return {name: found[f"test/{name}"] for name in ("spearman", "pearson")}


def by_sentence_transformers(model: str, root: Path, split: str) -> dict[str, float]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator

    with (root / f"{split}.csv").open(encoding="utf-8", newline="") as opened:
        one, other, scores = zip(*csv.reader(opened), strict=True)
    evaluate = EmbeddingSimilarityEvaluator(one, other, [float(score) / 5 for score in scores])
    found = evaluate(SentenceTransformer(model, device="cpu"))
    return {name: found[f"{name}_cosine"] for name in ("spearman", "pearson")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="en-test")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    where = given.model, given.root, given.split
    found = {"ours": by_ours(*where), "sentence_transformers": by_sentence_transformers(*where)}
    difference = max(
        abs(value - found["sentence_transformers"][name]) for name, value in found["ours"].items()
    )
    record = {"split": given.split, **found, "difference": difference}
    print(json.dumps(record, indent=2))
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        command = "python examples/real_stsb.py sentence-transformers/all-MiniLM-L6-v2 STSB"
        command += f" --split {given.split} --out {given.out}"
        given.out.write_text(json.dumps({"command": command, **record}, indent=2) + "\n")


if __name__ == "__main__":
    main()
