"""BLiMP (67 files of 1,000 minimal pairs; Warstadt et al. 2020): a language model's accuracy by phenomenon.

    python examples/blimp.py SOURCE BLIMP --batch_size 512 --out examples/results/blimp/NAME.json

BLIMP is the folder of its .jsonl files. ``--check 500`` compares the sums of log-probabilities of so many
pairs with transformers', in float64 (in float32 either is off by up to 2e-4 of some 80 nats), and ``--harness 3`` the scores of so many files with those that lm-evaluation-harness
gives by its own definition of the task; both take ``pip install transformers 'transformer-family[eval]'``.
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch

from family.inference.likelihood import begin_of, log_likelihoods
from tasks.commands.running import model_options, open_model
from tasks.evaluation.files import Item, TaskFile, read_tasks
from tasks.evaluation.scores import Outcome, groups_of, outcomes_of, summary


def their_total(model: Any, tokenizer: Any, begin: int | None, sentence: str) -> float:
    """The sum by transformers, of one sentence without padding."""
    ids = tokenizer(sentence, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*([] if begin is None else [begin]), *ids]], device=model.device)
    with torch.no_grad():
        chances = model(ids[:, :-1]).logits.double().log_softmax(-1)
    return chances.gather(2, ids[:, 1:, None]).sum().item()


def compare_totals(source: str, loaded: Any, files: list[TaskFile], count: int) -> dict[str, Any]:
    """The greatest difference of a sum, over pairs that are spread evenly over the files: ours in padded
    batches, theirs one by one."""
    import transformers

    path = Path(source)
    given = {"pretrained_model_name_or_path": source}
    if path.suffix == ".gguf":
        given = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32)
    weight = next(loaded.model.parameters())
    theirs, dtype = theirs.eval().to(weight.device, torch.float64), weight.dtype
    loaded.model.double()
    tokenizer = transformers.AutoTokenizer.from_pretrained(**given)
    items: list[Item] = [item for task in files for item in task.items]
    items = [items[i * len(items) // count] for i in range(count)]
    sentences = [text for item in items for _, text in item.pairs()]
    ours = [one.total for one in log_likelihoods(loaded.model, [("", s) for s in sentences])]
    begin = begin_of(loaded.tokenizer)
    differences = [
        abs(total - their_total(theirs, tokenizer, begin, sentence))
        for total, sentence in zip(ours, sentences, strict=True)
    ]
    loaded.model.to(dtype)
    return {
        "pairs": count,
        "dtype": "float64",
        "greatest_difference": max(differences),
        "mean_total": sum(ours) / len(ours),
    }


def by_harness(loaded: Any, task: TaskFile, limit: int | None, batch_size: int) -> float:
    """The accuracy of a file by the harness's own definition of BLiMP, over the file in place of the hub."""
    import lm_eval
    import yaml
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    from tasks.evaluation.harness import HarnessModel

    rows = [json.loads(line) for line in Path(task.file).read_text("utf-8").splitlines()]
    template = Path(lm_eval.__file__).parent / "tasks" / "blimp" / "_template_yaml"
    config = {k: v for k, v in yaml.safe_load(template.read_text()).items() if k != "dataset_path"}
    config |= {"task": task.name, "custom_dataset": lambda **_: {"train": Dataset.from_list(rows)}}
    tasks = {task.name: ConfigurableTask(config=config)}
    model = HarnessModel(loaded.model, batch_size)
    found = lm_eval.evaluate(lm=model, task_dict=tasks, limit=limit, log_samples=False)
    return found["results"][task.name]["acc,none"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="a run, or a published model")
    parser.add_argument("blimp", help="the folder of the .jsonl files")
    parser.add_argument("--limit", type=int, help="the first so many pairs of each file")
    parser.add_argument("--check", type=int, default=0, help="pairs to compare with transformers")
    parser.add_argument("--harness", type=int, default=0, help="files to run by the harness, too")
    parser.add_argument("--out", type=Path, help="a .json file")
    model_options(parser, 64)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    files = read_tasks(options.blimp)
    loaded = open_model(options.source, options, "LanguageModeling")
    outcomes: dict[str, list[Outcome]] = {}
    begun = time.perf_counter()
    for task in files:
        found = outcomes_of(loaded.model, task, 0, 0, options.limit, options.batch_size)
        outcomes[task.name] = found
    seconds = time.perf_counter() - begun
    whole = [one for some in outcomes.values() for one in some]
    (total,) = summary(whole)

    def accuracies(groups: dict[str, list[Outcome]]) -> dict[str, float | None]:
        return {name: summary(some)[0]["value"] for name, some in groups.items()}

    report: dict[str, Any] = {
        "command": " ".join(["python examples/blimp.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "seconds": round(seconds, 1),
        **total,
        "groups": accuracies(groups_of(whole)),
        "files": accuracies(outcomes),
    }
    if options.check:
        report["transformers"] = compare_totals(options.source, loaded, files, options.check)
    if options.harness:
        some = files[:: -(-len(files) // options.harness)]
        report["harness"] = {
            task.name: {
                "ours": report["files"][task.name],
                "theirs": by_harness(loaded, task, options.limit, options.batch_size),
            }
            for task in some
        }
    text = json.dumps(report, indent=2) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
