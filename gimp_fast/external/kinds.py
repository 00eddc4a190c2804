"""What is asked of every kind of target: its scores, its counts, and when a group is too small."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gimp_fast.evaluation.independent import Drawn
from gimp_fast.evaluation.intervals import estimate
from gimp_fast.evaluation.named_curves import NamedCurve
from gimp_fast.evaluation.rates import in_blocks
from gimp_fast.external.options import ValidateOptions
from gimp_fast.external.result import Calibration


@dataclass(frozen=True)
class Sample:
    """Predictions of patients by one model or several, a row each.

    Attributes:
        patient: (rows,) int, places 0 … in the bootstrap's weights.
        run: (rows,) int, which model.
        predicted: (rows, columns) float64: probabilities; risk and survival; or a number.
        truth: (rows,) classes or numbers, or (rows, 2) times and events.
    """

    patient: np.ndarray
    run: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray

    @classmethod
    def of_models(cls, predicted: Sequence[np.ndarray], truth: np.ndarray) -> Sample:
        """The same n patients by each model: (n, columns) each, and their truth."""
        n, models = len(truth), len(predicted)
        return cls(
            np.tile(np.arange(n), models),
            np.repeat(np.arange(models), n),
            np.concatenate([np.asarray(some, np.float64) for some in predicted]),
            np.concatenate([truth] * models),
        )

    def __len__(self) -> int:
        return len(self.patient)

    @property
    def patients(self) -> int:
        return len(np.unique(self.patient))

    def chosen(self, rows: np.ndarray) -> Sample:
        """Some of the predictions, by (rows,) bool."""
        return Sample(self.patient[rows], self.run[rows], self.predicted[rows], self.truth[rows])


class Kind(ABC):
    """A kind of target.

    Attributes:
        titles: name of a score -> its title.
        main: the score of groups.
        bounds: the least and the largest value of the main score that a figure shows; None for
            those of the values.
        by_chance: the main score of a model that knows nothing; None if there is no such number.
        words: of the notes on the page, what the scores are.
        curved: the scores that are followed while more patients lack a modality.
        of_errors: scores of which less is better.
        tolerance: score -> what a model of both modalities may lose to one of them.
    """

    titles: ClassVar[dict[str, str]]
    main: ClassVar[str]
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    by_chance: ClassVar[float | None] = None
    words: ClassVar[str]
    curved: ClassVar[tuple[str, ...]]
    of_errors: ClassVar[frozenset[str]] = frozenset()
    tolerance: ClassVar[dict[str, float]] = {}

    @abstractmethod
    def scores(self, sample: Sample, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> (R,), mean over models, of weights (R, patients); NaN where not defined."""

    @abstractmethod
    def main_score(self, sample: Sample, weights: np.ndarray) -> np.ndarray:
        """(R,), the main score alone."""

    def curved_scores(self, sample: Sample, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Those of ``scores`` that ``curved`` names."""
        if self.curved == (self.main,):
            return {self.main: self.main_score(sample, weights)}
        found = self.scores(sample, weights)
        return {name: found[name] for name in self.curved}

    @abstractmethod
    def counts(self, truth: np.ndarray) -> dict[str, int]:
        """How many patients are of each class, or have the event; empty for numbers."""

    @abstractmethod
    def calibration(
        self, sample: Sample, scaled: np.ndarray | None, weights: np.ndarray
    ) -> Calibration:
        """Whether one model's predictions mean what they say.

        ``scaled`` are the predictions at the temperature of the validation patients, if any.
        """

    def curves(self, sample: Sample, weights: np.ndarray) -> tuple[NamedCurve, ...]:
        """Decision curves of one model; by default there is none."""
        return ()

    def without_spread(self, name: str, value: float, sample: Sample) -> tuple[float, float] | None:
        """Ends of the interval of a score that is the same in every resample; None: itself."""
        return None

    def drawn(self, sample: Sample, weights: np.ndarray) -> dict[str, Drawn]:
        """Each score that is defined, with its interval and its draws."""
        once = self.scores(sample, np.ones((1, weights.shape[1])))
        blocks = [self.scores(sample, some) for some in in_blocks(weights)]
        draws = {name: np.concatenate([block[name] for block in blocks]) for name in once}
        found = {
            name: self.interval(name, float(once[name][0]), draws[name], sample) for name in once
        }
        return {name: one for name, one in found.items() if one is not None}

    def main_drawn(self, sample: Sample, weights: np.ndarray) -> Drawn | None:
        """The main score with its interval and its draws; None if it is not defined."""
        once = float(self.main_score(sample, np.ones((1, weights.shape[1])))[0])
        draws = np.concatenate([self.main_score(sample, some) for some in in_blocks(weights)])
        return self.interval(self.main, once, draws, sample)

    def interval(self, name: str, value: float, draws: np.ndarray, sample: Sample) -> Drawn | None:
        """A score with its interval, from its (R,) draws; None if it is not defined."""

        def otherwise() -> tuple[float, float]:
            return self.without_spread(name, value, sample) or (value, value)

        found = estimate(value, draws, otherwise)
        return None if found is None else Drawn(found, draws)

    def too_small(self, truth: np.ndarray, options: ValidateOptions) -> str:
        """Why a group of these patients has no score; empty if it has."""
        if len(truth) < options.fewest_patients:
            return f"fewer than {options.fewest_patients} patients"
        fewest = min(self.counts(truth).values(), default=options.fewest_events)
        return self._too_few(options.fewest_events) if fewest < options.fewest_events else ""

    def _too_few(self, fewest: int) -> str:
        return f"fewer than {fewest} patients of a class"

    def facts(self) -> dict[str, Any]:
        """What ``results.json`` says of the target besides its name."""
        return {}
