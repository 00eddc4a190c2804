"""Patients with the same expression, or with profiles more alike than any others of the cohort."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gimp_fast.data.prepare.audits.profiles import Audited
from gimp_fast.errors import counted

_FEWEST_GENES, _FEWEST_GENES_ALIKE, _FEWEST_PATIENTS = 5, 30, 10
# Of neighbours: the highest correlation of two tumours lies below both, in seven cohorts of TCGA.
_ALIKE, _DEVIATIONS = 0.9, 8.0
_SAME = 1 - 1e-9  # a correlation of the same values, up to rounding
_ROWS = 1024  # patients who are compared with all others at once
_SHOWN = 3


def duplicate_cautions(audited: Audited, scaled: np.ndarray) -> Iterator[str]:
    """Sentences on pairs with the same values, and on pairs that are nearly so.

    Args:
        audited: the patients.
        scaled: (n, k), their ``profiles``.
    """
    if scaled.shape[1] < _FEWEST_GENES or len(scaled) < 2:
        return
    same, alike, usual = _pairs(scaled)
    advice = "If they are one person or one sample, keep one of them: in two parts of a split, a "
    advice += "pair makes results too good"
    if same:
        many, named = counted(len(same), "pair"), _named(audited.cases, same)
        yield f"{many} of patients with the same expression: {named}. {advice}"
    if alike:
        named = _named(audited.cases, [pair for pair, _ in alike])
        lowest = min(r for _, r in alike)
        yield (
            f"{counted(len(alike), 'pair')} of patients with nearly the same expression: {named}. "
            f"They correlate with {lowest:.2f} or more, where a patient's nearest has {usual:.2f} "
            f"(median). {advice}"
        )


Pair = tuple[int, int]


def _pairs(scaled: np.ndarray) -> tuple[list[Pair], list[tuple[Pair, float]], float]:
    """Pairs with the same values; pairs that are alike, with their correlation; the median."""
    centred = scaled - scaled.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norms > 0, norms, 1)
    nearest = np.concatenate([rows.max(1) for _, rows in _correlations(unit)])
    angles = np.arctanh(np.clip(nearest, -_SAME, _SAME))
    usual = float(np.median(angles))
    spread = 1.4826 * float(np.median(np.abs(angles - usual)))
    limit = min(_SAME, max(_ALIKE, float(np.tanh(usual + _DEVIATIONS * spread))))
    same, alike = [], []
    for start, rows in _correlations(unit):
        for row, column in zip(*np.nonzero(rows >= limit), strict=True):
            pair = (int(row) + start, int(column))
            if pair[0] < pair[1] and np.array_equal(scaled[pair[0]], scaled[pair[1]]):
                same.append(pair)
            elif pair[0] < pair[1]:
                alike.append((pair, float(rows[row, column])))
    enough = scaled.shape[1] >= _FEWEST_GENES_ALIKE and len(scaled) >= _FEWEST_PATIENTS
    return same, alike if enough else [], float(np.tanh(usual))


def _correlations(unit: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First row, and correlations (rows, n) of some patients with all; with themselves −1."""
    for start in range(0, len(unit), _ROWS):
        found = unit[start : start + _ROWS] @ unit.T
        rows = np.arange(len(found))
        found[rows, rows + start] = -1
        yield start, found


def _named(cases: Sequence[str], pairs: Sequence[Pair]) -> str:
    named = [f"{cases[one]} and {cases[other]}" for one, other in pairs[:_SHOWN]]
    more = f", and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return "; ".join(named) + more
