"""Limits of cautions: few patients of training are beyond them, whatever their data look like."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from gimp_fast.errors import GimpError
from gimp_fast.inference.cautions import expression_cautions
from gimp_fast.training.ranges import TrainingRanges
from gimp_fast.training.scaling import GeneScaler

PATIENTS, GENES = 300, 400


class ExpressionOnly:
    """A cohort of expression; patients are numbers."""

    def __init__(self, values):
        self.values = values

    def has_expression(self, case):
        return True

    def expression(self, cases):
        return self.values[list(cases)]


def drawn(kind: str) -> np.ndarray:
    """(PATIENTS, GENES) float32 of one kind."""
    rng = np.random.default_rng(0)
    log = rng.uniform(0, 10, GENES) + rng.normal(0, 1.5, (PATIENTS, GENES))
    depth = rng.lognormal(0, 1, (PATIENTS, 1))  # counts of patients who were sequenced unlike
    odd = log.copy()
    odd[:6, :60] += 40  # two in a hundred of another kind
    kinds = {
        "log2": np.clip(log, 0, None),
        "linear": np.exp2(log),
        "counts": np.exp2(log) * depth,
        "heavy-tails": np.exp2(3 * rng.standard_t(2, (PATIENTS, GENES)).clip(-9, 9)),
        "z-scores": log - log.mean(0),
        "centred": log - log.mean(),
        "some-odd": odd,
        "sparse": np.exp2(log) * (rng.random(log.shape) < 0.02),
    }
    values = kinds[kind].astype(np.float32)
    values[rng.random(values.shape) < 0.01] = np.nan if kind == "log2" else 0
    return values


def model_of(values):
    measured = np.nan_to_num(values, nan=float(np.nanmean(values)))
    scaler = GeneScaler.fit(measured)
    ranges = TrainingRanges.of(ExpressionOnly(values), range(len(values)), "rna", scaler)
    return SimpleNamespace(scaler=scaler, ranges=ranges)


KINDS = (
    "log2", "linear", "counts", "heavy-tails", "z-scores", "centred", "some-odd", "sparse"
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_few_patients_of_training_are_warned_of(kind):
    values = drawn(kind)
    found = expression_cautions(model_of(values), values)
    assert sum(map(bool, found)) <= 0.03 * PATIENTS


@pytest.mark.parametrize(("kind", "change"), [
    ("log2", lambda x: np.exp2(x) - 1),
    ("linear", np.log2),
    ("counts", lambda x: np.log2(x + 1)),
])  # fmt: skip
def test_another_scale_is_still_found(kind, change):
    values = drawn(kind)
    trained = model_of(values)
    found = expression_cautions(trained, change(np.clip(values, 1e-3, None)).astype(np.float32))
    warned = ["expression-scale" in {caution.code for caution in some} for some in found]
    assert np.mean(warned) > 0.8


def test_ranges_come_back_from_json():
    ranges = model_of(drawn("log2")).ranges
    assert TrainingRanges.from_dict(ranges.as_dict(), "x") == ranges
    assert TrainingRanges.from_dict({}, "x") == TrainingRanges()


ODD = [None, 1, "x", [], {"other": 1}, {"fewest_patches": "x"}, {"fewest_patches": [1]}]
ODD += [{"most_far_genes": {}}, {"lowest_level": 10**400}, {"highest_level": float("nan")}]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:30])
def test_odd_ranges_are_refused(odd):
    with pytest.raises(GimpError, match="x: found damaged ranges"):
        TrainingRanges.from_dict(odd, "x")
