"""The models that tables need: their configuration, and what makes two of them the same.

A run is identified by a digest of its resolved configuration, its cohort and the code. Tables share
runs of one digest, and never take a result of other settings or other code.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import gimp_fast.kernels
from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError, counted, did_you_mean
from gimp_fast.experiments.baselines import CoxSettings, LogisticSettings
from gimp_fast.experiments.rows import (
    BOTH,
    LOGISTIC_REGRESSION,
    PLAIN,
    RNA,
    SLIDES,
    Experiment,
    Row,
)
from gimp_fast.files.yaml_file import parse_yaml, read_yaml_mapping
from gimp_fast.models import available, model_class
from gimp_fast.plugins import load_plugins
from gimp_fast.runs.records import Run
from gimp_fast.training import TrainConfig, load_config
from gimp_fast.training.same_result import SAME_IN_TABLES
from gimp_fast.training.stages import stages_of

Tuned = dict[tuple[str, str], tuple[str, ...]]  # (row key, split) -> overrides
OF_THE_TABLE = ("method", "modalities", "split", "seed", "data")
# Tables make their own intervals, of all runs together.
BOOTSTRAP_OF_A_RUN = "bootstrap=100"
PACKAGE = Path(__file__).resolve().parents[1]
PlainSettings = LogisticSettings | CoxSettings
# Rooms that show results, apply models, read slides or run tasks: results do not depend on them.
BASELINES = ("experiments", "baselines")
NOT_TRAINING = {"experiments", "heatmaps", "inference", "pages", "report", "tasks", "viewer", "wsi"}


@dataclass(frozen=True)
class PlannedRun:
    """One model to train; runs of one digest have the same result.

    ``row`` is the key of the first row that needs it. A method without randomness has the first
    seed only.
    """

    row: str
    split: str
    seed: int
    settings: TrainConfig | PlainSettings
    digest: str

    @property
    def name(self) -> str:
        return f"{self.row}-{self.split}-{self.seed}-{self.digest[:8]}"

    def __str__(self) -> str:
        return f"{self.row} {self.split} seed {self.seed}"


@dataclass(frozen=True)
class Shared:
    """The configuration that all rows of all tables start from.

    Overrides are ``key=value``, from a configuration file and from ``--set``. The others are of
    tables of survival: the target, the covariates of rows that read them, and the times for which
    survival is recorded.
    """

    preset: str
    overrides: tuple[str, ...] = ()
    target: str | None = None
    covariates: tuple[str, ...] = ()
    horizons: tuple[float, ...] = ()

    @classmethod
    def of(cls, preset: str, path: Path | None, overrides: Sequence[str]) -> Shared:
        """From the command's options; GimpError for settings that a table decides itself."""
        from_file = [] if path is None else list(_flat(read_yaml_mapping(path)))
        for text in (*from_file, *overrides):
            if _key(text) in OF_THE_TABLE:
                raise GimpError(f"--set {text}: the table decides the {_key(text)} of each run")
        return cls(preset, (*from_file, *overrides))

    def config(
        self, row: Row, split: str, seed: int, threads: int | None, tuned: Sequence[str] = ()
    ) -> TrainConfig:
        """The preset, then what the user set, what tuning chose, and what makes the row."""
        overrides = [
            BOOTSTRAP_OF_A_RUN,
            *([] if threads is None else [f"threads={threads}"]),
            *([] if self.target is None else [f"target={json.dumps(self.target)}"]),
            *([f"survival.horizons={list(self.horizons)}"] if self.horizons else []),
            *(text for text in self.overrides if _concerns(text, row.method)),
            *tuned,
            *row.overrides,
            *([f"covariates={json.dumps(self.covariates)}"] if row.covariates else []),
            *(f"method={row.method}", f"modalities={row.modalities}", f"seed={seed}"),
            f"split={json.dumps(split)}",
        ]
        return load_config(self.preset, overrides=overrides)

    @property
    def on_cpu(self) -> bool:
        """Whether no run uses a GPU, even if there is one."""
        devices = [text for text in self.overrides if _key(text) == "device"]
        return load_config(self.preset, overrides=devices).device == "cpu"


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _concerns(override: str, method: str) -> bool:
    """Whether a method has this setting: architectures differ, all other settings are shared."""
    section, _, name = _key(override).partition(".")
    if section != "model" or not name:
        return True
    return method in available() and name in model_class(method).settings_class.model_fields


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value)}"  # JSON is YAML


