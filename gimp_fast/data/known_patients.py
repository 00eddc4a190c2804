"""The patients that a model was trained or chosen on, and whether new patients are among them.

A run keeps hashes of their ids, and digests of their expression and slides, never the data. They
find a patient who was prepared anew: under another name, from files of another format, with another
order of the patches, or with expression under another transform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gimp_fast.data.cohort import Cohort
from gimp_fast.data.cohort_files import slide_means
from gimp_fast.data.fingerprints import ExpressionOrder, SlideMeans
from gimp_fast.data.names import patient_of
from gimp_fast.data.rna.genes import find_genes
from gimp_fast.errors import GimpError

TRAINED_PARTS = ("train", "val")  # whose patients a model was fitted to or chosen on
_CHUNK = 256  # patients whose expression is read together
_DIGITS = 16  # hexadecimal, of a hash


@dataclass(frozen=True)
class Sighting:
    """A patient of training that was met again.

    Attributes:
        part: ``"train"`` or ``"val"``.
        same: what is the same, of ``"id"``, ``"expression"`` and ``"features"``.
        other: what was compared and is not.
    """

    part: str
    same: tuple[str, ...]
    other: tuple[str, ...]

    def __str__(self) -> str:
        text = f"of the {_PART_NAMES[self.part]} patients: same {' and '.join(self.same)}"
        if self.same == ("id",) and self.other:
            text += f", but other {' and '.join(self.other)}: new data, or another of that name"
        return text


_PART_NAMES = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class KnownPatients:
    """Patients of training and validation.

    Attributes:
        salt: of the hashes of the ids.
        ids: a hash for each of n patients.
        parts: (n,) of ``TRAINED_PARTS``.
        expression, with_rna: of some of them, and which these are.
        slides, owners: of their slides, and whose these are.
    """

    salt: str
    ids: tuple[str, ...]
    parts: tuple[str, ...]
    expression: ExpressionOrder | None = None
    with_rna: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    slides: SlideMeans | None = None
    owners: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        split: Mapping[str, Sequence[str]],
        columns: np.ndarray | None = None,
        salt: str = "",
    ) -> KnownPatients:
        """The patients of training and validation in a split.

        Args:
            cohort: their cohort.
            split: part -> patients; the test part is not looked at.
            columns: the genes that new patients will have; None for all of the cohort.
            salt: of the run.
        """
        cases = [case for part in TRAINED_PARTS for case in split[part]]
        parts = tuple(part for part in TRAINED_PARTS for _ in split[part])
        with_rna = np.array([n for n, case in enumerate(cases) if cohort.has_expression(case)], int)
        columns = np.arange(len(cohort.gene_ids)) if columns is None else columns
        expression = slides = None
        if len(with_rna):
            values = _expression(cohort, [cases[n] for n in with_rna], columns)
            names = [[texts[c] for c in columns] for texts in (cohort.gene_ids, cohort.gene_names)]
            expression = ExpressionOrder.fit(values, *names)
        owners, means = _slides_of(cohort, cases)
        if means is not None and len(means):
            slides = SlideMeans.fit(means, owners)
        ids = tuple(_hashed(salt, case) for case in cases)
        return cls(salt, ids, parts, expression, with_rna, slides, owners)

    def find(self, cohort: Cohort, case_ids: Sequence[str]) -> dict[str, Sighting]:
        """case_id -> what is known of the patient, for those who are known.

        Args:
            cohort: any cohort.
            case_ids: its patients to look for.

        Raises:
            GimpError: the cohort's expression or features were changed.
        """
        found: dict[str, dict[str, list[int]]] = {case: {} for case in case_ids}
        known = {id: n for n, id in reversed(list(enumerate(self.ids)))}
        for case in case_ids:
            place = known.get(_hashed(self.salt, case))
            found[case]["id"] = [] if place is None else [place]
        for case, places in self._by_expression(cohort, case_ids):
            found[case]["expression"] = self.with_rna[places].tolist()
        for case, places in self._by_slides(cohort, case_ids):
            found[case].setdefault("features", []).extend(self.owners[places].tolist())
        return {case: self._sighting(ways) for case, ways in found.items() if any(ways.values())}

    def cannot_compare(self, cohort: Cohort) -> list[str]:
        """Sentences on what :meth:`find` cannot compare, empty if it can compare all."""
        notes = []
        if self.expression is None and len(self.with_rna):
            notes.append("by expression: too few genes vary between the patients of training")
        if self.slides is None and len(self.owners):
            notes.append("by features: the run does not know them, or they are too much alike")
        elif self.slides is not None and slide_means(cohort.path) is None:
            notes.append(f"by features: {cohort.path} was prepared by an earlier version")
        return notes

    def _sighting(self, ways: Mapping[str, list[int]]) -> Sighting:
        same = tuple(way for way, places in ways.items() if places)
        other = tuple(way for way, places in ways.items() if not places and way != "id")
        parts = {self.parts[place] for places in ways.values() for place in places}
        return Sighting(next(part for part in TRAINED_PARTS if part in parts), same, other)

    def _by_expression(
        self, cohort: Cohort, case_ids: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Each patient with comparable expression, and the rows of ``expression`` it is like."""
        with_rna = list(filter(cohort.has_expression, case_ids))
        if self.expression is None or not with_rna:
            return
        rows = zip(cohort.gene_ids, cohort.gene_names, strict=True)
        genes = [{"gene_id": id, "gene_name": name} for id, name in rows]
        places = find_genes(genes, self.expression.gene_ids, self.expression.gene_names)
        columns = np.array([-1 if place is None else place for place in places])
        for start in range(0, len(with_rna), _CHUNK):
            cases = with_rna[start : start + _CHUNK]
            values = _expression(cohort, cases, columns)
            comparable = self.expression.comparable(values)
            matches = self.expression.matches(values)
            for case, is_comparable, match in zip(cases, comparable, matches, strict=True):
                if is_comparable:
                    yield case, match

    def _by_slides(
        self, cohort: Cohort, case_ids: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Each slide with comparable features, and the rows of ``slides`` that it is like."""
        owners, means = _slides_of(cohort, case_ids)
        if self.slides is None or means is None or means.shape[1] != self.slides.width:
            return
        for owner, match in zip(owners, self.slides.matches(means), strict=True):
            yield case_ids[owner], match

    def as_dict(self) -> dict[str, Any]:
        """For the JSON of a checkpoint."""
        return {
            "salt": self.salt,
            "ids": list(self.ids),
            "parts": list(self.parts),
            "expression": self.expression and self.expression.as_dict(),
            "with_rna": self.with_rna.tolist(),
            "slides": self.slides and self.slides.as_dict(),
            "owners": self.owners.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Any, where: object) -> KnownPatients:
        """What :meth:`as_dict` gave; GimpError, which names ``where``, for anything else."""
        try:
            expression, slides = values["expression"], values["slides"]
            known = cls(
                str(values["salt"]),
                tuple(map(str, values["ids"])),
                tuple(map(str, values["parts"])),
                expression and ExpressionOrder.from_dict(expression),
                np.array(values["with_rna"], np.int64).reshape(-1),
                slides and SlideMeans.from_dict(slides),
                np.array(values["owners"], np.int64).reshape(-1),
            )
            known._check()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise GimpError(
                f"{where}: found damaged digests of the patients of training "
                f"({type(error).__name__}: {error})"
            ) from error
        return known

    def _check(self) -> None:
        """ValueError if numbers do not fit each other."""
        if len(self.ids) != len(self.parts) or not set(self.parts) <= set(TRAINED_PARTS):
            raise ValueError("a part for each patient is expected")
        for rows, places in ((self.expression and self.expression.signs, self.with_rna),
                             (self.slides and self.slides.means, self.owners)):  # fmt: skip
            if rows is not None and len(rows) != len(places):
                raise ValueError(f"{len(rows)} digests of {len(places)}")
            if len(places) and not 0 <= places.min() <= places.max() < len(self.ids):
                raise ValueError("digests of patients who are not listed")


def _hashed(salt: str, case_id: str) -> str:
    """Ids that differ in case, or in what follows a TCGA patient's barcode, have the same hash."""
    text = f"{salt}:{patient_of(case_id.strip().upper())}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _expression(cohort: Cohort, cases: Sequence[str], columns: np.ndarray) -> np.ndarray:
    """(n, K) of these columns; NaN for column −1."""
    values = cohort.expression(cases)
    values = np.concatenate([values, np.full((len(cases), 1), np.nan, np.float32)], 1)
    return values[:, columns]


def _slides_of(cohort: Cohort, cases: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """For all slides of patients: whose each is, as a place in ``cases``, and its mean features."""
    places = {case: n for n, case in enumerate(cases)}
    owners = [places.get(case, -1) for case in cohort.slide_owners()]
    owners, means = np.array(owners, np.int64), slide_means(cohort.path)
    if means is not None and len(means) != len(owners):
        raise GimpError(
            f"{cohort.path}: found mean features of {len(means)} slides; expected {len(owners)}"
        )
    return owners[owners >= 0], None if means is None else np.array(means[owners >= 0], np.float32)
