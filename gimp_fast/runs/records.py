"""Reads what training left in a run folder, and says which file is wrong when one is."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gimp_fast.errors import GimpError

EMBEDDING_STAGES = ("pretrain", "finetune")
Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Estimate(_Record):
    """A metric with its bootstrap 95 % interval; rates also carry their count ``k`` of ``n``."""

    value: float
    low: float | None = None
    high: float | None = None
    k: int | None = None
    n: int | None = None


class SplitMetrics(_Record):
    n: int
    accuracy: Estimate | None = None
    balanced_accuracy: Estimate | None = None
    f1_macro: Estimate | None = None
    auc: Estimate | None = None


class CohortSummary(_Record):
    name: str
    synthetic: bool
    split: str
    classes: tuple[str, ...]
    n: dict[str, int]


class Metrics(_Record):
    """``metrics.json``."""

    cohort: CohortSummary
    method: str = "gimp"
    modalities: Literal["both", "slide", "rna"]
    seed: int
    best_epoch: int | None = None
    val: SplitMetrics | None = None
    test: SplitMetrics | None = None


class Epoch(_Record):
    """One line of ``metrics.jsonl``; train and val map a metric's name to its value."""

    stage: str
    epoch: int
    train: dict[str, float | None] = {}
    val: dict[str, float | None] = {}
    lr: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Embeddings:
    """CLS_pat of n patients.

    Attributes:
        case_id, split, label: (n,) unicode.
        stages: stage name -> (n, 2d) float array; a stage that was not run is absent.
    """

    case_id: np.ndarray
    split: np.ndarray
    label: np.ndarray
    stages: dict[str, np.ndarray]


@dataclass(frozen=True)
class RunFolder:
    """Everything the report shows. ``epochs`` maps a stage to its epochs in order."""

    path: Path
    config_text: str
    environment: dict[str, Any]
    epochs: dict[str, list[Epoch]]
    metrics: Metrics
    predictions: pd.DataFrame
    embeddings: Embeddings

    def predicted(self, split: str) -> pd.DataFrame:
        return self.predictions[self.predictions["split"] == split].reset_index(drop=True)

    def probabilities(self, split: str) -> np.ndarray:
        """Predicted probabilities, (n, classes), columns in the order of the cohort's classes."""
        columns = [f"prob_{name}" for name in self.metrics.cohort.classes]
        return self.predicted(split)[columns].to_numpy(dtype=float)


def read_run_folder(path: Path | str) -> RunFolder:
    """Read and check a run folder.

    Raises:
        GimpError: a file is missing or is not what training writes; the message names the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise GimpError(f"{path}: no such run folder")
    metrics = _read(path / "metrics.json", _metrics)
    return RunFolder(
        path=path,
        config_text=_read(path / "config.yaml", _config_text),
        environment=_read(path / "environment.json", _environment),
        epochs=_read(path / "metrics.jsonl", _epochs),
        metrics=metrics,
        predictions=_read(
            path / "predictions.csv", lambda file: _predictions(file, metrics.cohort.classes)
        ),
        embeddings=_read(path / "embeddings.npz", _embeddings),
    )


def _read(file: Path, parse: Callable[[Path], T]) -> T:
    try:
        return parse(file)
    except FileNotFoundError:
        raise GimpError(f"{file}: missing; a finished run has written it") from None
    except (OSError, EOFError, ValueError, yaml.YAMLError, zipfile.BadZipFile, zlib.error) as error:
        # ValueError covers undecodable text, JSON, CSV and npy headers.
        raise GimpError(f"{file}: cannot be read: {error}") from error


def _validate(model: type[Model], data: Any, where: str = "") -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole value"
        found = repr(first["input"])
        raise ValueError(f"{where}{key}: {first['msg']}, found {found[:80]}") from None


def _metrics(file: Path) -> Metrics:
    return _validate(Metrics, json.loads(file.read_text(encoding="utf-8")))


def _config_text(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if not isinstance(yaml.safe_load(text), dict):
        raise ValueError("found no mapping; expected the run's resolved settings")
    return text


def _environment(file: Path) -> dict[str, Any]:
    data = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"found a {type(data).__name__}; expected an object")
    return data


def _epochs(file: Path) -> dict[str, list[Epoch]]:
    stages: dict[str, dict[int, Epoch]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        epoch = _validate(Epoch, data, where=f"line {number}: ")
        # An epoch that was run again after an interruption replaces its first record.
        stages.setdefault(epoch.stage, {})[epoch.epoch] = epoch
    return {
        stage: [by_epoch[number] for number in sorted(by_epoch)]
        for stage, by_epoch in stages.items()
    }


def _predictions(file: Path, classes: tuple[str, ...]) -> pd.DataFrame:
    # Case ids such as "0012" and classes such as "NA" are names, not numbers or gaps.
    table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8")
    probabilities = [f"prob_{name}" for name in classes]
    expected = ["case_id", "split", "label", "prediction", *probabilities]
    if absent := [name for name in expected if name not in table.columns]:
        raise ValueError(f"columns {absent} are missing; found {list(table.columns)}")
    for column in ("label", "prediction"):
        if strange := sorted(set(table[column]) - set(classes)):
            raise ValueError(f"column {column}: found {strange}; expected classes {list(classes)}")
    table[probabilities] = table[probabilities].astype(float)
    if not np.isfinite(table[probabilities].to_numpy()).all():
        raise ValueError("a probability is not finite")
    return table


def _embeddings(file: Path) -> Embeddings:
    if not zipfile.is_zipfile(file):
        file.open("rb").close()  # a missing file is reported as missing
        raise ValueError("found no npz archive")
    with np.load(file, allow_pickle=False) as archive:
        if absent := [key for key in ("case_id", "split", "label") if key not in archive]:
            raise ValueError(f"arrays {absent} are missing; found {archive.files}")
        names = {key: archive[key].astype(str) for key in ("case_id", "split", "label")}
        stages = {key: archive[key] for key in EMBEDDING_STAGES if key in archive}
    n = len(names["case_id"])
    for key, array in {**names, **stages}.items():
        dimensions = 2 if key in stages else 1
        if array.ndim != dimensions or len(array) != n:
            raise ValueError(f"array {key} has shape {array.shape}; expected {n} rows")
    return Embeddings(**names, stages=stages)
