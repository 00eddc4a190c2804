"""How faithful weights are over patients: means, intervals, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gimp_fast.evaluation.intervals import estimate, patient_weights
from gimp_fast.heatmaps.faithfulness.curves import CURVES, SHARES
from gimp_fast.heatmaps.faithfulness.patient import ATTENTION, RANDOM, PatientCurves
from gimp_fast.heatmaps.options import GRADIENT

BOTH = "both"
RESAMPLES, SEED = 2000, 0
# Of fewer patients, a bootstrap interval is too short: no verdict.
FEWEST = 10
NAMES = {ATTENTION: "attention", GRADIENT: "gradient × input", RANDOM: "a random order"}
# Of values that differ by rounding alone.
_EQUAL = 1e-5


def summarised(patients: Sequence[PatientCurves]) -> dict[str, Any]:
    """What ``faithfulness.json`` says of the patches, or the genes, of n patients.

    ``orders``, the ranking that the maps show first; ``areas`` and ``curves`` are means by order;
    ``gains`` compare orders, above zero is more faithful; ``verdict`` is a sentence or more, and
    ``finding`` one word of it: better, chance, worse, few or constant.
    """
    orders = list(patients[0].curves)
    shown = next(order for order in orders if order != RANDOM)
    pairs = [(order, RANDOM) for order in orders if order != RANDOM]
    if len(pairs) == 2:
        pairs.append((ATTENTION, GRADIENT))
    gains = [_gain(patients, *pair, curve) for pair in pairs for curve in (*CURVES, BOTH)]
    found = {
        "patients": len(patients),
        "orders": orders,
        "full": float(np.mean([one.full for one in patients])),
        "moves": float(np.mean([abs(one.full - one.emptied) for one in patients])),
        "areas": {c: {o: _mean_area(patients, o, c) for o in orders} for c in CURVES},
        "gains": gains,
        "shares": SHARES.tolist(),
        "curves": {c: {o: _mean_curve(patients, o, c) for o in orders} for c in CURVES},
    }
    finding, words = _verdict(patients, shown, gains)
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


def _verdict(
    patients: Sequence[PatientCurves], shown: str, gains: Sequence[dict[str, Any]]
) -> tuple[str, str]:
    """One word and sentences on the order that the maps show."""
    kind, name = patients[0].kind, NAMES[shown]
    upper = name[0].upper() + name[1:]
    if all(map(_is_constant, patients)):
        return "constant", (
            f"The prediction does not depend on {kind}, so no order of them can be faithful."
        )
    by_pair = {(g["order"], g["against"]): g for g in gains if g["curve"] == BOTH}
    chance, other = by_pair[shown, RANDOM], by_pair.get((ATTENTION, GRADIENT))
    if len(patients) == 1:
        single = patients[0].gains(shown, RANDOM, *CURVES)
        beaten = int((single > 0).sum())
        return "few", (
            f"One patient: {name} is more faithful than {beaten} of {len(single)} random orders of "
            f"{kind}; the difference is {range_text(chance)}, the range over these."
        )
    numbers = f"difference {interval_text(chance)}"
    if len(patients) < FEWEST:
        return "few", (
            f"{len(patients)} patients are too few to say whether {name} ranks {kind} better than "
            f"chance ({numbers})."
        )
    if chance["low"] > 0:
        finding, words = "better", f"{upper} ranks {kind} better than chance ({numbers})."
    elif chance["high"] < 0:
        finding, words = "worse", f"{upper} ranks {kind} worse than chance ({numbers})."
    else:
        finding, words = "chance", f"{upper} ranks {kind} no better than chance ({numbers})."
    if other is not None:
        words += f" {_compared(other)}"
    return finding, words


def _is_constant(patient: PatientCurves) -> bool:
    """Whether all values along all curves are the same but for rounding."""
    values = np.concatenate(
        [one[curve].values for many in patient.curves.values() for one in many for curve in CURVES]
    )
    return float(np.ptp(values)) <= _EQUAL * max(abs(patient.full), 1.0)


def _compared(gain: dict[str, Any]) -> str:
    if gain["low"] > 0:
        words = "It is more faithful than gradient × input"
    elif gain["high"] < 0:
        words = "Gradient × input is more faithful"
    else:
        words = "No difference from gradient × input is shown"
    return f"{words} ({interval_text(gain)})."


def number_text(value: float) -> str:
    """Three digits, with a sign."""
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def range_text(gain: dict[str, Any]) -> str:
    """``+0.031 (+0.02 to +0.041)``; the value alone without an interval."""
    if gain["low"] is None:
        return number_text(gain["value"])
    value, low, high = (number_text(gain[name]) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def interval_text(gain: dict[str, Any]) -> str:
    """``+0.031, 95 % CI +0.02 to +0.041``."""
    return range_text(gain).replace(" (", ", 95 % CI ").removesuffix(")")
