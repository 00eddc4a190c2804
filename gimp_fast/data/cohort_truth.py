"""What a cohort knows of its patients: their labels, and its targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from gimp_fast.data.class_checks import Counts, count_classes, split_cautions
from gimp_fast.data.cohort_targets import CohortTarget
from gimp_fast.errors import GimpError

# What is asked: a target by its name, the labels (None), or several of them at once.
Asked = str | None | tuple[str | None, ...]


class CohortTruth:
    """The part of :class:`gimp_fast.data.Cohort` that knows labels and targets."""

    path: Path
    classes: tuple[str, ...]
    cautions: tuple[str, ...]
    targets: dict[str, CohortTarget]
    _labels: dict[str, int | None]

    def class_counts(self, split: Mapping[str, Iterable[str]], target: str | None = None) -> Counts:
        """Part -> class -> how many patients, of a split or of some of its patients.

        ``target`` is one of classes; None for the labels.
        """
        part_of = {case: part for part, cases in split.items() for case in cases}
        classes = self.classes_of(target)
        labels = self.truth(part_of, target).tolist()
        names = {case: classes[label] for case, label in zip(part_of, labels, strict=True)}
        return count_classes(names, part_of)

    def classes_of(self, target: Asked = None) -> tuple[str, ...]:
        """Names of the classes of a target or, for None, of the labels.

        None of a target of another kind, nor of several.
        """
        if isinstance(target, tuple):
            return ()
        return self.classes if target is None else self.targets[target].classes

    def knows(self, case_id: str, target: Asked = None) -> bool:
        """Whether the truth of a patient is known, of a target or, for None, the label.

        Of several, one is enough.
        """
        if isinstance(target, tuple):
            return any(self.knows(case_id, one) for one in target)
        if target is None:
            return self.has_label(case_id)
        self._check_case(case_id)
        return case_id in self.targets[target].values

    def truth(self, case_ids: Iterable[str], target: Asked = None) -> np.ndarray:
        """The truth of patients, who must have it, as :meth:`CohortTarget.truth`.

        ``target`` is None for the labels, (n,) int64. Of several, the columns of all are side by
        side, (n, ·) float64, with NaN for what is not known.
        """
        if isinstance(target, tuple):
            cases = list(case_ids)
            return np.concatenate([self._with_gaps(cases, one) for one in target], axis=1)
        if target is None:
            return np.array([self.label(case) for case in case_ids], np.int64)
        return self.targets[target].truth(case_ids)

    def class_of(self, case_id: str, target: str | None = None) -> str | None:
        """Name of a patient's class, of a target or, for None, the label.

        None if it is not known, or the cohort has no such target of classes.
        """
        if target is not None and target not in self.targets:
            return None
        classes = self.classes_of(target)
        if not classes or not self.knows(case_id, target):
            return None
        return classes[int(self.truth([case_id], target)[0])]

    def _with_gaps(self, cases: list[str], target: str | None) -> np.ndarray:
        width = 1 if target is None else len(self.targets[target].columns)
        found = np.full((len(cases), width), np.nan)
        rows = [row for row, case in enumerate(cases) if self.knows(case, target)]
        values = self.truth([cases[row] for row in rows], target)
        found[rows] = values.reshape(len(rows), width)
        return found

    def cautions_of(self, split: Mapping[str, Iterable[str]], target: Asked = None) -> list[str]:
        """Sentences on what can mislead: in the cohort, and in a split, for the target."""
        return [*self.cautions, *self._cautions_of_classes(split, target)]

    def _cautions_of_classes(
        self, split: Mapping[str, Iterable[str]], target: Asked
    ) -> Iterable[str]:
        if isinstance(target, tuple):
            for one in target:
                known = {
                    part: [case for case in cases if self.knows(case, one)]
                    for part, cases in split.items()
                }
                named = "the labels" if one is None else f"target '{one}'"
                yield from (f"{named}: {text}" for text in self._cautions_of_classes(known, one))
        elif self.classes_of(target):
            yield from split_cautions(self.class_counts(split, target))

    def has_label(self, case_id: str) -> bool:
        """True if the class of the patient is known; in a cohort for prediction it need not be."""
        self._check_case(case_id)
        return self._labels[case_id] is not None

    def label(self, case_id: str) -> int:
        """Index into ``classes``; GimpError if it is not known."""
        if not self.has_label(case_id):
            raise GimpError(
                f"{self.path}: the label of patient '{case_id}' is not known; the cohort was "
                "prepared for prediction"
            )
        return self._labels[case_id]

    def _check_case(self, case_id: str) -> None:
        if case_id not in self._labels:
            raise GimpError(f"{self.path}: no patient '{case_id}'")
