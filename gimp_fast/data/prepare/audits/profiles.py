"""The expression of patients as all audits read it: some genes, in standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

_MOST_GENES = 2000  # those that vary most: enough for any pattern of many genes
_COLUMNS = 1024  # of which the variance is computed at once: there is no memory for a second copy
_LINEAR = 50.0  # logarithms of expression are below it


@dataclass(frozen=True)
class Audited:
    """What is known of the patients with RNA.

    Attributes:
        cases: n ids.
        values: (n, G) float32, as in the cohort; NaN where missing.
        groups: name of a grouping -> case id -> group, e.g. classes, parts of a split.
        sources: case id -> the source of its expression, if there are several.
        sites: case id -> hospital, where it is known.
        sex_genes: symbol -> (n,) values as stored, of all genes of the source.
        sexes: case id -> ``"female"`` or ``"male"``, where it is known.
    """

    cases: tuple[str, ...]
    values: np.ndarray
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    sex_genes: Mapping[str, np.ndarray] = field(default_factory=dict)
    sexes: Mapping[str, str] = field(default_factory=dict)


def logarithms(values: np.ndarray) -> np.ndarray:
    """log2(x + 1) of values that look linear; others, and those with negative ones, as they are."""
    known = values[np.isfinite(values)]
    if not len(known) or known.min() < 0 or known.max() < _LINEAR:
        return values
    return np.log2(values + 1)


def profiles(values: np.ndarray) -> np.ndarray:
    """(n, k) z-scores of the genes that vary most, 0 where missing; without constant genes."""
    spread = _variances(values)
    kept = np.argsort(-spread, kind="stable")[:_MOST_GENES]
    kept = np.sort(kept[spread[kept] > 1e-12])
    chosen = logarithms(values[:, kept].astype(np.float64))
    scaled = (chosen - np.nanmean(chosen, 0)) / np.nanstd(chosen, 0)
    return np.nan_to_num(scaled, nan=0.0)


def _variances(values: np.ndarray) -> np.ndarray:
    """(G,) of each gene; 0 where fewer than two patients have it."""
    found = np.zeros(values.shape[1])
    for start in range(0, values.shape[1], _COLUMNS):
        chunk = values[:, start : start + _COLUMNS].astype(np.float64)
        measured = np.isfinite(chunk).sum(0) > 1
        found[start : start + _COLUMNS][measured] = np.nanvar(chunk[:, measured], 0)
    return found
