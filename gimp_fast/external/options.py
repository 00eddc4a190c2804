"""How a model is validated. Imports nothing heavy: ``--help`` reads it too."""

from __future__ import annotations

from dataclasses import dataclass

from gimp_fast.errors import GimpError
from gimp_fast.options import option

_STATISTICS = "statistics"


@dataclass(frozen=True)
class ValidateOptions:
    """What is left out, and how intervals are made.

    Attributes:
        exclude_known: leave out patients that a model was trained or chosen on; without it, one
            such patient is an error.
        resamples: of every bootstrap.
        seed: of every bootstrap.
        fewest_hospitals: hospitals are drawn, each with all its patients, if all are known and
            there are so many; else patients are.
        fewest_patients: a group with fewer has no score.
        fewest_events: nor has one with fewer events, or with fewer patients of some class.
        missing: follow the scores while more and more patients lack RNA, or slides.
        missing_draws: how often it is drawn which patients lack it.
    """

    exclude_known: bool = option(
        False, "leave out patients that a model was trained or chosen on, instead of stopping"
    )
    missing: bool = option(
        False, "follow the scores while 0 to 100 %% of the patients lack RNA, or slides"
    )
    resamples: int = option(
        2000, "resamples of the bootstrap (default: %(default)s)", group=_STATISTICS
    )
    seed: int = option(0, "of the bootstrap (default: %(default)s)", group=_STATISTICS)
    fewest_hospitals: int = option(
        5,
        "draw hospitals if all are known and there are so many, else patients "
        "(default: %(default)s)",
        group=_STATISTICS,
    )
    fewest_patients: int = option(
        20, "patients that a group needs for a score (default: %(default)s)", group=_STATISTICS
    )
    fewest_events: int = option(
        10,
        "events, or patients of each class, that a group needs for a score (default: %(default)s)",
        group=_STATISTICS,
    )

    missing_draws: int = option(
        20,
        "draws of the patients who lack a modality (default: %(default)s)",
        group=_STATISTICS,
    )

    def __post_init__(self) -> None:
        least = {
            "resamples": 1, "seed": 0, "fewest_hospitals": 2, "fewest_patients": 2,
            "fewest_events": 1, "missing_draws": 1,
        }  # fmt: skip
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise GimpError(f"{name}: found {getattr(self, name)}; expected {lowest} or more")
