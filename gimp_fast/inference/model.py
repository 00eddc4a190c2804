"""A trained model as one object: weights, gene scaling, classes, genes, and what it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.inference.arrays import cohort_columns, model_inputs
from gimp_fast.inference.options import PRECISIONS
from gimp_fast.models import PatientInputs, PatientModel, available, build, model_class
from gimp_fast.models.outputs import Outputs, outputs_of
from gimp_fast.ops.backends import choose_device
from gimp_fast.runs.checkpoint import under_prefix
from gimp_fast.training.sampling import PatientReader
from gimp_fast.training.scaling import GeneScaler

if TYPE_CHECKING:
    import pandas as pd


class TrainedModel:
    """A model and all that it needs to predict a new patient.

    Attributes:
        source: the run or export that it was loaded from.
        facts: what the checkpoint says: ``method``, ``model`` (its configuration), ``cohort`` (what
            it was trained on: genes, encoder, resolution, patch order …), ``epoch``, and, where the
            run or export records them, ``metrics`` and ``training``.
        model: in evaluation mode, on ``device``.
        scaler: of gene expression; None for a model of slides alone.
        classes: names of the columns of the probabilities.
        gene_ids, gene_names: in the order in which the model reads them; empty for a model of
            slides alone. Names are empty where not known.
        device: where the model is.
        precision: autocast type of its forward pass; that of training, unless another was asked
            for.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        facts: dict[str, Any],
        source: Path,
        *,
        device: str = "cpu",
        precision: str | None = None,
        backend: str = "auto",
    ):
        """Build the model that a checkpoint describes and give it the weights.

        Args:
            tensors: of the checkpoint: ``model.*``, and ``scaler.*`` of a model that reads genes.
            facts: of the checkpoint.
            source: where both come from; errors name it.
            device: ``"auto"`` is a GPU if there is one.
            precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; None as it was trained.
            backend: of the operators, see :func:`gimp_fast.ops.available_backends`.

        Raises:
            GimpError: a method, configuration or weights that this version does not know.
        """
        self.source, self.facts, self.device = source, facts, choose_device(device)
        try:
            cohort = facts["cohort"]
            self.classes = tuple(map(str, cohort["classes"]))
            self.gene_ids = tuple(map(str, cohort["gene_ids"]))
            self.gene_names = tuple(map(str, cohort["gene_names"]))
            self.precision = precision or facts.get("training", {}).get("precision", "fp32")
            self.model = _built(facts, tensors, backend, source).to(self.device)
            self.scaler = _scaler(tensors) if self.uses_genes else None
        except (KeyError, TypeError, AttributeError) as error:
            raise GimpError(
                f"{source}: found a checkpoint of another version of gimp_fast "
                f"({type(error).__name__}: {error}); expected classes, genes, model and weights"
            ) from error
        if self.precision not in PRECISIONS:
            raise GimpError(
                f"precision: found '{self.precision}'; expected one of {', '.join(PRECISIONS)}"
            )

    @property
    def method(self) -> str:
        return self.facts["method"]

    @property
    def modalities(self) -> str:
        """``"both"``, ``"slide"`` or ``"rna"``: what the model reads."""
        return getattr(self.model.config, "modalities", type(self.model).reads[0])

    @property
    def uses_slides(self) -> bool:
        return self.modalities != "rna"

    @property
    def uses_genes(self) -> bool:
        return self.modalities != "slide"

    @property
    def feature_dim(self) -> int:
        """C, channels of a patch."""
        return self.model.config.feature_dim

    @property
    def trained_on(self) -> dict[str, Any]:
        """The cohort that it was trained on: name, split, encoder, mpp, expression …"""
        return self.facts["cohort"]

    @property
    def synthetic(self) -> bool:
        """Whether it was trained on generated patients."""
        return bool(self.trained_on.get("synthetic"))

    def predict(
        self,
        patches: Sequence[np.ndarray | Tensor | None] | None = None,
        genes: np.ndarray | pd.DataFrame | None = None,
    ) -> np.ndarray:
        """Class probabilities of patients.

        Args:
            patches: B arrays (N, C), all patches of each patient; None for one without slides.
            genes: expression of B patients in the unit and transform of the training cohort, not
                scaled. An array (B, G) has the columns of ``gene_ids``; a DataFrame may have its
                columns, named by gene id, in any order and among others. NaN is a gene that was not
                measured; a row of NaN, a patient without RNA.

        Returns:
            (B, classes) float32.

        Raises:
            GimpError: shapes that do not fit the model, missing genes, values that are not finite,
                or a patient without anything that the model reads.
        """
        return self.outputs(model_inputs(self, patches, genes)).probabilities

    def represent(
        self,
        patches: Sequence[np.ndarray | Tensor | None] | None = None,
        genes: np.ndarray | pd.DataFrame | None = None,
    ) -> np.ndarray:
        """What the model classifies of each patient (CLS_pat in GiMP), (B, ·) float32.

        Arguments and errors as :meth:`predict`.
        """
        return self.outputs(model_inputs(self, patches, genes)).vectors

    def outputs(self, inputs: PatientInputs) -> Outputs:
        """What the model makes of inputs on ``device``, genes scaled."""
        return outputs_of(self.model, inputs, self.device, self.precision)

    def columns_in(
        self, cohort: Cohort, case_ids: Sequence[str] | None = None
    ) -> np.ndarray | None:
        """(G,) columns of the model's genes in a cohort; None if it reads no genes there.

        Args:
            cohort: an open cohort.
            case_ids: the patients that are read; None for all.

        Raises:
            GimpError: features of another width than the model's, or missing genes.
        """
        cases = cohort.case_ids if case_ids is None else case_ids
        reads_slides = self.uses_slides and any(map(cohort.has_slides, cases))
        if reads_slides and cohort.feature_dim != self.feature_dim:
            raise GimpError(
                f"{cohort.path}: found features of {cohort.feature_dim} channels (encoder "
                f"{cohort.encoder or 'not recorded'}); expected {self.feature_dim} (encoder "
                f"{self.trained_on.get('encoder') or 'not recorded'}), as the model of "
                f"{self.source} was trained on"
            )
        if self.uses_genes and any(map(cohort.has_expression, cases)):
            return cohort_columns(self, cohort)
        return None

    def reader_of(self, cohort: Cohort, columns: np.ndarray | None) -> PatientReader:
        """Reads patients of a cohort as the model reads them; labels are not read.

        Args:
            cohort: an open cohort.
            columns: those of :meth:`columns_in`.
        """
        scaler = self.scaler
        if columns is not None:
            scaler = replace(scaler, columns=columns)
        return PatientReader(cohort, self.modalities, scaler, cache_gb=0.0, labelled=False)

    def __repr__(self) -> str:
        trained = self.trained_on
        kind = "SYNTHETIC patients" if self.synthetic else "patients"
        reads = []
        if self.uses_slides:
            reads.append(f"slides ({trained.get('encoder') or 'unknown encoder'})")
        if self.uses_genes:
            reads.append(f"{len(self.gene_ids)} genes")
        return (
            f"<TrainedModel {self.method}: {' and '.join(reads)} -> {', '.join(self.classes)}; "
            f"trained on {kind} of '{trained.get('name')}'; on {self.device}>"
        )


def _built(
    facts: dict[str, Any], tensors: dict[str, Tensor], backend: str, source: Path
) -> PatientModel:
    method = facts["method"]
    if method not in available():
        raise GimpError(
            f"{source}: found a model of the method '{method}'; this version of gimp_fast has "
            f"{', '.join(available())}"
        )
    try:
        config = model_class(method).config_class.model_validate(facts["model"])
        model = build(method, config, backend=backend)
        model.load_state_dict(under_prefix("model", tensors))
    except (ValueError, RuntimeError) as error:
        raise GimpError(
            f"{source}: found a model of '{method}' that this version of gimp_fast cannot build: "
            f"{' '.join(str(error).split())[:500]}"
        ) from error
    return model.eval().requires_grad_(False)


def _scaler(tensors: dict[str, Tensor]) -> GeneScaler:
    """A scaler without columns: genes of new patients are aligned before they are scaled."""
    return GeneScaler(tensors["scaler.mean"].numpy(), tensors["scaler.std"].numpy())
