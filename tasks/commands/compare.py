"""``family compare --config compare/NAME``: variants of a task, equal budgets, an honest report."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from family.files import write_text
from tasks.commands.examples import command_parser
from tasks.errors import UserError, at_least, closest

if TYPE_CHECKING:
    from tasks.compare.plan import Plan
    from tasks.compare.runs import Run


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "compare",
        __doc__,
        "family compare --config compare/shapes_translation",
        "family compare --config compare/multi30k --data.root MULTI30K",
        more="Options of a config, such as --data.root FOLDER, hold for all variants. Interrupted "
        "and started again, it goes on and repeats nothing.",
    )
    made.add_argument("--config", required=True, help="compare/NAME, or a file of that kind")
    made.add_argument("--folder", type=Path, help="of all its runs (default: runs/compare-NAME)")
    made.add_argument("--devices", type=int, help="GPUs, a run on each, side by side")
    made.add_argument(
        "--print_commands", action="store_true", help="print the commands of what is left, run none"
    )
    made.add_argument(
        "--submitit",
        nargs="*",
        metavar="NAME=VALUE",
        help="on a SLURM cluster, with its parameters",
    )
    made.add_argument("--only", metavar="VARIANT/LR/SEED", help="do this run alone")
    made.add_argument("--report", action="store_true", help="of what there is; run nothing")
    return made


def run(arguments: list[str]) -> None:
    """Plan, run what is left, gather, report."""
    options, rest = parser().parse_known_args(arguments)
    if options.devices is not None:
        at_least(1, of="--", devices=options.devices)
    unknown = next((o for o in rest if o.startswith("--") and "." not in o), None)
    if unknown:
        known = [name for name in vars(options)]
        raise UserError(f"unknown option {unknown}.{closest(unknown.strip('-'), known)}")
    # Here, because these read the command line's module, which reads this one.
    from tasks.cli.configs import find_config
    from tasks.compare.config import read_comparison
    from tasks.compare.plan import Plan, make_plan
    from tasks.compare.runs import chosen_runs, do_all, first_runs

    path = Path(find_config(options.config))
    folder = options.folder or Path("runs") / f"compare-{path.stem}"
    if options.report:
        report(Plan.load(folder), folder)
        return
    plan = make_plan(read_comparison(path, find_config, rest)).save(folder)
    again = ["family", "compare", "--config", options.config, "--folder", str(folder), *rest]
    write_text(folder / "command.txt", shlex.join(again) + "\n")
    if options.only is not None:
        do_all([named(plan, folder, options.only)], plan, None)
        return
    if options.print_commands:
        print_commands(plan, folder, again)
        return
    if options.submitit is not None:
        from tasks.compare.cluster import submit

        together = partial(submit, parameters=options.submitit)
    else:
        together = partial(do_all, devices=options.devices)
    together(first_runs(plan, folder), plan)
    report(plan, folder)
    chosen = [runs for name in plan.variants if (runs := chosen_runs(plan, folder, name))]
    left = [one for runs in chosen for one in runs if not one.finished(plan.test)]
    if left := [one for one in left if not one.error.exists()]:
        together(left, plan)
        report(plan, folder)


def named(plan: Plan, folder: Path, name: str) -> Run:
    """The run of ``VARIANT/lr-RATE/seed-N``; lr-best is the best rate.

    Raises:
        UserError: there is none.
    """
    from tasks.compare.runs import Run, best_rate

    known = {
        run.name: run
        for variant in plan.variants.values()
        for rate in variant.learning_rates
        for seed in dict.fromkeys([*variant.seeds, variant.first_seed])
        for run in [Run(folder, variant.name, rate, seed)]
    }
    variant, rate, seed = [*name.split("/"), "", ""][:3]
    if rate == "lr-best" and variant in plan.variants:
        best = best_rate(plan, folder, variant)
        if best is None:
            raise UserError(
                f"--only {name}: the learning rates of {variant} are not all tried yet."
            )
        name = f"{variant}/lr-{best:g}/{seed}"
    if name not in known:
        raise UserError(f"--only {name}: no such run.{closest(name, known)}")
    return known[name]


def print_commands(plan: Plan, folder: Path, again: list[str]) -> None:
    """A line for each run that is left, for any scheduler."""
    from tasks.compare.runs import first_runs

    first = first_runs(plan, folder)
    for one in first:
        if not one.finished(plan.test):
            print(shlex.join([*again, "--only", one.name]))
    later = [
        f"{variant.name}/lr-best/seed-{seed}"
        for variant in plan.variants.values()
        if len(variant.learning_rates) > 1
        for seed in variant.seeds
        if seed != variant.first_seed
    ]
    if later:
        print("# When these are done:")
    for name in later:
        print(shlex.join([*again, "--only", name]))
    print("# When all are done:")
    print(shlex.join([*again, "--report"]))


def report(plan: Plan, folder: Path) -> dict[str, Any]:
    """Gather what there is, write the report, and say what it says."""
    from tasks.compare.gather import gather
    from tasks.compare.report import mean_of, write_report

    results = gather(plan, folder)
    page = write_report(results, folder)
    for name, variant in results["variants"].items():
        print(f"{name}: {results['metric']['name']} {mean_of(variant)}")
        for run, error in variant["failures"].items():
            print(f"{run} failed: {error}")
        for run, reason in variant["divergences"].items():
            print(f"{run} diverged: {reason}")
    for pair in results["pairs"]:
        print(pair["verdict"])
    print(f"The report is {page}.")
    return results
