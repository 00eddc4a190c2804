"""The trained models that tables need: their configuration, their folder, and whether it is there.

A run is known by a digest of its resolved configuration, its cohort, and the code that matters, so
that tables share runs, and a kept result is never of other settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.experiments.baselines import LogisticSettings
from gimp_fast.experiments.code_version import code_digest
from gimp_fast.experiments.paper import BOTH, LOGISTIC_REGRESSION, Experiment, Row
from gimp_fast.models import available, model_class
from gimp_fast.training import TrainConfig, load_config
from gimp_fast.training.config import read_yaml
from gimp_fast.training.stages import stages_of

OF_THE_TABLE = ("method", "modalities", "split", "seed", "data")
# They change how a run is carried out, or nothing but the intervals in its own metrics.json, which
# tables do not use. Threads change a result by rounding alone.
_WITHOUT_EFFECT = {
    "data", "workers", "save_minutes", "keep_checkpoints", "profile", "wandb",
    "rank_timeout_minutes", "cache_gb", "threads", "bootstrap",
}  # fmt: skip
# Tables make their own intervals, of all runs together.
BOOTSTRAP_OF_A_RUN = "bootstrap=100"
DONE, PREDICTIONS = "run.json", "predictions.csv"


@dataclass(frozen=True)
class Run:
    """One model to train.

    Attributes:
        row: key of the (first) row that wants it.
        split, seed: of the run; a method without randomness has the first seed alone.
        settings: what is trained.
        digest: what makes it the same run.
    """

    row: str
    split: str
    seed: int
    settings: TrainConfig | LogisticSettings
    digest: str

    @property
    def name(self) -> str:
        return f"{self.row}-{self.split}-{self.seed}-{self.digest[:8]}"

    def __str__(self) -> str:
        return f"{self.row} {self.split} seed {self.seed}"


@dataclass(frozen=True)
class Shared:
    """What all rows of all tables are trained with.

    Attributes:
        preset: of :func:`gimp_fast.training.presets`.
        overrides: ``key=value``, of a configuration file and of ``--set``.
    """

    preset: str
    overrides: tuple[str, ...] = ()

    @classmethod
    def of(cls, preset: str, path: Path | None, overrides: Sequence[str]) -> Shared:
        """Raises: GimpError for what a table decides itself."""
        from_file = [] if path is None else list(_flat(read_yaml(path)))
        for text in (*from_file, *overrides):
            name = text.partition("=")[0].strip()
            if name in OF_THE_TABLE:
                raise GimpError(f"--set {text}: the table decides the {name} of each run")
        return cls(preset, (*from_file, *overrides))

    def config(self, row: Row, split: str, seed: int, threads: int | None) -> TrainConfig:
        """Preset, what the user set, then what makes the row."""
        kept = [text for text in self.overrides if _concerns(text, row.method)]
        fixed = [f"method={row.method}", f"modalities={row.modalities}", f"seed={seed}"]
        first = [BOOTSTRAP_OF_A_RUN] if threads is None else [
            BOOTSTRAP_OF_A_RUN, f"threads={threads}",
        ]  # fmt: skip
        split_override = f"split={json.dumps(split)}"
        overrides = [*first, *kept, *row.overrides, *fixed, split_override]
        return load_config(self.preset, overrides=overrides)

    @property
    def on_cpu(self) -> bool:
        """Whether all runs stay off the GPUs that there may be."""
        devices = [text for text in self.overrides if _concerns_device(text)]
        return load_config(self.preset, overrides=devices).device == "cpu"

    def check(self) -> None:
        """GimpError for an architecture setting that no method has."""
        for text in self.overrides:
            if not any(_concerns(text, method) for method in available()):
                raise GimpError(f"--set {text}: no method has such a setting")


def _concerns_device(override: str) -> bool:
    return override.partition("=")[0].strip() == "device"


def _concerns(override: str, method: str) -> bool:
    """Settings of an architecture are for the methods that have them, all others for everybody."""
    section, _, name = override.partition("=")[0].strip().partition(".")
    if section != "model" or not name:
        return True
    if method not in available():
        return False
    return name in model_class(method).settings_class.model_fields


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value)}"  # JSON is YAML


def skip_reason(row: Row, cohort: Cohort) -> str | None:
    """Why a row cannot be made from this cohort; None if it can."""
    if row.method != LOGISTIC_REGRESSION and row.method not in available():
        return f"this version has no method '{row.method}'"
    if row.modalities != "slide" and not any(map(cohort.has_expression, cohort.case_ids)):
        return "needs RNA, of which the cohort has none"
    if row.modalities != "rna" and not any(map(cohort.has_slides, cohort.case_ids)):
        return "needs slides, of which the cohort has none"
    return None


@dataclass(frozen=True)
class Plan:
    """Attributes:
    of_row: table name, row key -> its runs, the same objects where tables share them.
    skipped: table name, row key -> why it has none.
    """

    of_row: dict[tuple[str, str], tuple[Run, ...]]
    skipped: dict[tuple[str, str], str]

    @property
    def runs(self) -> list[Run]:
        """Each once; a fold is finished before the next begins, so that early results compare."""
        unique = {run.digest: run for runs in self.of_row.values() for run in runs}
        order = {run.split: place for place, run in enumerate(unique.values())}
        return sorted(unique.values(), key=lambda run: (run.seed, order[run.split]))


def make_plan(
    experiments: Sequence[Experiment],
    cohort: Cohort,
    shared: Shared,
    *,
    rows: frozenset[str],
    splits: Sequence[str],
    seeds: Sequence[int],
    threads: int | None,
) -> Plan:
    """Everything that the tables need.

    Raises:
        GimpError: settings that do not validate.
    """
    wanted = [(table, row) for table in experiments for row in table.rows if row.key in rows]
    shared.check()
    of_row, skipped, known = {}, {}, {}
    for table, row in wanted:
        reason = skip_reason(row, cohort)
        if reason:
            skipped[table.name, row.key] = reason
            continue
        runs = []
        for seed in seeds if row.method != LOGISTIC_REGRESSION else seeds[:1]:
            for split in splits:
                run = _run(row, split, seed, cohort, shared, threads)
                runs.append(known.setdefault(run.digest, run))
        of_row[table.name, row.key] = tuple(runs)
    return Plan(of_row, skipped)


def _run(
    row: Row, split: str, seed: int, cohort: Cohort, shared: Shared, threads: int | None
) -> Run:
    if row.method == LOGISTIC_REGRESSION:
        settings: TrainConfig | LogisticSettings = LogisticSettings(row.modalities, split)
        values = {"method": row.method, **asdict(settings)}
        code = code_digest("gimp_fast.experiments.baselines")
    else:
        settings = shared.config(row, split, seed, threads)
        values = settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
        # A stage that is not run cannot matter, whatever its settings.
        for stage in {"genes", "pretrain"} - {kind.name for kind in stages_of(settings)}:
            del values[stage]
        if row.modalities != BOTH:  # there is nothing to hide one of
            values["finetune"]["modality_dropout"] = 0.0
        code = code_digest(model_class(row.method).__module__)
    content = json.dumps([values, cohort.fingerprint, code], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Run(row.key, split, seed, settings, digest)


def find_folder(runs: Path, run: Run) -> Path:
    """Where the run is or will be: under the name of another row if that made it first."""
    found = sorted(runs.glob(f"*-{run.digest[:8]}"))
    return found[0] if found else runs / run.name


def is_done(folder: Path) -> bool:
    """Whether a run is finished; the record of it is written last."""
    return (folder / DONE).is_file() and (folder / PREDICTIONS).is_file()
