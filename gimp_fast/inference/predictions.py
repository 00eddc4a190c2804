"""Predictions of one or several trained models on the patients of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.evaluation.rates import metrics_with_intervals
from gimp_fast.files.atomic import write_json, write_text
from gimp_fast.inference.arrays import cohort_columns
from gimp_fast.inference.cases import known_cases
from gimp_fast.inference.cautions import CODES, Caution, cautions_of, codes_of, counts, merged
from gimp_fast.models.outputs import Outputs
from gimp_fast.training.loader import BatchLoader, StepPlan, ahead_on_device
from gimp_fast.training.sampling import PatientBatch, PatientFetcher, PatientReader

if TYPE_CHECKING:
    from gimp_fast.inference.model import TrainedModel

MAX_PATCHES = 100_000  # 0.4 GB of 1,024 channels in fp32; a larger slide is a batch of its own
_SEEN, _UNKNOWN, _NOTHING = "training-patient", "class-unknown", "not-predicted"


@dataclass(frozen=True)
class PredictOptions:
    """How to go through a cohort; no result depends on it but by rounding.

    Attributes:
        batch_size: most patients of a batch.
        max_patches: most patches of a batch; a patient with more is a batch alone.
        workers: processes that read ahead; 0 for none.
        progress: show a bar.
    """

    batch_size: int = 16
    max_patches: int = MAX_PATCHES
    workers: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("max_patches", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise GimpError(f"{name}: found {getattr(self, name)}; expected {least} or more")


@dataclass(frozen=True)
class Predictions:
    """Of a cohort's patients.

    Attributes:
        table: a row a patient: case_id, slide_ids, prediction, prob_<class> …, label, warnings.
        cautions: case_id -> why to doubt the prediction.
        classes: of the probabilities.
    """

    table: pd.DataFrame
    cautions: dict[str, tuple[Caution, ...]]
    classes: tuple[str, ...]

    def probabilities(self) -> np.ndarray:
        """(patients, classes) float32; NaN where a patient could not be predicted."""
        columns = [f"prob_{name}" for name in self.classes]
        return self.table[columns].to_numpy(np.float32)

    def metrics(self, resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Rates with bootstrap 95 % intervals, where labels are known.

        Returns:
            ``"new"``: of patients that the models were neither trained nor chosen on; and
            ``"seen"``: of the others, which is no evidence. A group without patients is absent.
        """
        codes = [{c.code for c in self.cautions[case]} for case in self.table["case_id"]]
        seen = np.array([_SEEN in some for some in codes])
        counted = self.table["label"].isin(self.classes) & (self.table["prediction"] != "")
        probabilities, found = self.probabilities(), {}
        for name, group in (("new", counted & ~seen), ("seen", counted & seen)):
            if group.any():
                labels = [self.classes.index(label) for label in self.table["label"][group]]
                found[name] = metrics_with_intervals(
                    probabilities[group.to_numpy()],
                    np.array(labels),
                    resamples=resamples,
                    seed=seed,
                )
        return found

    def write(self, out: Path, facts: dict[str, Any]) -> Path:
        """Write the table, and warnings and `facts` as JSON beside it; returns the JSON file."""
        warnings = {
            case: [asdict(caution) for caution in some]
            for case, some in self.cautions.items()
            if some
        }
        found = counts(self.cautions)
        summary = facts | {
            "patients": len(self.table),
            "counts": found,
            "codes": {code: CODES[code] for code in found},
            "warnings": warnings,
        }
        beside = out.with_suffix(".warnings.json")
        text = self.table.to_csv(index=False, float_format="%.9g", lineterminator="\n")
        write_text(out, text)
        write_json(beside, summary)
        return beside


def predict_cohort(
    models: Sequence[TrainedModel],
    cohort: Cohort,
    case_ids: Sequence[str] | None = None,
    options: PredictOptions | None = None,
) -> Predictions:
    """Predict patients with one model, or with the mean of several models' probabilities.

    Args:
        models: one or more, of the same classes.
        cohort: an open cohort; its genes are aligned to each model's by id.
        case_ids: patients, in this order; None for all.
        options: how to go through them.

    Raises:
        GimpError: models of different classes, unknown patients, features of another width, genes
            that are missing, a patient that cannot be read, or nobody who can be predicted.
    """
    options = options or PredictOptions()
    classes = _agreed_classes(models)
    cases = known_cases(cohort, cohort.case_ids if case_ids is None else case_ids)
    columns = [_check_fit(trained, cohort, cases) for trained in models]
    cautions = merged(
        [cautions_of(t, cohort, cases, c) for t, c in zip(models, columns, strict=True)]
    )
    able = [case for case in cases if _NOTHING not in {c.code for c in cautions[case]}]
    if not able:
        reads = ", ".join(f"{trained.source}: {trained.modalities}" for trained in models)
        raise GimpError(
            f"{cohort.path}: found none of {len(cases)} patients with what the model reads "
            f"({reads}); expected one or more"
        )
    found = [
        _probabilities(trained, cohort, able, place, options)
        for trained, place in zip(models, columns, strict=True)
    ]
    mean = found[0]
    if len(found) > 1:
        mean = np.mean(found, axis=0, dtype=np.float64).astype(np.float32)
    return Predictions(_table(cohort, cases, able, mean, classes, cautions), cautions, classes)