def skip_reason(row: Row, cohort: Cohort) -> str | None:
    """Why this cohort cannot have a row; None if it can."""
    if row.method not in (*PLAIN, *available()):
        return f"this version has no method '{row.method}'"
    if row.covariates and not cohort.covariates:
        return "needs clinical covariates, of which the cohort has none"
    if row.modalities in (RNA, BOTH) and not any(map(cohort.has_expression, cohort.case_ids)):
        return "needs RNA, of which the cohort has none"
    if row.modalities in (SLIDES, BOTH) and not any(map(cohort.has_slides, cohort.case_ids)):
        return "needs slides, of which the cohort has none"
    return None


@dataclass(frozen=True)
class Mixture:
    """A run of slides and RNA, and the run that it falls back on, of one split."""

    model: PlannedRun
    fallback: PlannedRun

    def as_run(self, row: str) -> PlannedRun:
        """What its predictions count as in a table."""
        return replace(self.model, row=row, digest=f"{self.model.digest}+{self.fallback.digest}")


@dataclass(frozen=True)
class Plan:
    """(Table name, row key) -> its runs, the same objects where tables share them, or why none.

    ``mixed`` are the rows that train nothing themselves.
    """

    of_row: dict[tuple[str, str], tuple[PlannedRun, ...]]
    skipped: dict[tuple[str, str], str]
    mixed: dict[tuple[str, str], tuple[Mixture, ...]] = field(default_factory=dict)

    @property
    def runs(self) -> list[PlannedRun]:
        """Each run once, one fold after the other, so that early results can be compared."""
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
    tuned: Tuned | None = None,
) -> Plan:
    """The runs of all tables; GimpError for settings that do not validate.

    ``tuned`` are settings of some rows on some splits, on top of those that all rows share.
    """
    tuned = tuned or {}
    for text in shared.overrides:
        if not any(_concerns(text, method) for method in available()):
            fields = {f"model.{name}" for method in available()
                      for name in model_class(method).settings_class.model_fields}  # fmt: skip
            near = did_you_mean(_key(text), sorted(fields))
            raise GimpError(f"--set {text}: no method has such a setting{near}")
    of_row, skipped, by_digest, mixed = {}, {}, {}, {}
    asked = ((table.name, row) for table in experiments for row in table.rows if row.key in rows)
    for table, row in asked:
        if reason := skip_reason(row, cohort):
            skipped[table, row.key] = reason
            continue
        if row.mixes:
            mixed[table, row.key] = row.mixes
            continue
        of_method = seeds[:1] if row.method in PLAIN else seeds
        places = itertools.product(of_method, splits)
        runs = [
            planned_run(row, split, seed, cohort, shared, threads, tuned.get((row.key, split), ()))
            for seed, split in places
        ]
        of_row[table, row.key] = tuple(by_digest.setdefault(run.digest, run) for run in runs)
    pairs = {
        (table, key): _mixtures(of_row[table, model], of_row[table, fallback])
        for (table, key), (model, fallback) in mixed.items()
    }
    return Plan(of_row, skipped, pairs)


def _mixtures(models: Sequence[PlannedRun], fallbacks: Sequence[PlannedRun]) -> tuple[Mixture, ...]:
    """Each run of the model with the fallback of its split and seed, or of its only seed."""
    of_split: dict[str, dict[int, PlannedRun]] = {}
    for run in fallbacks:
        of_split.setdefault(run.split, {})[run.seed] = run
    pairs = ((run, of_split[run.split]) for run in models)
    return tuple(Mixture(run, seeds.get(run.seed, seeds[min(seeds)])) for run, seeds in pairs)


