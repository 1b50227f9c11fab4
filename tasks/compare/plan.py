"""All that a comparison will run, built and counted before the first run starts."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from family.pretrained.configs import flat
from tasks.compare.config import Budget, Comparison, Config, Match, get, lay_over, undotted
from tasks.compare.describe import describe
from tasks.compare.measure import write_json
from tasks.errors import UserError, closest

RATE = "model.init_args.lr"
CLOSE = 0.02
"""How near matched parameters must be."""


@dataclass(frozen=True)
class Variant:
    """One side of a comparison.

    Args:
        config: of its ``family fit``, but for budget and seed.
        parameters: of its model.
        matched: the field that was scaled, and its value.
        choosing_seed: with which the learning rates are tried, none of ``seeds``: what a choice was made by
            says too much of it. None where there is nothing to choose, and in plans of before: there the
            first of ``seeds`` chose.
    """

    name: str
    config: Config
    learning_rates: list[float]
    seeds: list[int]
    parameters: int
    matched: dict[str, int]
    choosing_seed: int | None = None

    @property
    def first_seed(self) -> int:
        """With which the learning rates are tried."""
        return self.seeds[0] if self.choosing_seed is None else self.choosing_seed


@dataclass(frozen=True)
class Plan:
    """What is run, and by what it is judged.

    Args:
        monitor: the validation metric that chooses checkpoint and learning rate, and "max" or "min".
        metric: that the report is about.
        validations: how many, evenly spread; None is as the configs say.
    """

    name: str
    variants: dict[str, Variant]
    budget: Budget
    monitor: tuple[str, str]
    metric: tuple[str, str]
    test: bool
    validations: int | None

    def save(self, folder: Path) -> Plan:
        """Write ``plan.json``; an earlier one must say the same.

        Returns:
            The plan to go on with: one of before keeps the seeds by which it chose learning rates.

        Raises:
            UserError: the folder holds another comparison.
        """
        file, plan = folder / "plan.json", self
        if file.exists():
            before = Plan.load(folder)
            plan = self.choosing_as(before)
            theirs, mine = flat(plain(before)), flat(plain(plan))
            for field in sorted({*theirs, *mine}):
                was, now = theirs.get(field), mine.get(field)
                if was != now:
                    raise UserError(
                        f"{folder} holds another comparison: {field} was {was!r} and is {now!r} now; "
                        "choose another --folder."
                    )
        else:
            write_json(file, plain(plan))
        return plan

    def choosing_as(self, before: Plan) -> Plan:
        """With the choosing seeds of an earlier plan, which may have had none of their own."""
        variants = {
            name: replace(one, choosing_seed=before.variants[name].choosing_seed)
            if name in before.variants and before.variants[name].choosing_seed is None
            else one
            for name, one in self.variants.items()
        }
        return replace(self, variants=variants)

    @staticmethod
    def load(folder: Path) -> Plan:
        """What :meth:`save` wrote.

        Raises:
            UserError: there is none.
        """
        if not (folder / "plan.json").is_file():
            raise UserError(f"{folder} holds no comparison (plan.json).")
        values = json.loads((folder / "plan.json").read_text("utf-8"))
        values["variants"] = {n: Variant(**v) for n, v in values["variants"].items()}
        values["budget"] = Budget(**values["budget"])
        for name in ("monitor", "metric"):
            values[name] = tuple(values[name])
        return Plan(**values)


def plain(plan: Plan) -> dict[str, Any]:
    """As JSON has it."""
    return json.loads(json.dumps(asdict(plan)))


def make_plan(comparison: Comparison) -> Plan:
    """Build every variant's model once, and match their parameters.

    Raises:
        UserError: a variant that ``family fit`` would refuse, or that cannot be matched.
    """
    described = {
        n: describe(n, config, comparison.test) for n, config in comparison.variants.items()
    }
    configs: dict[str, Config] = dict(comparison.variants)
    matched: dict[str, dict[str, int]] = {n: {} for n in described}
    if match := comparison.match:
        target = described[match.to].parameters
        for name in [n for n in configs if n != match.to]:
            field = match.field if isinstance(match.field, str) else match.field.get(name)
            if field is not None:
                value = matching_value(name, configs[name], field, match, target)
                matched[name] = {field: value}
                configs[name] = lay_over(configs[name], undotted(matched[name]))
                described[name] = describe(name, configs[name])
    monitors = {one.monitor for one in described.values()}
    if len(monitors) > 1:
        said = ", ".join(name for name, _ in sorted(monitors))
        raise UserError(f"the variants are of several tasks, judged by {said}: compare within one.")
    monitor = monitors.pop()
    of_test = (monitor[0].replace("val/", "test/"), monitor[1])
    metric = comparison.metric or (of_test if comparison.test else monitor)
    if metric[0].startswith("test/") and not comparison.test:
        raise UserError(f"metric.name={metric[0]} needs test: true.")
    choosing = 1 + max(seed for seeds in comparison.seeds.values() for seed in seeds)
    variants = {
        name: Variant(
            name,
            configs[name],
            comparison.learning_rates[name] or [described[name].lr],
            comparison.seeds[name],
            described[name].parameters,
            matched[name],
            choosing if len(comparison.learning_rates[name]) > 1 else None,
        )
        for name in configs
    }
    return Plan(
        comparison.name,
        variants,
        comparison.budget,
        monitor,
        metric,
        comparison.test,
        comparison.validations,
    )


def run_config(plan: Plan, variant: str, rate: float, steps: int) -> Config:
    """The config of a ``family fit``, all but its seed.

    Args:
        steps: in which the budget will be spent; schedules end with them.
    """
    options: Config = {
        RATE: rate,
        "trainer.max_steps": steps,
        "trainer.max_epochs": None,
        "trainer.enable_progress_bar": False,
        "trainer.enable_model_summary": False,
    }
    own = plan.variants[variant].config
    if plan.validations is not None:
        batches = steps * int(get(own, "trainer.accumulate_grad_batches") or 1)
        options["trainer.check_val_every_n_epoch"] = None
        options["trainer.val_check_interval"] = max(1, math.ceil(batches / plan.validations))
    config = lay_over(own, undotted(options))
    module = "tasks.compare.measure"
    budget = {"unit": plan.budget.unit, "amount": plan.budget.amount}
    config["trainer"]["callbacks"] = [
        *(get(own, "trainer.callbacks") or []),
        {"class_path": f"{module}.Measure", "init_args": budget},
        {"class_path": f"{module}.Outcomes"},
    ]
    return config


def matching_value(name: str, config: Config, field: str, match: Match, target: int) -> int:
    """The value of ``field`` with which a variant's parameters come nearest to ``target``.

    Raises:
        UserError: no such field, or none within 2 %.
    """
    now = get(config, field)
    if not isinstance(now, int):
        known = [f for f, value in flat(config).items() if isinstance(value, int)]
        raise UserError(
            f"variants.{name} has no number {field} to scale: there it is {now!r}."
            f"{closest(field, known)}"
        )

    def count(multiple: int) -> int:
        changed = undotted({field: multiple * match.multiple_of})
        return describe(name, lay_over(config, changed)).parameters

    low, high = 1, max(2, now // match.multiple_of)
    while count(high) < target and high < 1 << 16:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    found = {multiple: count(multiple) for multiple in (low, high)}
    best = min(found, key=lambda multiple: abs(found[multiple] - target))
    if abs(found[best] / target - 1) > CLOSE:
        raise UserError(
            f"variants.{name}: {field}={best * match.multiple_of} gives {found[best]:,} parameters, "
            f"{match.to} has {target:,}: no multiple of {match.multiple_of} comes within 2 %."
        )
    return best * match.multiple_of
