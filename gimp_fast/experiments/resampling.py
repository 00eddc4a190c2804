"""What the bootstrap of a table draws: patients, or hospitals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.evaluation.intervals import cluster_weights, patient_weights


@dataclass(frozen=True)
class Units:
    """What the bootstrap draws of the test patients of a group of splits.

    ``hospitals`` is their number where every split keeps hospitals apart: the question is then how
    models do at others, so hospitals are drawn with all their patients. None where patients are
    drawn.
    """

    patients: int
    hospitals: int | None

    @property
    def words(self) -> str:
        return (
            f"{self.patients} patients" if self.hospitals is None else f"{self.hospitals} hospitals"
        )


class Drawn(Protocol):
    """Splits that are reported together, and what is drawn of them."""

    @property
    def heading(self) -> str: ...

    @property
    def units(self) -> Units: ...


def drawn_words(groups: Iterable[Drawn]) -> str:
    """What the bootstrap draws in each group of splits."""
    texts = []
    for group in groups:
        text = f"in {group.heading} {group.units.words}, each with all "
        if group.units.hospitals is None:
            text += "their predictions of every fold and seed"
        else:
            text += (
                "its patients, because these splits ask how a model does at hospitals that it has "
                "not seen"
            )
        texts.append(text)
    return "; ".join(texts)


def draw(
    cohort: Cohort, splits: Sequence[str], patients: Sequence[str], resamples: int
) -> tuple[Units, np.ndarray]:
    """What is drawn for a group of splits, and how often each of its test patients.

    Returns:
        The units, and weights (resamples, patients).
    """
    if patients and all(map(cohort.keeps_sites_apart, splits)):
        names, hospital = np.unique([cohort.site(case) for case in patients], return_inverse=True)
        return Units(len(patients), len(names)), cluster_weights(hospital, resamples)
    return Units(len(patients), None), patient_weights(max(1, len(patients)), resamples)