def planned_run(
    row: Row,
    split: str,
    seed: int,
    cohort: Cohort,
    shared: Shared,
    threads: int | None,
    tuned: Sequence[str] = (),
) -> PlannedRun:
    """The run of a row on a split, with its settings and its digest."""
    settings: TrainConfig | PlainSettings
    if row.method in PLAIN:
        settings = _plain_settings(row, split, shared, tuned)
        values = {"method": row.method, **asdict(settings)}
    else:
        settings = shared.config(row, split, seed, threads, tuned)
        values = settings.model_dump(mode="json", exclude=SAME_IN_TABLES)
        # The settings of a stage that is not run cannot matter.
        for stage in {"genes", "pretrain"} - {kind.name for kind in stages_of(settings)}:
            del values[stage]
        if row.modalities != BOTH and not settings.covariates:  # nothing is ever hidden
            values["finetune"]["modality_dropout"] = 0.0
        if not settings.covariates:
            del values["finetune"]["covariate_lr"]
    facts = [values, cohort.fingerprint, code_digest()]
    if plugins := load_plugins():  # without any, the digests of runs stay as they were
        facts.append(dict(plugins))
    content = json.dumps(facts, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return PlannedRun(row.key, split, seed, settings, digest)


def _plain_settings(row: Row, split: str, shared: Shared, tuned: Sequence[str]) -> PlainSettings:
    parts = (text.partition("=") for text in (*tuned, *row.overrides))
    chosen = {key: parse_yaml(value, key) for key, _, value in parts}
    if row.method == LOGISTIC_REGRESSION:
        return LogisticSettings(row.modalities, split, **chosen)
    covariates = shared.covariates if row.covariates else ()
    return CoxSettings(row.modalities, split, shared.target, covariates, shared.horizons, **chosen)


@functools.cache
def code_digest(package: Path = PACKAGE) -> str:
    """sha256 of torch's version and of every Python file that a result can depend on.

    Whole files count, comments included: a change may train more runs again than needed, but no
    result of other code is kept. The compiled library does not count.
    """
    kernels = Path(gimp_fast.kernels.__path__[0])  # beside the package in a checkout
    files = {f"kernels/{path.relative_to(kernels)}": path for path in kernels.rglob("*.py")}
    for path in package.rglob("*.py"):
        place = path.relative_to(package)
        if place.parts[0] not in NOT_TRAINING or place.parts[:2] == BASELINES:
            files[str(place)] = path
    digest = hashlib.sha256(metadata.version("torch").encode())
    for name, path in sorted(files.items()):
        digest.update(f"\n{name} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def find_folder(runs: Path, run: PlannedRun) -> Path:
    """Folder of the run, which has the name of another row if that needed it first."""
    return min(runs.glob(f"*-{run.digest[:8]}"), default=runs / run.name)


def describe(
    tables: Sequence[Experiment],
    plan: Plan,
    runs: Path,
    splits: Sequence[str],
    seeds: Sequence[int],
) -> Iterable[str]:
    """Lines that say what the command would do."""
    for table in tables:
        yield table.title
        width = max(len(row.key) for row in table.rows)
        for row in table.rows:
            place, start = (table.name, row.key), f"  {row.key:<{width}}  "
            if place in plan.skipped:
                yield f"{start}left out: {plan.skipped[place]}"
            elif place in plan.mixed:
                yield f"{start}mixes the predictions of {' and '.join(row.mixes)}"
            elif place in plan.of_row:
                of_row = plan.of_row[place]
                done = sum(Run(find_folder(runs, run)).is_recorded for run in of_row)
                inputs = [row.modalities, *(["covariates"] if row.covariates else [])]
                settings = " ".join([f"method={row.method}", *inputs, *row.overrides])
                yield f"{start}{counted(len(of_row), 'run')}, {done} done: {settings}"
    missing = sum(not Run(find_folder(runs, run)).is_recorded for run in plan.runs)
    asked = f"{counted(len(splits), 'split')} ({', '.join(splits)}), {counted(len(seeds), 'seed')}"
    yield f"{asked}: {counted(len(plan.runs), 'run')}, {missing} to train"
