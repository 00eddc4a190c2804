"""A call of the command, and the runs that it finished, as their records say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.experiments.plan import PlannedRun
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.records import CasePredictions, Metrics, RunRecord, open_run


@dataclass(frozen=True)
class Call:
    """One call of the command, for the record; preset and overrides are those of all rows.

    ``tuning`` holds the trials of every row, if there were any.
    """

    cohort: Cohort
    splits: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    overrides: tuple[str, ...]
    command: str
    environment: dict[str, Any]
    resamples: int
    tuning: dict[str, Any] | None = None

    def scope(self, groups: Iterable[tuple[str, Sequence[str]]]) -> str:
        """Splits, seeds and preset in a few words, given the heading and splits of each group."""
        splits = ", ".join(f"{heading}: {len(names)}" for heading, names in groups)
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) != 1 else ''}"
        return f"{splits} · {seeds} · preset {self.preset}"

    def settings_words(self, measure: str) -> str:
        """How the settings of the rows were chosen; ``measure`` is what trials go by."""
        if self.tuning is None:
            return "all under one configuration"
        return (
            f"with settings that {self.tuning['trials_of_each']} trials of each row chose on each "
            f"split, by {measure} of the validation patients with the first seed, from ranges "
            "around what was published; the first trial is the configuration that all rows share"
        )


@dataclass(frozen=True)
class Finished:
    """A run that is done, with its records."""

    run: PlannedRun
    folder: Path
    record: RunRecord
    predictions: CasePredictions | OutcomePredictions
    metrics: Metrics | None = None
    weight: float | None = None  # of the model, in a mixture with its fallback


def read_run(run: PlannedRun, folder: Path) -> Finished:
    """The records of a finished run; GimpError names a file that is damaged."""
    try:
        files = open_run(folder)
        if files.record.digest != run.digest:
            raise GimpError(f"{folder}: found the record of another run")
        return Finished(run, folder, files.record, files.predictions, files.metrics)
    except GimpError as error:
        raise GimpError(f"{error}; remove {folder} and run again") from error


def failed_of(runs: Iterable[PlannedRun], errors: dict[str, str]) -> dict[str, str]:
    """Run -> its error, of those that failed; ``errors`` are by digest."""
    return {str(run): errors[run.digest] for run in runs if run.digest in errors}
