"""A trained model as one object: weights, gene scaling, classes, genes, and what it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gimp_fast.data import Cohort
from gimp_fast.data.cohort_covariates import CohortCovariate
from gimp_fast.data.cohort_truth import Asked
from gimp_fast.data.known_patients import KnownPatients
from gimp_fast.data.rna.genes import find_genes
from gimp_fast.errors import GimpError
from gimp_fast.inference.build import (
    built_model,
    fitted_covariates,
    fitted_scaler,
    fitted_slide_scaler,
)
from gimp_fast.inference.options import PRECISIONS
from gimp_fast.inference.same_encoder import check_encoder
from gimp_fast.models import PatientInputs
from gimp_fast.models.outputs import Outputs, outputs_of
from gimp_fast.ops.backends import choose_device
from gimp_fast.pages.display import SYNTHETIC, shown
from gimp_fast.runs.facts import check_facts
from gimp_fast.targets.several import Several
from gimp_fast.training.ranges import TrainingRanges
from gimp_fast.training.sampling import PatientReader

if TYPE_CHECKING:
    import pandas as pd


class TrainedModel:
    """A model and all that it needs to predict a new patient.

    Args:
        tensors: of a checkpoint: ``model.*``, and ``scaler.*`` of a model that reads genes.
        facts: of the checkpoint.
        source: where both come from; errors name it.
        device, precision, backend: as in :func:`gimp_fast.load`.

    Attributes:
        source: the run or export that it was loaded from.
        facts: what the checkpoint says: ``method``, ``model`` (its configuration), ``cohort`` (what
            it was trained on: genes, encoder, resolution, patch order …), ``epoch``, and, where the
            run or export records them, ``metrics`` and ``training``.
        model: in evaluation mode, on ``device``.
        scaler: of gene expression; None for a model of slides alone.
        slide_scaler: of patch embeddings; None for a model that reads them as they are.
        covariates: which clinical covariates the model reads, and how; None for none.
        target: what the model predicts.
        classes: their names; empty for a target of another kind.
        gene_ids, gene_names: in the order in which the model reads them; empty for a model of
            slides alone. Names are empty where not known.
        known_patients: by which patients of training are recognised; None for a model that an
            earlier version trained.
        ranges: limits that few training patients exceed.
        precision: autocast type of its forward pass.

    Raises:
        GimpError: a method, configuration or weights that this version does not know.
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
        self.source, self.facts, self.device = source, facts, choose_device(device)
        check_facts(facts, source)
        cohort = facts["cohort"]
        self.classes = tuple(cohort["classes"])
        self.gene_ids, self.gene_names = tuple(cohort["gene_ids"]), tuple(cohort["gene_names"])
        self.precision = precision or facts.get("training", {}).get("precision", "fp32")
        self.model = built_model(facts, tensors, backend, source).to(self.device)
        # Without columns: genes of new patients are aligned before they are scaled.
        self.target = self.model.target
        self.scaler = None
        if self.uses_genes:
            harmonise = facts.get("gene_harmonise", "none")
            self.scaler = fitted_scaler(tensors, len(self.gene_ids), harmonise, source)
        self.covariates = fitted_covariates(facts, tensors, source)
        self.slide_scaler = fitted_slide_scaler(tensors, self.feature_dim, source)
        self.known_patients = None
        if "known_patients" in facts:
            self.known_patients = KnownPatients.from_dict(facts["known_patients"], source)
        self.ranges = TrainingRanges.from_dict(facts.get("ranges", {}), source)
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
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of ``predict``: the classes; or risk, and survival at horizons, in
        the unit of the training table; or a number. Of several targets, all with their names."""
        return self.classes or self.target.prediction_columns

    @property
    def asked(self) -> Asked:
        """What a cohort is asked for the truth: its target of a name, its labels, or several."""
        if isinstance(self.target, Several):
            return tuple(member.asked for member in self.target.members)
        return self.facts.get("target", {}).get("name")

    @property
    def uses_slides(self) -> bool:
        return self.modalities != "rna"

    @property
    def uses_genes(self) -> bool:
        return self.modalities != "slide"

    @property
    def harmonises(self) -> bool:
        """Whether it reads the order of a patient's genes, and so takes other units."""
        return self.scaler is not None and self.scaler.harmonise != "none"

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
        covariates: pd.DataFrame | None = None,
    ) -> np.ndarray:
        """What the model says of patients: of classes, their probabilities.

        Args:
            patches: B arrays (N, C), all patches of each patient; None for one without slides.
            genes: expression of B patients in the unit and transform of the training cohort (of a
                model that harmonises, in any that orders a patient's genes alike), not scaled. An
                array (B, G) has the columns of ``gene_ids``; a DataFrame may have its columns,
                named by gene id, in any order and among others. NaN is a gene that was not
                measured; a row of NaN, a patient without RNA.
            covariates: a row for each patient, columns by name, numbers or levels; a column that is
                not there, and a cell without a value, are missing.

        Returns:
            (B, columns) float32, see ``columns``.

        Raises:
            GimpError: shapes that do not fit the model, missing genes, values that are not finite,
                or a patient without anything that the model reads.
        """
        return self.target.reported(
            self.outputs(self._inputs(patches, genes, covariates)).predictions
        )

    def represent(
        self,
        patches: Sequence[np.ndarray | Tensor | None] | None = None,
        genes: np.ndarray | pd.DataFrame | None = None,
        covariates: pd.DataFrame | None = None,
    ) -> np.ndarray:
        """What the model classifies of each patient (CLS_pat in GiMP), (B, ·) float32.

        Arguments and errors as :meth:`predict`.
        """
        return self.outputs(self._inputs(patches, genes, covariates)).vectors

    def outputs(self, inputs: PatientInputs) -> Outputs:
        """What the model makes of inputs on ``device``, genes scaled."""
        return outputs_of(self.model, inputs, self.device, self.precision)

    def _inputs(
        self,
        patches: Sequence[np.ndarray | Tensor | None] | None,
        genes: np.ndarray | pd.DataFrame | None,
        covariates: pd.DataFrame | None,
    ) -> PatientInputs:
        """What the model reads, on its device, of the arguments of :meth:`predict`."""
        counts = [len(given) for given in (patches, genes) if given is not None]
        if len(set(counts)) == 2:
            raise GimpError(
                f"found {counts[0]} bags of patches and {counts[1]} rows of genes; expected as "
                "many of both, one a patient"
            )
        if not any(counts):
            raise GimpError("found no patient; expected patches or genes of one or more")
        bags, has_genes, scaled = [None] * counts[0], np.zeros(counts[0], bool), None
        if self.uses_slides and patches is not None:
            bags = [self._bag(place, bag) for place, bag in enumerate(patches)]
        if self.uses_genes:
            scaled = torch.zeros(counts[0], len(self.gene_ids))
        if self.uses_genes and genes is not None:
            rows = self._expression(genes)
            has_genes = ~np.isnan(rows).all(1)
            scaled[torch.from_numpy(has_genes)] = torch.from_numpy(self.scaler(rows[has_genes]))
        nothing = [i for i, bag in enumerate(bags) if bag is None and not has_genes[i]]
        if nothing:
            reads = {"both": "patches or genes", "slide": "patches", "rna": "genes"}
            raise GimpError(
                f"patients {_first_few(nothing)}: found nothing of what the model reads; "
                f"expected {reads[self.modalities]}"
            )
        bags = bags if self.uses_slides else None
        packed = PatientInputs.packed(
            bags,
            scaled,
            has_genes,
            feature_dim=self.feature_dim,
            covariates=self._encoded(covariates, counts[0]),
        )
        return packed.to(self.device)

    def _encoded(self, covariates: pd.DataFrame | None, count: int) -> Tensor | None:
        """(B, D), what the model reads of covariates; None if it reads none."""
        if self.covariates is None:
            return None
        if covariates is not None and len(covariates) != count:
            raise GimpError(
                f"covariates: found {len(covariates)} rows; expected {count}, one a patient"
            )
        cases, columns = [str(place) for place in range(count)], {}
        for name, kind, levels in self.covariates.covariates:
            if covariates is None or name not in covariates.columns:
                continue
            cells = zip(cases, covariates[name].tolist(), strict=True)
            values = {case: cell for case, cell in cells if cell == cell and cell not in (None, "")}
            if kind == "numeric":
                values = {case: float(cell) for case, cell in values.items()}
            columns[name] = CohortCovariate(name, kind, levels, values)
        return torch.from_numpy(self.covariates(columns, cases))

    def _bag(self, place: int, bag: np.ndarray | Tensor | None) -> Tensor | None:
        """(N, C) float32, scaled as in training; None for a patient without patches."""
        if bag is None:
            return None
        rows = torch.as_tensor(bag)
        if rows.dim() != 2 or rows.shape[1] != self.feature_dim:
            raise GimpError(
                f"patches of patient {place}: found shape {tuple(rows.shape)}; expected "
                f"(patches, {self.feature_dim}), as the model was trained on"
            )
        rows = rows.detach().cpu().float()
        if not bool(rows.isfinite().all()):
            raise GimpError(f"patches of patient {place}: found NaN or infinity; expected numbers")
        if not len(rows):
            return None
        return rows if self.slide_scaler is None else self.slide_scaler(rows)

    def _expression(self, genes: np.ndarray | pd.DataFrame) -> np.ndarray:
        """(B, G) float32 in the order of the model's genes, not scaled."""
        if hasattr(genes, "columns"):
            ids = [str(name) for name in genes.columns]
            places = self._places(ids, ("",) * len(ids), "the table of genes")
            values = genes.to_numpy(dtype=np.float32)[:, places]
        else:
            values = np.asarray(genes, np.float32)
            if values.ndim != 2 or values.shape[1] != len(self.gene_ids):
                raise GimpError(
                    f"genes: found shape {values.shape}; expected (patients, "
                    f"{len(self.gene_ids)}), the columns of gene_ids"
                )
        if np.isinf(values).any():
            raise GimpError(
                "genes: found infinite values; expected numbers, or NaN if not measured"
            )
        return values

    def _places(self, ids: Sequence[str], names: Sequence[str], where: str) -> np.ndarray:
        """(G,) places of the model's genes among others: by id of any version, else by name."""
        if tuple(ids) == self.gene_ids:
            return np.arange(len(ids))
        rows = [{"gene_id": i, "gene_name": name} for i, name in zip(ids, names, strict=True)]
        found = find_genes(rows, self.gene_ids, self.gene_names)
        missing = [i for i, place in zip(self.gene_ids, found, strict=True) if place is None]
        if missing:
            raise GimpError(
                f"{where}: found {len(found) - len(missing)} of the model's {len(found)} genes; "
                f"missing: {_first_few(missing)}. `gimp-fast prepare --genes-of {self.source}` "
                "aligns new patients to the model and reports genes that were not measured; in a "
                "table, such a gene is a column of NaN"
            )
        return np.array(found, np.int64)

    def columns_in(
        self, cohort: Cohort, case_ids: Sequence[str] | None = None
    ) -> np.ndarray | None:
        """(G,) columns of the model's genes in a cohort; None if it reads no genes there.

        Args:
            cohort: an open cohort.
            case_ids: the patients that are read; None for all.

        Raises:
            GimpError: features of another width than the model's, or of other weights of the
                encoder; or missing genes.
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
        if reads_slides:
            trained = self.trained_on.get("encoder")
            check_encoder(cohort.encoder, trained, str(cohort.path), str(self.source))
        if self.uses_genes and any(map(cohort.has_expression, cases)):
            return self._places(cohort.gene_ids, cohort.gene_names, str(cohort.path))
        return None

    def reader_of(self, cohort: Cohort, columns: np.ndarray | None) -> PatientReader:
        """Reads patients of a cohort, without labels, as the model reads them.

        Args:
            cohort: an open cohort.
            columns: those of :meth:`columns_in`.
        """
        scaler = self.scaler if columns is None else replace(self.scaler, columns=columns)
        return PatientReader(
            cohort, self.modalities, scaler, 0.0, labelled=False, feature_dim=self.feature_dim,
            slide_scaler=self.slide_scaler, covariates=self.covariates,
        )  # fmt: skip

    def __repr__(self) -> str:
        trained, reads = self.trained_on, []
        kind = "SYNTHETIC patients" if self.synthetic else "patients"
        if self.uses_slides:
            reads.append(f"slides ({trained.get('encoder') or 'unknown encoder'})")
        if self.uses_genes:
            reads.append(f"{len(self.gene_ids)} genes")
        weight = self.model.fusion_weight_of_both()
        if weight is not None:
            reads[-1] += f" (fusion weight {weight:g} of both)"
        return (
            f"<TrainedModel {self.method}: {' and '.join(reads)} -> {', '.join(self.columns)}; "
            f"trained on {kind} of '{trained.get('name')}'; on {self.device}>"
        )

    def _repr_html_(self) -> str:
        encoder = self.trained_on.get("encoder") or "encoder not recorded"
        facts = {
            "slides": f"{self.feature_dim} channels, {encoder}" if self.uses_slides else "",
            "genes": f"{len(self.gene_ids):,}" if self.uses_genes else "",
            "covariates": list(self.covariates.names) if self.covariates else "",
            "predicts": list(self.columns),
            "trained on": f"'{self.trained_on.get('name')}', split {self.trained_on.get('split')}",
            "device": f"{self.device}, {self.precision}",
            "source": self.source,
        }
        return shown(f"Trained model: {self.method}", facts, SYNTHETIC * self.synthetic)


def _first_few(items: Sequence[object]) -> str:
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(map(str, items[:5])) + more
