"""Predictions of one or several trained models on the patients of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError, is_out_of_memory
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.rates import metrics_with_intervals
from gimp_fast.files.atomic import write_json, write_text
from gimp_fast.files.progress import Progress
from gimp_fast.files.safe_text import guarded_table
from gimp_fast.inference.cautions import (
    CODES,
    Caution,
    cautions_of,
    counts,
    harmonised,
    merged,
    unchecked,
)
from gimp_fast.inference.model import TrainedModel
from gimp_fast.inference.options import PredictOptions
from gimp_fast.inference.same_columns import check_same_columns
from gimp_fast.inference.selection import known_cases
from gimp_fast.inference.tables import prediction_table
from gimp_fast.models.outputs import Outputs
from gimp_fast.pages.display import shown
from gimp_fast.targets import Target
from gimp_fast.targets.several import Several
from gimp_fast.training.loader import BatchLoader, StepPlan, ahead_on_device
from gimp_fast.training.sampling import HIDE_NOTHING, PatientBatch, read_shown

_SEEN, _NOTHING = "training-patient", "not-predicted"


@dataclass(frozen=True)
class Predictions:
    """Predictions of patients of a cohort.

    Attributes:
        table: case_id, slide_ids, prediction, prob_<class> …, label, warnings of each patient; of a
            target that is no class, its columns and those of the truth instead. Of several targets,
            the columns of each begin with its name, as ``os_risk``.
        cautions: case_id -> why to doubt the prediction.
        classes: of the probabilities; empty for a target of another kind.
        target: what was predicted.
        unchecked: sentences on what could not be checked; usually none.
        harmonised: sentences on other units of expression, which make no difference to the models.
        single: (models, patients, columns) float32, what each model says; NaN where a patient could
            not be predicted.
    """

    table: pd.DataFrame
    cautions: dict[str, tuple[Caution, ...]]
    classes: tuple[str, ...]
    target: Target
    unchecked: tuple[str, ...] = ()
    harmonised: tuple[str, ...] = ()
    single: np.ndarray | None = None

    def by_target(self) -> dict[str, Predictions]:
        """Name -> the predictions of one of several targets, in a table of its own."""
        found = {}
        for member in self.target.members:
            start = f"{member.name}_"
            shown = (
                "prediction", *member.prediction_columns, *member.truth_columns,
                *(f"true_{column}" for column in member.truth_columns),
            )  # fmt: skip
            names = {start + name: name for name in shown if start + name in self.table}
            table = self.table[["case_id", *names, "warnings"]]
            table = table.set_axis(["case_id", *names.values(), "warnings"], axis=1)
            found[member.name] = Predictions(table, self.cautions, member.classes, member.target)
        return found

    def probabilities(self) -> np.ndarray:
        """(patients, classes) float32; NaN where a patient could not be predicted."""
        return self.table[[f"prob_{name}" for name in self.classes]].to_numpy(np.float32)

    def metrics(self, resamples: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Rates with bootstrap 95 % intervals, where labels are known.

        Returns:
            ``"new"``: of patients that the models were neither trained nor chosen on.
            ``"seen"``: of the patients of training and validation, which is no evidence of
            performance. A group without patients is absent. Of several targets: ``"targets"``, and
            in it these groups for each.
        """
        if isinstance(self.target, Several):
            found = {name: one.metrics(resamples, seed) for name, one in self.by_target().items()}
            return {"targets": found}
        if self.target.kind != "class":
            return self._outcome_metrics(resamples, seed)
        table, probabilities, metrics = self.table, self.probabilities(), {}
        seen = table["warnings"].str.contains(_SEEN, regex=False)
        evaluable = table["label"].isin(self.classes) & (table["prediction"] != "")
        for name, group in (("new", evaluable & ~seen), ("seen", evaluable & seen)):
            labels = np.array([self.classes.index(label) for label in table["label"][group]])
            if len(labels):
                metrics[name] = metrics_with_intervals(
                    probabilities[group], labels, resamples=resamples, seed=seed
                )
        return metrics

    def _outcome_metrics(self, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
        table, target, metrics = self.table, self.target, {}
        seen = table["warnings"].str.contains(_SEEN, regex=False)
        names = list(target.prediction_columns)
        truth_names = [f"true_{name}" for name in target.truth_columns]
        evaluable = table[[*names, *truth_names]].notna().all(axis=1)
        for name, group in (("new", evaluable & ~seen), ("seen", evaluable & seen)):
            if not group.any():
                continue
            truth = table.loc[group, truth_names].to_numpy(np.float64)
            truth = truth if len(truth_names) > 1 else truth[:, 0]
            weights = patient_weights(len(truth), resamples, seed)
            # Censoring is that of these patients: what training had may not hold elsewhere.
            found = target.metrics(table.loc[group, names].to_numpy(), truth, truth, weights)
            scores = {key: asdict(value) for key, value in found.items() if value is not None}
            metrics[name] = {"n": int(group.sum()), **scores}
        return metrics

    def _repr_html_(self) -> str:
        doubted = [f"{code} {count}" for code, count in counts(self.cautions).items()]
        facts = {
            "patients": len(self.table),
            "columns": list(self.table.columns),
            "warnings (code, patients)": doubted or "none",
            "not checked": list(self.unchecked),
            "harmonised": list(self.harmonised),
        }
        return shown("Predictions: .table has a row for each patient", facts)

    def write(self, out: Path, facts: dict[str, Any]) -> Path:
        """Write the table, and warnings and `facts` as JSON beside it; returns the JSON file."""
        patients_of_code = counts(self.cautions)
        summary = facts | {
            "patients": len(self.table),
            "counts": patients_of_code,
            "codes": {code: CODES[code] for code in patients_of_code},
            "unchecked": list(self.unchecked),
            **({"harmonised": list(self.harmonised)} if self.harmonised else {}),
            "warnings": {
                case: [asdict(caution) for caution in cautions]
                for case, cautions in self.cautions.items()
                if cautions
            },
        }
        beside = out.with_suffix(".warnings.json")
        table = guarded_table(self.table)
        write_text(out, table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
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
            that are missing, a patient that cannot be read, or no patient who can be predicted.
    """
    options = options or PredictOptions()
    classes = models[0].classes
    check_same_columns(models)
    cases = known_cases(cohort, cohort.case_ids if case_ids is None else case_ids)
    pairs = [(trained, trained.columns_in(cohort, cases)) for trained in models]
    cautions = merged([cautions_of(trained, cohort, cases, columns) for trained, columns in pairs])
    usable = [case for case in cases if _NOTHING not in {c.code for c in cautions[case]}]
    if not usable:
        reads = ", ".join(f"{trained.source}: {trained.modalities}" for trained in models)
        raise GimpError(
            f"{cohort.path}: found none of {len(cases)} patients with what the model reads "
            f"({reads}); expected one or more"
        )
    by_model = predicted_by_each(models, cohort, usable, options)
    mean = by_model[0]
    if len(by_model) > 1:
        mean = np.mean(by_model, axis=0, dtype=np.float64).astype(np.float32)
    table = prediction_table(models[0], cohort, cases, usable, mean, cautions)
    notes = [
        tuple(dict.fromkeys(note for trained in models for note in notes_of(trained, cohort)))
        for notes_of in (unchecked, harmonised)
    ]
    single = np.full((len(models), len(cases), mean.shape[1]), np.nan, np.float32)
    single[:, np.isin(cases, usable)] = by_model
    return Predictions(table, cautions, classes, models[0].target, *notes, single)


def predicted_by_each(
    models: Sequence[TrainedModel],
    cohort: Cohort,
    cases: Sequence[str],
    options: PredictOptions | None = None,
    hide: int = HIDE_NOTHING,
) -> list[np.ndarray]:
    """What each model says of patients who have something that it reads, (patients, columns).

    Args:
        models, cohort, cases, options: as in :func:`predict_cohort`.
        hide: what the models are not shown of a patient who has it, as ``HIDE_RNA``.
    """
    options = options or PredictOptions()
    return [_probabilities(trained, cohort, cases, options, hide) for trained in models]


def _probabilities(
    trained: TrainedModel,
    cohort: Cohort,
    cases: Sequence[str],
    options: PredictOptions,
    hide: int,
) -> np.ndarray:
    """(patients, classes) float32."""
    reader = trained.reader_of(cohort, trained.columns_in(cohort, cases))
    has_bag = [trained.uses_slides and cohort.has_slides(case) for case in cases]
    lengths = [
        cohort.bag(case).num_patches if has else 0 for case, has in zip(cases, has_bag, strict=True)
    ]
    plans = plan_batches(lengths, options)
    steps = [StepPlan(n, tuple(cases[i] for i in batch)) for n, batch in enumerate(plans)]
    loader = BatchLoader(
        partial(read_shown, reader, hide), options.workers, trained.device.type == "cuda"
    )
    parts = []
    with Progress("predicting", len(cases), "patient", shown=options.progress) as bar:
        for batch in ahead_on_device(loader(steps), trained.device):
            parts.append(trained.target.reported(_outputs(trained, cohort, batch).predictions))
            bar.update(len(batch.case_ids))
    return np.concatenate(parts)


def _outputs(trained: TrainedModel, cohort: Cohort, batch: PatientBatch) -> Outputs:
    named = ", ".join(batch.case_ids[:5]) + (" …" if len(batch.case_ids) > 5 else "")
    try:
        return trained.outputs(batch.inputs)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        patches = batch.inputs.patches
        size = 0 if patches is None else len(patches)
        raise GimpError(
            f"{cohort.path}: out of memory on a batch of {size} patches (patients {named}); try a "
            "smaller --max-patches or --batch-size, or --device cpu"
        ) from error
    except ValueError as error:
        # A model that needs both modalities raises it for a patient who lacks one.
        raise GimpError(
            f"{cohort.path}: patients {named} cannot be predicted by '{trained.method}': {error}"
        ) from error


def plan_batches(lengths: Sequence[int], options: PredictOptions) -> list[range]:
    """Batches of consecutive patients, as ranges of places in ``lengths``, their patches."""
    batches, start, total = [], 0, 0
    for place, length in enumerate(lengths):
        full = place - start == options.batch_size or total + length > options.max_patches
        if full and place > start:
            batches.append(range(start, place))
            start, total = place, 0
        total += length
    return [*batches, range(start, len(lengths))] if lengths else []
