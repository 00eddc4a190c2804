"""Scores of patients of whom more and more lack a modality: which lack it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gimp_fast.evaluation.independent import Drawn
from gimp_fast.evaluation.intervals import Estimate, estimate
from gimp_fast.evaluation.rates import in_blocks
from gimp_fast.external.kinds import Kind, Sample

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the patients who lack it


@dataclass(frozen=True)
class Answers:
    """What is predicted of n patients, (n, columns) each.

    Attributes:
        shown: if they have the modality.
        hidden: if they lack it.
    """

    shown: np.ndarray
    hidden: np.ndarray


@dataclass(frozen=True)
class Draws:
    """What is drawn; the same draws for several curves make their differences paired.

    Attributes:
        weights: (R, n) of the bootstrap.
        orders: (D, n) int, in which order patients lose the modality. So who lacks it at one share
            lacks it at every larger one. Resample r has order r mod D: intervals are of both.
    """

    weights: np.ndarray
    orders: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, draws: int, seed: int) -> Draws:
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(weights.shape[1]) for _ in range(draws)]
        return cls(weights, np.array(orders))


def lacking(share: float, patients: int) -> int:
    """How many patients a share is, rounded half up."""
    return int(np.floor(share * patients + 0.5))


def curve(
    kind: Kind, answers: Answers, truth: np.ndarray, draws: Draws
) -> dict[str, list[Drawn | None]]:
    """Score -> at each of ``SHARES`` its mean over the orders, and its draws.

    None where a score is not defined.
    """
    found: dict[str, list[Drawn | None]] = {name: [] for name in kind.curved}
    for share in SHARES:
        at_share = _scores(kind, answers, truth, draws, lacking(share, len(truth)))
        for name, drawn in at_share.items():
            found[name].append(drawn)
    return found


def _scores(
    kind: Kind, answers: Answers, truth: np.ndarray, draws: Draws, count: int
) -> dict[str, Drawn | None]:
    resamples, patients = draws.weights.shape
    # Without or with all of them, and for answers that are the same, orders make no difference.
    is_same = count in (0, patients) or answers.shown is answers.hidden
    orders = draws.orders[:1] if is_same else draws.orders
    once = {name: np.full(len(orders), np.nan) for name in kind.curved}
    drawn = {name: np.full(resamples, np.nan) for name in kind.curved}
    for place, order in enumerate(orders):
        lacks = np.zeros(patients, bool)
        lacks[order[:count]] = True
        mixed = np.where(lacks[:, None], answers.hidden, answers.shown)
        sample = Sample.of_models([mixed], truth)
        for name, value in kind.curved_scores(sample, np.ones((1, patients))).items():
            once[name][place] = value[0]
        weights = draws.weights[place :: len(orders)]
        blocks = [kind.curved_scores(sample, some) for some in in_blocks(weights) if len(some)]
        for name in kind.curved if blocks else ():
            drawn[name][place :: len(orders)] = np.concatenate([block[name] for block in blocks])
    return {
        name: kind.interval(name, float(once[name].mean()), drawn[name], sample)
        for name in kind.curved
    }


def paired_difference(one: Drawn | None, other: Drawn | None) -> Estimate | None:
    """One score minus another of the same draws; None if one is missing."""
    if one is None or other is None:
        return None
    return estimate(one.estimate.value - other.estimate.value, one.draws - other.draws)


def best_of(
    curves: Mapping[str, list[Drawn | None]], place: int, less_is_better: bool
) -> tuple[str, Drawn | None]:
    """Name and score of the best curve at a place of ``SHARES``; an empty name if none has one."""
    defined = {name: of[place] for name, of in curves.items() if of[place] is not None}
    if not defined:
        return "", None
    choose = min if less_is_better else max
    best = choose(defined, key=lambda name: defined[name].estimate.value)
    return best, defined[best]
