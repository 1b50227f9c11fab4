"""The runs of a comparison as jobs of a SLURM cluster, through submitit."""

from __future__ import annotations

from typing import Any

import yaml

from family.files import write_text
from tasks.compare.plan import Plan
from tasks.compare.runs import Run, do
from tasks.errors import UserError


def submit(runs: list[Run], plan: Plan, parameters: list[str], cluster: str | None = None) -> None:
    """Do runs, each as a job, and wait for all.

    Args:
        parameters: of submitit's executor, as ``slurm_partition=gpu``, ``timeout_min=120``.
        cluster: what submitit is to use; None is SLURM where it is, else this machine.

    Raises:
        UserError: submitit is missing, or refuses a parameter.
    """
    try:
        import submitit
    except ImportError:
        raise UserError(
            "--submitit needs submitit: pip install 'transformer-family[slurm]'."
        ) from None
    left = [run for run in runs if not run.finished(plan.test)]
    if not left:
        return
    executor = submitit.AutoExecutor(folder=str(left[0].folder / "jobs"), cluster=cluster)
    given: dict[str, Any] = {}
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        given[name] = yaml.safe_load(value)
    try:
        executor.update_parameters(**{"name": plan.name, **given})
    except (NameError, TypeError, ValueError) as error:
        raise UserError(f"--submitit: {' '.join(str(error).split())}") from None
    with executor.batch():
        jobs = [executor.submit(do, run, plan) for run in left]
    for run, job in zip(left, jobs, strict=True):
        print(f"{run.name}: job {job.job_id}", flush=True)
    for run, job in zip(left, jobs, strict=True):
        # What the run itself could not write down, such as a job that ran out of time.
        if (failed := job.exception()) is not None:
            run.error.parent.mkdir(parents=True, exist_ok=True)
            said = str(failed).strip().splitlines() or ["the job ended"]
            write_text(run.error, f"{said[-1]}\n")
