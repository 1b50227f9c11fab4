"""The first words of film reviews as prompts, for ``configs/policy_tuning/sst2_smollm2.yaml``.

    python examples/review_prompts.py SST2 FOLDER --words 4

SST2 is a folder that ``tasks.TextClassificationData`` reads; FOLDER gets a ``.jsonl`` for each split, with
the line of each review. Reviews that begin alike give one prompt, in the first of their splits alone.
"""

import argparse
import json
from pathlib import Path

from tasks.data.text_classification import TextClassificationData


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--words", type=int, default=4)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    data, seen = TextClassificationData(options.root), set[str]()
    for split in ("test", "val", "train"):
        rows = []
        for row in data.rows(split):
            words = row.text.split()
            prompt = " ".join(words[: options.words])
            if len(words) > options.words and prompt not in seen:
                seen.add(prompt)
                rows.append(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n")
        (options.folder / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
        print(f"{len(rows)} prompts in {options.folder / split}.jsonl")


if __name__ == "__main__":
    main()