def _agreed_classes(models: Sequence[TrainedModel]) -> tuple[str, ...]:
    classes = models[0].classes
    for other in models[1:]:
        if other.classes != classes:
            raise GimpError(
                f"{other.source}: found the classes {', '.join(other.classes)}; expected "
                f"{', '.join(classes)} as in {models[0].source}, to average probabilities"
            )
    return classes


def _check_fit(trained: TrainedModel, cohort: Cohort, cases: Sequence[str]) -> np.ndarray | None:
    """Columns of the model's genes, None if it reads none here; GimpError for another width."""
    width = trained.feature_dim
    slides = trained.uses_slides and any(map(cohort.has_slides, cases))
    if slides and cohort.feature_dim != width:
        raise GimpError(
            f"{cohort.path}: found features of {cohort.feature_dim} channels (encoder "
            f"{cohort.encoder or 'not recorded'}); expected {width} (encoder "
            f"{trained.trained_on.get('encoder') or 'not recorded'}), as the model of "
            f"{trained.source} was trained on"
        )
    if trained.uses_genes and any(map(cohort.has_expression, cases)):
        return cohort_columns(trained, cohort)
    return None


def _probabilities(
    trained: TrainedModel,
    cohort: Cohort,
    cases: Sequence[str],
    columns: np.ndarray | None,
    options: PredictOptions,
) -> np.ndarray:
    """(patients, classes) float32."""
    scaler = trained.scaler
    if columns is not None:
        scaler = replace(scaler, columns=columns)
    reader = PatientReader(cohort, trained.modalities, scaler, cache_gb=0.0, labelled=False)
    plans = plan_batches(_lengths(trained, cohort, cases), options)
    steps = [StepPlan(n, tuple(cases[i] for i in batch)) for n, batch in enumerate(plans)]
    loader = BatchLoader(PatientFetcher(reader), options.workers, trained.device.type == "cuda")
    parts = []
    bar = tqdm(total=len(cases), unit="patient", disable=not options.progress)
    with bar:
        for batch in ahead_on_device(loader(steps), trained.device):
            parts.append(_outputs(trained, cohort, batch).probabilities)
            bar.update(len(batch.case_ids))
    return np.concatenate(parts)


def _outputs(trained: TrainedModel, cohort: Cohort, batch: PatientBatch) -> Outputs:
    named = ", ".join(batch.case_ids[:5]) + (" …" if len(batch.case_ids) > 5 else "")
    try:
        return trained.outputs(batch.inputs)
    except torch.OutOfMemoryError as error:
        patches = batch.inputs.patches
        size = 0 if patches is None else len(patches)
        raise GimpError(
            f"{cohort.path}: out of memory on a batch of {size} patches (patients {named}); fewer "
            "may fit: --max-patches, --batch-size, or --device cpu"
        ) from error
    except ValueError as error:
        # A model that cannot do without one of its modalities says so with it.
        raise GimpError(
            f"{cohort.path}: patients {named} cannot be predicted by '{trained.method}': {error}"
        ) from error


def _lengths(trained: TrainedModel, cohort: Cohort, cases: Sequence[str]) -> list[int]:
    """Patches that the model reads of each patient."""
    return [
        cohort.bag(case).num_patches if trained.uses_slides and cohort.has_slides(case) else 0
        for case in cases
    ]


def plan_batches(lengths: Sequence[int], options: PredictOptions) -> list[range]:
    """Runs of patients, in order, of at most so many patients and patches.

    Args:
        lengths: patches of each patient.
        options: the bounds; a patient beyond that of patches is a batch alone.
    """
    batches, start, total = [], 0, 0
    for place, length in enumerate(lengths):
        full = place - start == options.batch_size or total + length > options.max_patches
        if full and place > start:
            batches.append(range(start, place))
            start, total = place, 0
        total += length
    return [*batches, range(start, len(lengths))] if lengths else []


def _table(
    cohort: Cohort,
    cases: Sequence[str],
    able: Sequence[str],
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    cautions: dict[str, tuple[Caution, ...]],
) -> pd.DataFrame:
    row_of = {case: row for row, case in enumerate(able)}
    values = np.full((len(cases), len(classes)), np.nan, np.float32)
    places = [place for place, case in enumerate(cases) if case in row_of]
    values[places] = probabilities
    slides = [cohort.bag(c).slide_ids if cohort.has_slides(c) else () for c in cases]
    called = ["" if c not in row_of else classes[probabilities[row_of[c]].argmax()] for c in cases]
    labels = [cohort.classes[cohort.label(c)] if cohort.has_label(c) else "" for c in cases]
    columns = {"case_id": cases, "slide_ids": [";".join(ids) for ids in slides]}
    columns |= {"prediction": called}
    columns |= {f"prob_{name}": values[:, i] for i, name in enumerate(classes)}
    columns |= {"label": labels, "warnings": [codes_of(cautions[case]) for case in cases]}
    return pd.DataFrame(columns)
