"""One call of the command on one cohort: its plan, its trials, and its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.experiments.execute import execute
from gimp_fast.experiments.finished import Call, Finished
from gimp_fast.experiments.machines import Machines
from gimp_fast.experiments.measures import C_INDEX, CROSS_ENTROPY
from gimp_fast.experiments.plan import Plan, Shared, describe, make_plan
from gimp_fast.experiments.rows import Experiment, chosen_rows, chosen_splits
from gimp_fast.experiments.tuning import tune
from gimp_fast.ops.backends import choose_device
from gimp_fast.runs.environment import environment


@dataclass(frozen=True)
class Asked:
    """What the command was asked for, of every cohort.

    Attributes:
        only, splits: names or patterns; empty for all.
        seeds: 0, 1 …
        trials: of each row, to choose its settings; None for none.
        jobs: runs at a time on this machine; None for as many as fit.
        scheduler: of a cluster that trains them instead; None for this machine.
        runs: folder of all runs.
        keep: whether weights stay.
        words: the command as it was typed.
    """

    tables: tuple[Experiment, ...]
    only: tuple[str, ...]
    splits: tuple[str, ...]
    seeds: tuple[int, ...]
    trials: int | None
    jobs: int | None
    scheduler: str | None
    runs: Path
    keep: bool
    words: str
    resamples: int

    @cached_property
    def rows(self) -> frozenset[str]:
        return chosen_rows(self.tables, self.only)


class OnCohort:
    """The work on one cohort; GimpError for a plan that cannot be carried out.

    Attributes:
        cohort: the patients.
        splits: of the cohort, those asked for.
        plan: without trials.
    """

    def __init__(self, asked: Asked, cohort: Cohort, shared: Shared):
        self.asked, self.cohort, self.shared = asked, cohort, shared
        self.splits = chosen_splits(cohort.split_names, asked.splits)
        if not self.splits:
            raise GimpError(f"{cohort.path}: the cohort has no splits; `prepare` makes them")
        self._machines = Machines.asked(asked.jobs, asked.scheduler, shared.on_cpu)
        self.plan = self._plan()
        if not self.plan.runs:
            names = ", ".join(table.name for table in asked.tables)
            reasons = "; ".join(f"{key}: {why}" for (_, key), why in self.plan.skipped.items())
            raise GimpError(f"{cohort.path}: no row of {names} can be trained: {reasons}")

    def _plan(self, tuned: Any = None) -> Plan:
        return make_plan(
            self.asked.tables, self.cohort, self.shared, rows=self.asked.rows,
            splits=self.splits, seeds=self.asked.seeds, threads=self._machines.threads, tuned=tuned,
        )  # fmt: skip

    def describe(self) -> Sequence[str]:
        """Lines that say what would be done."""
        asked = self.asked
        return list(describe(asked.tables, self.plan, asked.runs, self.splits, asked.seeds))

    def check(self) -> None:
        """Look at devices, for the error, before anything is written; say which rows are out."""
        if self._machines.scheduler is not None:
            with self._machines.engine([self.cohort.path.resolve()]) as engine:
                print(engine)
        else:
            for device in {getattr(run.settings, "device", "cpu") for run in self.plan.runs}:
                choose_device(device)
        if self.cohort.synthetic:
            print("SYNTHETIC patients: these results say nothing about real ones.")
        for (table, key), reason in self.plan.skipped.items():
            print(f"{table}: row {key} is left out: {reason}")

    def train(self) -> tuple[Call, Plan, dict[str, Finished], dict[str, str]]:
        """Choose settings, if asked to, and train what is missing.

        Returns:
            The record of the call, the plan, digest -> finished run, and digest -> error.
        """
        asked, plan, tuning = self.asked, self.plan, None
        carry_out = partial(
            execute, cohort=self.cohort, runs=asked.runs, machines=self._machines,
            keep=asked.keep,
        )  # fmt: skip
        if asked.trials:
            of_survival = any(table.of_survival for table in asked.tables)
            tuned, tuning = tune(
                asked.tables, self.cohort, self.shared, rows=asked.rows, splits=self.splits,
                threads=self._machines.threads, seed=asked.seeds[0], trials=asked.trials,
                execute=carry_out, log=print, measure=C_INDEX if of_survival else CROSS_ENTROPY,
            )  # fmt: skip
            plan = self._plan(tuned)
        finished, errors = carry_out(plan)
        call = Call(
            self.cohort, tuple(self.splits), asked.seeds, self.shared.preset,
            self.shared.overrides, asked.words, environment(), asked.resamples, tuning,
        )  # fmt: skip
        return call, plan, finished, errors
