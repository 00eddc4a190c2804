"""The records of a run: what training and experiments write, and everyone else reads."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from gimp_fast.errors import ARRAY_ERRORS, GimpError
from gimp_fast.files.json_file import parse_json, read_json_object
from gimp_fast.files.yaml_file import parse_yaml, read_yaml_mapping
from gimp_fast.pages.display import SYNTHETIC, shown
from gimp_fast.runs import layout
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.patient_arrays import CasePredictions, Embeddings
from gimp_fast.runs.score_texts import READS, metrics_text
from gimp_fast.runs.scores import ByModality, Fusion, Record, SplitMetrics
from gimp_fast.runs.several_predictions import SeveralPredictions
from gimp_fast.validation import field_faults

# ValueError covers undecodable text and JSON.
_UNREADABLE = (OSError, EOFError, ValueError, csv.Error, zipfile.BadZipFile, zlib.error)
Model = TypeVar("Model", bound="Record")
T = TypeVar("T")


class CohortSummary(Record):
    """The cohort of a run; ``n`` counts the patients of each part, ``by_class`` also by class."""

    name: str
    synthetic: bool
    split: str
    classes: tuple[str, ...]
    n: dict[str, int]
    by_class: dict[str, dict[str, int]] | None = None


class TargetSummary(Record):
    """What was predicted, if it is not the label of the cohort.

    ``columns`` are those of the truth and of the predictions in ``predictions.csv``; ``horizons``,
    of survival, are in ``unit``; ``risk_cut`` is the median risk of the training patients.
    """

    name: str
    kind: str
    truth_columns: tuple[str, ...] = ()
    prediction_columns: tuple[str, ...] = ()
    unit: str = ""
    horizons: tuple[float, ...] = ()
    risk_cut: float = 0.0


class TargetScores(TargetSummary):
    """One of several targets: what it is, and the scores of the patients whose value is known.

    ``n`` counts these patients of each part, ``by_class`` also by class.
    """

    classes: tuple[str, ...] = ()
    n: dict[str, int] = Field({})
    by_class: dict[str, dict[str, int]] | None = None
    val: SplitMetrics | None = None
    test: SplitMetrics | None = None


class Metrics(Record):
    """``metrics.json``, the last file that a run writes.

    ``target`` is one target besides the labels; ``targets`` are several, by name, with their
    scores, which ``val`` and ``test`` then have not. ``by_modality`` is of a model of both
    modalities or of covariates; ``fusion``, where it has one; ``cautions`` are sentences on what
    can mislead in the cohort and the split.
    """

    cohort: CohortSummary
    method: str = "gimp"
    modalities: Literal["both", "slide", "rna"]
    seed: int
    target: TargetSummary | None = None
    targets: dict[str, TargetScores] | None = None
    best_epoch: int | None = None
    val: SplitMetrics | None = None
    test: SplitMetrics | None = None
    fusion: Fusion | None = None
    by_modality: ByModality | None = None
    cautions: tuple[str, ...] = ()


class Epoch(Record):
    """One line of ``metrics.jsonl``; train and val map the name of a metric to its value."""

    stage: str
    epoch: int
    train: dict[str, int | float | None] = Field({})
    val: dict[str, int | float | None] = Field({})
    lr: float | None = None
    seconds: float | None = None


class RunRecord(Record):
    """``run.json``, which an experiment adds to a run that is done."""

    row: str  # with split and seed, the run's place in the tables
    split: str
    seed: int
    digest: str  # of everything that decides its result
    cohort: str  # its fingerprint
    classes: tuple[str, ...]
    best_epoch: int | None = None
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Run:
    """A run folder, open for reading; see :func:`open_run`.

    Each file is read and checked when it is first asked for. GimpError names a file that is missing
    or damaged.
    """

    path: Path

    @property
    def is_finished(self) -> bool:
        """Whether it was evaluated; the metrics are written last."""
        return (self.path / layout.METRICS).is_file()

    @property
    def is_recorded(self) -> bool:
        """Whether it is a finished run of an experiment; its record is written last."""
        names = (layout.RECORD, layout.PREDICTIONS)
        return all((self.path / name).is_file() for name in names)

    def _repr_html_(self) -> str:
        title = f"Run {self.path.name}"
        if not self.is_finished:
            return shown(title, {"state": "not finished", "folder": self.path})
        try:
            metrics = self.metrics
        except GimpError as error:  # what a notebook shows of it may not fail
            return shown(title, {"folder": self.path}, str(error))
        cohort, targets = metrics.cohort, metrics.targets or {"": metrics}
        facts = {
            "method": metrics.method,
            "reads": READS[metrics.modalities],
            "cohort": f"'{cohort.name}', split {cohort.split}",
            "patients": [f"{count} {part}" for part, count in cohort.n.items()],
            **{
                f"test {name}".strip(): metrics_text(of.test.model_dump())
                for name, of in targets.items()
                if of.test is not None
            },
            "cautions": list(metrics.cautions),
            "folder": self.path,
        }
        return shown(title, facts, SYNTHETIC * cohort.synthetic)

    def checkpoint(self, name: str) -> Path:
        """Path of a stage's checkpoint, or of ``"last"``."""
        return layout.checkpoint_file(self.path, name)

    def read_all(self) -> Run:
        """The run, after reading and checking every file that training leaves."""
        names = ("config_text", "environment", "epochs", "metrics", "predictions", "embeddings")
        for name in names:
            getattr(self, name)
        return self

    @cached_property
    def config_text(self) -> str:
        """``config.yaml``: the resolved settings."""
        return self._read(layout.CONFIG, _config_text)

    @property
    def config(self) -> dict[str, Any]:
        return parse_yaml(self.config_text, str(self.path / layout.CONFIG))

    @cached_property
    def environment(self) -> dict[str, Any]:
        """``environment.json``: versions and hardware."""
        return self._read(layout.ENVIRONMENT, read_json_object)

    @cached_property
    def epochs(self) -> dict[str, list[Epoch]]:
        """Stage -> its epochs in order."""
        return self._read(layout.EPOCHS, _epochs)

    @cached_property
    def metrics(self) -> Metrics:
        return self._read(layout.METRICS, lambda file: _validate(Metrics, read_json_object(file)))

    @cached_property
    def record(self) -> RunRecord:
        return self._read(layout.RECORD, lambda file: _validate(RunRecord, read_json_object(file)))

    @cached_property
    def predictions(self) -> CasePredictions | OutcomePredictions | SeveralPredictions:
        metrics = self.metrics
        if not metrics.targets:
            return self._read(layout.PREDICTIONS, _reader(metrics.cohort.classes, metrics.target))
        readers = {name: _reader(one.classes, one) for name, one in metrics.targets.items()}
        return self._read(layout.PREDICTIONS, lambda file: SeveralPredictions.read(file, readers))

    @cached_property
    def embeddings(self) -> Embeddings:
        return self._read(layout.EMBEDDINGS, Embeddings.read, (*_UNREADABLE, *ARRAY_ERRORS))

    def _read(self, name: str, parse: Callable[[Path], T], damage: tuple = _UNREADABLE) -> T:
        file = self.path / name
        try:
            return parse(file)
        except FileNotFoundError:
            raise GimpError(f"{file}: missing; every finished run has this file") from None
        except damage as error:
            raise GimpError(f"{file}: cannot be read: {error}") from error


