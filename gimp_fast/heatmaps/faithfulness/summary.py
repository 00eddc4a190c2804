"""How faithful weights are over patients: means of curves and areas, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gimp_fast.evaluation.intervals import estimate, patient_weights
from gimp_fast.heatmaps.faithfulness.curves import CURVES, SHARES
from gimp_fast.heatmaps.faithfulness.patient import ATTENTION, RANDOM, PatientCurves
from gimp_fast.heatmaps.faithfulness.verdict import gain_text, verdict
from gimp_fast.heatmaps.options import GRADIENT

BOTH = "both"
RESAMPLES, SEED = 2000, 0


def summarised(patients: Sequence[PatientCurves], *, of_classes: bool = True) -> dict[str, Any]:
    """What ``faithfulness.json`` says of the patches, or the genes, of n patients.

    Args:
        patients: of one kind, at least one.
        of_classes: whether the curves are of probabilities.

    Returns:
        ``orders``, the one that the maps show first; ``change``, the largest along any curve of a
        patient; ``areas`` and ``curves``, means by curve and order; ``gains``, how much more
        faithful an order is than another; ``finding``, one word of the verdict: better, chance,
        worse, few or constant; ``verdict``, a sentence or more.
    """
    orders = list(patients[0].curves)
    pairs = [(order, RANDOM) for order in orders if order != RANDOM]
    if len(pairs) == 2:
        pairs.append((ATTENTION, GRADIENT))
    gains = [_gain(patients, *pair, curve) for pair in pairs for curve in (*CURVES, BOTH)]
    for gain in gains:
        gain["text"] = gain_text(gain, of_classes)
    found = {
        "patients": len(patients),
        "orders": orders,
        "full": float(np.mean([one.full for one in patients])),
        "change": float(np.mean([one.change for one in patients])),
        "areas": {c: {o: _mean_area(patients, o, c) for o in orders} for c in CURVES},
        "gains": gains,
        "shares": SHARES.tolist(),
        "curves": {c: {o: _mean_curve(patients, o, c) for o in orders} for c in CURVES},
    }
    by_pair = {(gain["order"], gain["against"]): gain for gain in gains if gain["curve"] == BOTH}
    finding, words = verdict(patients, by_pair, found["change"] if of_classes else None)
    return found | {"finding": finding, "verdict": words}


def _mean_area(patients: Sequence[PatientCurves], order: str, curve: str) -> float:
    return float(np.mean([one.areas(order, curve).mean() for one in patients]))


def _mean_curve(patients: Sequence[PatientCurves], order: str, curve: str) -> list[float]:
    return np.mean([one.mean_curve(order, curve, SHARES) for one in patients], axis=0).tolist()


def _gain(
    patients: Sequence[PatientCurves], order: str, against: str, curve: str
) -> dict[str, Any]:
    """The mean difference of two orders, and its interval over patients.

    The interval of one patient is the range over the single random orders, if these are compared.
    """
    names = CURVES if curve == BOTH else (curve,)
    gains = np.array([p.gains(order, against, *names).mean() for p in patients])
    found = {"order": order, "against": against, "curve": curve, "value": float(gains.mean())}
    low = high = None
    if len(gains) > 1:
        draws = patient_weights(len(gains), RESAMPLES, SEED) @ gains / len(gains)
        interval = estimate(found["value"], draws)
        low, high = interval.low, interval.high
    elif against == RANDOM:
        single = patients[0].gains(order, against, *names)
        low, high = float(single.min()), float(single.max())
    return found | {"low": low, "high": high}
