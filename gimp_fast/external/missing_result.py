"""What is found about patients of whom more and more lack a modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.external.units import Units


@dataclass(frozen=True)
class MissingPoint:
    """A score where a share of the patients lacks a modality.

    Attributes:
        share: of the patients, 0 to 1; ``lacking`` is how many these are.
        score: of the models of both modalities, the mean over draws of who lacks it.
        reference: the best that models of one modality reach; ``reference_is`` says which.
        difference: score minus reference, on the same draws.
    """

    share: float
    lacking: int
    score: Estimate | None
    reference: Estimate | None = None
    reference_is: str = ""
    difference: Estimate | None = None


@dataclass(frozen=True)
class MissingCurve:
    """A score from nobody to everybody who lacks a modality.

    Attributes:
        lacks: ``"rna"`` or ``"slide"``.
        score: its name; ``title`` is its title.
        tolerance: what may be lost to the reference; None if nothing was said of this score.
        less_is_better: of the score.
    """

    lacks: str
    score: str
    title: str
    points: tuple[MissingPoint, ...]
    tolerance: float | None = None
    less_is_better: bool = False

    @property
    def worst(self) -> MissingPoint | None:
        """Where most is lost to the reference; None without a reference."""
        compared = [point for point in self.points if point.difference is not None]
        sign = -1 if self.less_is_better else 1
        return min(compared, key=lambda point: sign * point.difference.value, default=None)

    @property
    def falls_below(self) -> bool | None:
        """Whether more is lost than is tolerated; None if that cannot be said."""
        if self.tolerance is None or self.worst is None:
            return None
        return self.worst.difference.value < -self.tolerance


@dataclass(frozen=True)
class Missing:
    """Scores of the new patients while more and more of them lack RNA, or slides.

    Attributes:
        patients: those who have slides and RNA; only they are followed.
        of: all new patients.
        draws: of who lacks the modality.
        drawn: what the bootstrap draws.
        against: models of one modality, described as those that are validated.
        curves: of both directions and each score.
        reasons: what lacks -> why there is no curve.
    """

    patients: int
    of: int
    draws: int
    drawn: Units | None
    against: tuple[dict[str, Any], ...]
    curves: tuple[MissingCurve, ...]
    reasons: dict[str, str]
