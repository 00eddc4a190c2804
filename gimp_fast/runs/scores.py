"""The scores in ``metrics.json``: of a part, of each modality alone, and how they are mixed."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gimp_fast.files.json_file import parse_json


class Record(BaseModel):
    """Keys that this version does not know are kept, so that a record is written as it was read."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON holds it: only what was given, in the order of the fields."""
        return parse_json(self.to_json(), "the record")

    def to_json(self, indent: int | None = None) -> str:
        return json.dumps(self.model_dump(exclude_unset=True), indent=indent)


class Estimate(Record):
    """A metric with its 95 % interval; rates also carry their count ``k`` of ``n``."""

    value: float
    low: float | None = None
    high: float | None = None
    k: int | None = None
    n: int | None = None


class SplitMetrics(Record):
    """Metrics of the patients of one part: those of the target that was trained."""

    n: int
    accuracy: Estimate | None = None
    balanced_accuracy: Estimate | None = None
    f1_macro: Estimate | None = None
    auc: Estimate | None = None
    c_index: Estimate | None = None
    uno_c: Estimate | None = None
    mean_auc: Estimate | None = None
    integrated_brier: Estimate | None = None
    mean_absolute_error: Estimate | None = None
    r_squared: Estimate | None = None
    correlation: Estimate | None = None


class PairedDifference(Record):
    """One score minus another on the same patients, with its 95 % interval.

    ``p`` is two-sided, of McNemar's exact test for accuracy and of the bootstrap for other scores.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


class OneModality(SplitMetrics):
    """Metrics of a model that is shown only a part of what it reads, and minus those with all.

    ``<score>_difference`` is of one score of the target.
    """

    accuracy_difference: PairedDifference | None = None
    auc_difference: PairedDifference | None = None
    c_index_difference: PairedDifference | None = None
    mean_absolute_error_difference: PairedDifference | None = None
    correlation_difference: PairedDifference | None = None

    def difference(self, score: str) -> PairedDifference | None:
        """The difference of a score; None if there is none."""
        return getattr(self, f"{score}_difference", None)


class ByModality(Record):
    """The same model and the same test patients, with all that it reads and with parts of it.

    Attributes:
        n: test patients who have both modalities, of ``of`` test patients. Only they are compared.
            All, if the model reads one modality.
        seen_in_training: whether any training patient lacked a modality, or had it hidden; else the
            model never learned to do with one.
        reads: modalities of the model. With one, covariates are all that can be hidden.
        with_covariates: how many of the n have a covariate; None if the model reads none.
        covariates_hidden_in_training: whether any training patient lacked all covariates, or had
            them hidden.
        both: the metrics with all that the model reads; None if there is no such patient.
        rna, slide: with one modality, and covariates if the model reads them; None if the model
            cannot do without the other modality.
        without_covariates: with slides and RNA, as far as the model reads them.
        covariates: of what the covariates add to the outputs, with the mean of the rest of the
            validation patients.
        refused: one of these -> why it cannot be said.
    """

    n: int
    of: int
    seen_in_training: bool
    reads: Literal["both", "slide", "rna"] = "both"
    with_covariates: int | None = None
    covariates_hidden_in_training: bool = False
    both: SplitMetrics | None = None
    rna: OneModality | None = None
    slide: OneModality | None = None
    without_covariates: OneModality | None = None
    covariates: OneModality | None = None
    refused: dict[str, str] = {}


class Fusion(Record):
    """How a model mixes the logits of two classifiers, as the validation patients chose.

    Attributes:
        weight: of the classifier that reads slides and RNA, 0 to 1; the rest is that of RNA alone.
        chosen_on: how many validation patients chose it.
    """

    weight: float
    chosen_on: int | None = None
