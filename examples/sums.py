"""Additions of two-digit numbers as text, a sum a line: ``train.txt`` and ``val.txt`` in FOLDER, for
``configs/language_modeling/sums.yaml``.

    python examples/sums.py FOLDER

The sums of "test" are in neither; those of "train" are the prompts that ``tasks.PromptData`` with
``view: sums`` trains on.
"""

import sys
from pathlib import Path

from tasks.data.sums import pairs, sums


def main(folder: str) -> None:
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        lines = [f"{question}{answer}" for question, answer in sums(len(pairs(split)), 0, split)]
        (root / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
        print(f"{len(lines)} sums in {root / split}.txt")


if __name__ == "__main__":
    main(*sys.argv[1:])
