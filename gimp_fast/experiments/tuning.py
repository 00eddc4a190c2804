"""``--tune``: settings of every row, chosen on validation patients by equally many trials.

Each split is tuned by itself, with the first seed: settings never see test patients, nor patients
of the other splits. The first trial is the configuration that all rows share; the others are drawn
by Optuna's TPE from the method's space. The same command repeats the same trials, and takes those
that are done from their folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.experiments.finished import Finished
from gimp_fast.experiments.measures import CROSS_ENTROPY, Measure
from gimp_fast.experiments.plan import Plan, Shared, Tuned, planned_run, skip_reason
from gimp_fast.experiments.rows import PLAIN, Experiment, Row
from gimp_fast.experiments.spaces import LogRange, Space, space_of

# Trains what is missing: digest -> the run, and digest -> the error of one that failed.
Execute = Callable[[Plan], tuple[dict[str, Finished], dict[str, str]]]


@dataclass(frozen=True)
class Trial:
    """One configuration on one split, and its measure; None if it failed.

    ``loss`` is the measure, its sign turned if more is better.
    """

    overrides: tuple[str, ...]
    value: float | None
    loss: float | None


class _Search:
    """The trials of one row on one split."""

    def __init__(self, row: Row, split: str, space: Space, measure: Measure):
        optuna = _optuna()
        self.row, self.split, self.trials, self.measure = row, split, [], measure
        seed = int(hashlib.sha256(f"{row.key} {split}".encode()).hexdigest()[:8], 16)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self._space = {key: _distribution(optuna, values) for key, values in space.items()}
        self._asked: Any = None

    def next(self) -> tuple[str, ...]:
        """Overrides of the next trial, which then waits for :meth:`tell`."""
        if not self.trials:
            return ()  # the shared configuration
        self._asked = self._study.ask(self._space)
        return tuple(f"{key}={json.dumps(value)}" for key, value in self._asked.params.items())

    def tell(self, overrides: tuple[str, ...], value: float | None) -> None:
        loss = self.measure.loss(value)
        self.trials.append(Trial(overrides, value, loss))
        if self._asked is not None:
            failed = _optuna().trial.TrialState.FAIL
            self._study.tell(self._asked, loss, state=failed if loss is None else None)
            self._asked = None

    def best(self) -> tuple[str, ...]:
        """Overrides of the trial of the smallest loss, of equals the first."""
        done = [trial for trial in self.trials if trial.loss is not None]
        return min(done, key=lambda trial: trial.loss).overrides if done else ()


def tune(
    experiments: Sequence[Experiment],
    cohort: Cohort,
    shared: Shared,
    *,
    rows: frozenset[str],
    splits: Sequence[str],
    seed: int,
    threads: int | None,
    trials: int,
    execute: Execute,
    log: Callable[[str], None],
    measure: Measure = CROSS_ENTROPY,
) -> tuple[Tuned, dict[str, Any]]:
    """Settings of each row on each split, and the record of all trials for ``results.json``.

    All rows make their first trial, then all their second: so that a table can be stopped between
    two, and what is drawn depends on a row's own trials alone.
    """
    wanted = {
        row.key: row
        for table in experiments
        for row in table.rows
        if row.key in rows and not row.mixes and not skip_reason(row, cohort)
    }
    has = {"has_sites": cohort.can_compare_sites(), "has_gene_sets": bool(cohort.gene_sets)}
    searches = [
        _Search(row, split, _space(row, split, shared, seed, threads, **has), measure)
        for row in wanted.values()
        for split in splits
    ]
    for number in range(1, trials + 1):
        log(f"tuning: trial {number} of {trials} of {len(wanted)} rows on {len(splits)} splits")
        asked = []
        for search in searches:
            overrides = search.next()
            place = search.row, search.split, seed
            run = planned_run(*place, cohort, shared, threads, overrides)
            asked.append((search, overrides, run))
        plan = Plan({("tuning", str(n)): (run,) for n, (*_, run) in enumerate(asked)}, {})
        finished, _ = execute(plan)
        for search, overrides, run in asked:
            ended = finished.get(run.digest)
            search.tell(overrides, ended and measure.of(ended.predictions.of("val")))
    chosen = {(search.row.key, search.split): search.best() for search in searches}
    return chosen, _record(searches, trials)


def _space(
    row: Row, split: str, shared: Shared, seed: int, threads: int | None, **has: bool
) -> Space:
    config = None
    if row.method not in PLAIN:
        config = shared.config(row, split, seed, threads)
    return space_of(row, config, **has)


def _record(searches: Sequence[_Search], trials: int) -> dict[str, Any]:
    of_rows: dict[str, dict[str, Any]] = {}
    for search in searches:
        of_rows.setdefault(search.row.key, {})[search.split] = {
            "chosen": list(search.best()),
            "trials": [
                {"overrides": list(trial.overrides), search.measure.name: trial.value}
                for trial in search.trials
            ],
        }
    return {"trials_of_each": trials, "rows": of_rows}


def _distribution(optuna: Any, values: LogRange | tuple[Any, ...]) -> Any:
    if isinstance(values, LogRange):
        return optuna.distributions.FloatDistribution(values.low, values.high, log=True)
    return optuna.distributions.CategoricalDistribution(values)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise GimpError("--tune: needs Optuna; expected `pip install 'gimp-fast[tune]'`") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
