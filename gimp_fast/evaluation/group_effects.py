"""How much of many measurements goes with groups of patients, and how much would by chance.

Chance is that of patients who change places among the groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 199


@dataclass(frozen=True)
class GroupEffect:
    """A share of the variance, with that of shuffled patients.

    Attributes:
        share: of the variance that lies between groups, R², 0 to 1.
        shuffled: (P,) the same of shuffled patients.
    """

    share: float
    shuffled: np.ndarray

    @property
    def by_chance(self) -> float:
        """The mean share of shuffled patients."""
        return float(self.shuffled.mean())

    @property
    def p(self) -> float:
        """One-sided: how often shuffled patients have as large a share."""
        return (1 + int((self.shuffled >= self.share).sum())) / (1 + len(self.shuffled))


def group_effect(
    values: np.ndarray,
    groups: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> GroupEffect:
    """The share of the variance of all columns that lies between groups.

    Args:
        values: (n, K); a column counts by its variance.
        groups: (n,) of each patient.
        strata: (n,) within which groups are compared and patients shuffled; None for one.
        permutations: how often they are shuffled.
        seed: of the shuffling.
    """
    strata = np.zeros(len(values), np.int64) if strata is None else codes_of(strata)
    places, rng = codes_of(groups), np.random.default_rng(seed)
    residuals = values - _means(values, strata)[strata]
    members = [np.flatnonzero(strata == stratum) for stratum in range(strata.max(initial=0) + 1)]
    order, shuffled = np.arange(len(values)), np.empty(permutations)
    for number in range(permutations):
        for rows in members:
            order[rows] = rng.permutation(rows)
        shuffled[number] = _share(residuals, places[order])
    return GroupEffect(_share(residuals, places), shuffled)


def share_between(values: np.ndarray, groups: np.ndarray) -> float:
    """The share alone, as of :func:`group_effect` without strata."""
    return _share(values - values.mean(0), codes_of(groups))


def codes_of(names: np.ndarray) -> np.ndarray:
    """(n,) the number of each name, from 0."""
    return np.unique(names, return_inverse=True)[1]


def _share(residuals: np.ndarray, groups: np.ndarray) -> float:
    """Of columns whose means are 0; 0 if they are constant."""
    total = float((residuals**2).sum())
    between = (_means(residuals, groups) ** 2).sum(1) @ np.bincount(groups)
    return float(between) / total if total else 0.0


def _means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(groups, K) means."""
    member = np.eye(groups.max(initial=0) + 1, dtype=values.dtype)[groups]
    return (member.T @ values) / np.maximum(member.sum(0), 1)[:, None]
