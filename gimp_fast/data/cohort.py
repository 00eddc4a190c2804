"""A prepared cohort: patients, their slides, their expression, and splits; opened lazily."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gimp_fast.data.bag import Bag
from gimp_fast.data.class_checks import sites_of_barcodes
from gimp_fast.data.cohort_covariates import COVARIATES, covariates_of
from gimp_fast.data.cohort_facts import cohort_facts
from gimp_fast.data.cohort_files import (
    EXPRESSION,
    SITE,
    SPLIT_COLUMNS,
    TABLES,
    Rows,
    checksum,
    fingerprint,
    load_array,
    read_manifest,
    read_rows_of,
    slide_means,
)
from gimp_fast.data.cohort_slides import open_store, slides_by_case
from gimp_fast.data.cohort_targets import TARGETS, targets_of
from gimp_fast.data.cohort_truth import CohortTruth
from gimp_fast.data.names import PARTS
from gimp_fast.errors import DAMAGE_ERRORS, GimpError, did_you_mean, one_line
from gimp_fast.files.paths import visible
from gimp_fast.pages.display import SYNTHETIC, shown


class Cohort(CohortTruth):
    """A cohort folder; see ``open_cohort``.

    Attributes:
        classes: class names, sorted; ``label`` indexes them. Empty if no label is known.
        feature_dim: channels C of a patch.
        gene_ids: the ordered gene list of ``expression``.
        gene_names: their symbols; empty if the files have none.
        gene_sets: signature -> columns of ``expression``; empty unless asked for.
        missing_genes: genes of the list of ``--genes-of`` that were not measured; NaN.
        expression_transform: what was applied to the measured values.
        expression_facts: origin of the expression: sources, unit, gene model, filters.
        encoder, mpp, patch_size: the patch encoder, micrometres per pixel of the encoded patches,
            and their side in pixels, if the files record them.
        patch_order: order of a slide's rows, one of ``PATCH_ORDERS``.
        store: the packed features; None if they stay in their files.
        split_notes: split -> how it was made, if that needs an explanation.
        cautions: sentences on what the cohort as a whole can mislead to, from ``prepare``.
        fingerprint: sha256 over tables, splits and expression; not over the paths of files.
        case_ids: all patients, sorted.
        covariates: name -> clinical covariate.
        targets: name -> what is known of patients besides their labels.
    """

    def __init__(self, path: Path, manifest: dict, tables: dict[str, Rows], splits: dict):
        self.path = path
        self.name: str = manifest["name"]
        self.synthetic: bool = manifest["synthetic"]
        self.classes: tuple[str, ...] = tuple(manifest["classes"])
        self.feature_dim: int = manifest["feature_dim"]
        self.encoder: str | None = manifest["encoder"]
        self.mpp: float | None = manifest["mpp"]
        self.patch_size: int | None = manifest["patch_size"]
        self.patch_order: str = manifest["patch_order"]
        facts = dict(manifest["expression"])
        self.expression_transform: str = facts["transform"]
        self.gene_sets = {name: tuple(columns) for name, columns in facts["gene_sets"].items()}
        self.missing_genes: tuple[str, ...] = tuple(facts["missing_genes"])
        of_patients = ("samples", "renamed_samples", "cautions", "checksum")
        of_patients += ("gene_sets", "missing_genes")
        self.expression_facts = {k: v for k, v in facts.items() if k not in of_patients}
        self.split_notes: dict[str, str] = dict(manifest["split_notes"])
        self.cautions: tuple[str, ...] = tuple(manifest.get("cautions", ()))
        self.fingerprint: str = manifest["fingerprint"]
        self.gene_ids: tuple[str, ...] = tuple(row["gene_id"] for row in tables["genes.csv"])
        self.gene_names: tuple[str, ...] = tuple(row["gene_name"] for row in tables["genes.csv"])
        patients = tables["patients.csv"]
        self.case_ids: tuple[str, ...] = tuple(row["case_id"] for row in patients)
        self._sites = {row["case_id"]: row[SITE] for row in patients if row.get(SITE)}
        if patients and SITE not in patients[0]:
            self._sites = sites_of_barcodes(self.case_ids)
        self._labels = {
            row["case_id"]: self.classes.index(row["label"]) if row["label"] else None
            for row in patients
        }
        with_rna = [row["case_id"] for row in patients if row["has_rna"] == "1"]
        self._expression_row = {case: row for row, case in enumerate(with_rna)}
        self.store = open_store(path, manifest)
        self._slide_ids = [row["slide_id"] for row in tables["slides.csv"]]
        self._slides = slides_by_case(path, tables["slides.csv"], manifest, self.store)
        self._splits: dict[str, dict[str, list[str]]] = splits
        self.covariates = covariates_of(manifest.get("covariates", {}), tables.get(COVARIATES, []))
        self.targets = targets_of(manifest.get("targets", {}), tables.get(TARGETS, []))
        self._expression = _open_expression(path, (len(with_rna), len(self.gene_ids)))
        self._expression_checksum: str | None = facts["checksum"]

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def split(self, name: str) -> dict[str, list[str]]:
        """Case ids of ``train``, ``val`` and ``test``; GimpError for an unknown name."""
        if name not in self._splits:
            raise GimpError(
                f"{self.path}: no split '{name}'; the cohort has {', '.join(self._splits)}"
                f"{did_you_mean(name, self._splits)}"
            )
        return {part: list(cases) for part, cases in self._splits[name].items()}

    def only_split(self, asked: str | None = None) -> str:
        """The split that is asked for, or else the cohort's only one.

        Raises:
            GimpError: an unknown name, no split at all, or several to choose from.
        """
        if asked is not None:
            self.split(asked)  # for its error
            return asked
        if not self._splits:
            raise GimpError(f"{self.path}: has no split; it was prepared for prediction")
        if len(self._splits) > 1:
            raise GimpError(
                f"{self.path}: has {len(self._splits)} splits; choose one with --split: "
                f"{', '.join(self._splits)}"
            )
        return self.split_names[0]

    def usable(self, case_id: str, modalities: str) -> bool:
        """Whether the patient has something that a model of ``modalities`` reads.

        Args:
            case_id: of the patient.
            modalities: ``"both"``, ``"slide"`` or ``"rna"``.
        """
        return (modalities != "rna" and self.has_slides(case_id)) or (
            modalities != "slide" and self.has_expression(case_id)
        )

    def site(self, case_id: str) -> str | None:
        """Hospital of the patient: from ``prepare --site-column``, or of a TCGA barcode.

        None if it is not known.
        """
        self._check_case(case_id)
        return self._sites.get(case_id)

    def can_compare_sites(self) -> bool:
        """Whether some class has patients of two known hospitals; without labels, all are one."""
        places = {(self._labels[case], site) for case, site in self._sites.items()}
        return max(Counter(label for label, _ in places).values(), default=0) > 1

    def keeps_sites_apart(self, name: str) -> bool:
        """Whether every hospital is in one part only of a split, and all are known."""
        split = self.split(name)
        parts = [{self.site(case) for case in cases} for cases in split.values()]
        return None not in set().union(*parts) and not any(
            one & other for one, other in itertools.combinations(parts, 2)
        )

    def has_slides(self, case_id: str) -> bool:
        self._check_case(case_id)
        return case_id in self._slides

    def slide_owners(self) -> list[str]:
        """The patient of each slide, in the order of ``slides.csv``."""
        return [case for case in self.case_ids for _ in self._slides.get(case, ())]

    def has_expression(self, case_id: str) -> bool:
        self._check_case(case_id)
        return case_id in self._expression_row

    def expression(self, case_ids: Iterable[str]) -> np.ndarray:
        """Transformed expression (n, G) float32, rows as asked; GimpError if one has none."""
        rows = []
        for case in case_ids:
            if not self.has_expression(case):
                raise GimpError(f"{self.path}: patient '{case}' has no RNA expression")
            rows.append(self._expression_row[case])
        self._verify_expression()
        return np.array(self._expression[rows], np.float32).reshape(len(rows), len(self.gene_ids))

    def bag(self, case_id: str) -> Bag:
        """All patches of a patient; GimpError if they have no slide."""
        if not self.has_slides(case_id):
            raise GimpError(f"{self.path}: patient '{case_id}' has no slide features")
        return Bag(case_id, self._slides[case_id], self.feature_dim)

    def mean_patches(self, case_ids: Iterable[str]) -> np.ndarray:
        """The mean patch of each patient, (n, C) float64, in the order asked for.

        ``prepare`` has stored the means of slides; in a cohort of an earlier version, slides are
        read.

        Raises:
            GimpError: a patient has no slide, or what is read was changed since ``prepare``.
        """
        stored, means = slide_means(self.path), []
        rows = dict(zip(self._slide_ids, range(len(self._slide_ids)), strict=True))
        for case in case_ids:
            bag = self.bag(case)
            if stored is None:
                means.append(bag.read().mean(0, dtype=np.float64))
            else:
                of_slides = stored[[rows[slide] for slide in bag.slide_ids]]
                means.append(np.average(of_slides, axis=0, weights=bag.lengths))
        return np.array(means, np.float64).reshape(len(means), self.feature_dim)

    def __reduce__(self) -> tuple:
        # Worker processes open the folder again, instead of copying store and expression.
        return (open_cohort, (self.path,))

    def _verify_expression(self) -> None:
        """Compare the values with their checksum, once: opening a cohort does not read them."""
        if self._expression_checksum is None:
            return
        found = checksum(self._expression)
        if found != self._expression_checksum:
            raise GimpError(
                f"{self.path / EXPRESSION}: does not match its checksum in cohort.json; it was "
                "changed since `prepare`. Run it again."
            )
        self._expression_checksum = None

    def __len__(self) -> int:
        return len(self.case_ids)

    def __repr__(self) -> str:
        kind = "synthetic cohort" if self.synthetic else "cohort"
        return f"<{kind} '{self.name}': {len(self)} patients, {len(self.gene_ids)} genes>"

    def _repr_html_(self) -> str:
        return shown(f"Cohort '{self.name}'", cohort_facts(self), SYNTHETIC * self.synthetic)


def open_cohort(path: str | Path) -> Cohort:
    """Open a folder that ``prepare`` wrote, and check that it is complete and unchanged.

    Slide files are checked when they are read: one that was changed since ``prepare`` is an error.

    Args:
        path: the cohort folder.

    Returns:
        The cohort; expression is memory-mapped.

    Raises:
        GimpError: no cohort there, another format version, or files changed since ``prepare``.
    """
    path = Path(path)
    manifest = read_manifest(path)
    tables = {name: read_rows_of(path / name, columns) for name, columns in TABLES.items()}
    for name, file in (("targets", TARGETS), ("covariates", COVARIATES)):
        if manifest.get(name):
            tables[file] = read_rows_of(path / file, ("case_id",))
    split_rows = {
        file.stem: read_rows_of(file, SPLIT_COLUMNS)
        for file in visible((path / "splits").glob("*.csv"))
    }
    try:
        found = fingerprint(tables, split_rows, manifest)
        if found != manifest["fingerprint"]:
            raise GimpError(
                f"{path}: the tables do not match the fingerprint in cohort.json; they were "
                "changed since `prepare`. Run it again."
            )
        splits = {
            name: {part: [r["case_id"] for r in rows if r["split"] == part] for part in PARTS}
            for name, rows in split_rows.items()
        }
        return Cohort(path, manifest, tables, splits)
    except DAMAGE_ERRORS as error:
        raise GimpError(f"{path}: not a valid cohort ({one_line(error)})") from error


def _open_expression(folder: Path, shape: tuple[int, int]) -> np.ndarray:
    file = folder / EXPRESSION
    matrix = load_array(file)
    if matrix.shape != shape or matrix.dtype != np.float32:
        raise GimpError(
            f"{file}: found {matrix.dtype} {matrix.shape}; expected float32 {shape} "
            "(patients with RNA × genes)"
        )
    return matrix