def open_run(path: str | Path) -> Run:
    """The run in a folder, finished or not.

    Raises:
        GimpError: there is no such folder, or no run in it.
    """
    path = Path(path)
    if not path.is_dir():
        raise GimpError(f"{path}: no such run folder")
    if not is_run(path):
        file = path / layout.CONFIG
        raise GimpError(f"{file}: missing; expected a run that `gimp-fast train` wrote")
    return Run(path)


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return any((path / name).exists() for name in (layout.CONFIG, layout.CHECKPOINTS))


def read_object_or_empty(file: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if the file is missing or damaged."""
    try:
        return read_json_object(file)
    except (OSError, GimpError):
        return {}


def _reader(
    classes: tuple[str, ...], target: TargetSummary | None
) -> Callable[..., CasePredictions | OutcomePredictions]:
    """What reads the predictions of a target from a file, and the prefix of their columns."""
    if target is None or target.kind == "class":
        return lambda file, prefix="": CasePredictions.read(file, classes, prefix)
    columns = target.truth_columns, target.prediction_columns
    return lambda file, prefix="": OutcomePredictions.read(file, *columns, prefix)


def _validate(model: type[Model], data: Any, where: str = "") -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = field_faults(error, model, "the whole value")[0]
        key = first.where.removeprefix("the whole value: ")
        raise ValueError(f"{where}{key}: found {first.found}; expected {first.expected}") from None


def _config_text(file: Path) -> str:
    if not file.exists():
        raise FileNotFoundError(file)
    if not read_yaml_mapping(file):
        raise ValueError("found no settings; expected those of the run")
    return file.read_text(encoding="utf-8")


def _epochs(file: Path) -> dict[str, list[Epoch]]:
    stages: dict[str, dict[int, Epoch]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        data = parse_json(line, f"{file} line {number}")
        epoch = _validate(Epoch, data, where=f"line {number}: ")
        # An epoch that was run again after an interruption replaces its first record.
        stages.setdefault(epoch.stage, {})[epoch.epoch] = epoch
    return {stage: [by_epoch[n] for n in sorted(by_epoch)] for stage, by_epoch in stages.items()}
