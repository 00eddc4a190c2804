"""Deletion and insertion curves of one patient, for orders of their patches or genes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gimp_fast.heatmaps.faithfulness.perturbed import Perturbed

# Shares of what can be taken away: small at first, where a faithful order does most.
SHARES = np.array([0, 1, 2, 5, *range(10, 101, 10)]) / 100
DELETION, INSERTION = "deletion", "insertion"
CURVES = (DELETION, INSERTION)


@dataclass(frozen=True)
class Curve:
    """Predictions along one order.

    Attributes:
        shares: (S,) rising from 0 to 1, of what can be taken away.
        values: (S,), or (S, columns) before one of the columns is chosen.
    """

    shares: np.ndarray
    values: np.ndarray

    @property
    def area(self) -> float:
        """The area below the curve: the mean value along it."""
        heights = (self.values[1:] + self.values[:-1]) / 2
        return float(heights @ np.diff(self.shares))

    def at(self, shares: np.ndarray) -> np.ndarray:
        """Values between the steps, on straight lines."""
        return np.interp(shares, self.shares, self.values)


def steps(removable: int) -> np.ndarray:
    """Rising counts from 0 to ``removable``, at ``SHARES`` of it, each once."""
    return np.unique(np.round(SHARES * removable).astype(int))


def curves_of(patient: Perturbed, order: np.ndarray) -> Mapping[str, Curve]:
    """Both curves of an order, of all columns of the model.

    Deletion takes away the first of the order, then more and more. Insertion begins with the
    first ``least`` alone, and adds the next.

    Args:
        patient: of whom at least one patch or gene can be taken away.
        order: (size,) places, the most important first.
    """
    counts = steps(patient.removable)
    kept = [order[count:] for count in counts]
    kept += [order[: patient.least + count] for count in counts]
    found = patient.predictions(kept)
    shares = counts / patient.removable
    halves = found[: len(counts)], found[len(counts) :]
    return {name: Curve(shares, half) for name, half in zip(CURVES, halves, strict=True)}


def order_of(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(size,) places by weight, the largest first; equal weights stand in a random order."""
    shuffled = rng.permutation(len(weights))
    return shuffled[np.argsort(-weights[shuffled], kind="stable")]
