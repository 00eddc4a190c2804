"""What areas and their intervals say, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gimp_fast.heatmaps.faithfulness.curves import CURVES
from gimp_fast.heatmaps.faithfulness.patient import ATTENTION, RANDOM, PatientCurves
from gimp_fast.heatmaps.options import GRADIENT

# Of fewer patients, a bootstrap interval is too short: no verdict.
FEWEST = 10
NAMES = {ATTENTION: "attention", GRADIENT: "gradient × input", RANDOM: "a random order"}
BETTER, WORSE, CHANCE, FEW, CONSTANT = "better", "worse", "chance", "few", "constant"
# Of values that differ by rounding alone.
_EQUAL = 1e-5
_LITTLE = 0.01  # of a probability


def verdict(
    patients: Sequence[PatientCurves],
    gains: Mapping[tuple[str, str], dict[str, Any]],
    change: float | None,
) -> tuple[str, str]:
    """One word and sentences on the order that the maps show.

    Args:
        patients: of one kind.
        gains: (order, against) -> gain of both curves.
        change: mean of the largest change of a probability; None for another value.
    """
    kind, shown = patients[0].kind, next(iter(patients[0].curves))
    name = NAMES[shown]
    if all(one.change <= _EQUAL * max(abs(one.full), 1.0) for one in patients):
        words = f"The prediction does not depend on {kind}, so no order of them can be faithful."
        return CONSTANT, words
    chance, other = gains[shown, RANDOM], gains.get((ATTENTION, GRADIENT))
    if len(patients) == 1:
        single = patients[0].gains(shown, RANDOM, *CURVES)
        beaten = int((single > 0).sum())
        return FEW, (
            f"One patient: {name} is more faithful than {beaten} of {len(single)} random orders of "
            f"{kind}; the difference is {chance['text']}, the range over these."
        )
    if len(patients) < FEWEST:
        return FEW, (
            f"{len(patients)} patients are too few to say whether {name} ranks {kind} better than "
            f"chance (difference {interval_text(chance)})."
        )
    finding = BETTER if chance["low"] > 0 else WORSE if chance["high"] < 0 else CHANCE
    than = {BETTER: "better than", WORSE: "worse than", CHANCE: "no better than"}[finding]
    words = f"{name[0].upper()}{name[1:]} ranks {kind} {than} chance "
    words += f"(difference {interval_text(chance)})."
    if other is not None:
        words += f" {_compared(other)}"
    if change is not None and change < _LITTLE:
        words += (
            f" The prediction hardly depends on {kind}: whichever are taken away, the probability "
            f"of a patient changes by at most {change:.4f} on average."
        )
    return finding, words


def _compared(gain: dict[str, Any]) -> str:
    if gain["low"] > 0:
        words = "It is more faithful than gradient × input"
    elif gain["high"] < 0:
        words = "Gradient × input is more faithful"
    else:
        words = "No difference from gradient × input is shown"
    return f"{words} ({interval_text(gain)})."


def gain_text(gain: dict[str, Any], of_classes: bool) -> str:
    """``+0.0310 (+0.0200 to +0.0410)``, the value alone without an interval.

    Other values than probabilities, whose size is not known, have three digits.
    """
    spec = "+.4f" if of_classes else "+.3g"
    value, low, high = (
        "" if gain[name] is None else format(gain[name], spec).replace("-", "−")
        for name in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})" if low else value


def interval_text(gain: dict[str, Any]) -> str:
    """``+0.0310, 95 % CI +0.0200 to +0.0410``."""
    return gain["text"].replace(" (", ", 95 % CI ").removesuffix(")")
