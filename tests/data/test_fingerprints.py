"""The same patient is recognised after what tools do to data, and another one never."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gimp_fast.data.fingerprints import ExpressionOrder, SlideMeans

PATIENTS, GENES, CHANNELS = 60, 200, 32
IDS = [f"ENSG{number:011d}" for number in range(GENES)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def log_values(rng):
    """log2(TPM + 1) of patients: genes of very different levels, a tenth of the values zero."""
    level = rng.uniform(0, 12, GENES)
    values = level + rng.normal(0, 1, (PATIENTS, GENES))
    return np.where(rng.random(values.shape) < 0.1, 0, np.clip(values, 0, None))


@pytest.fixture
def order(log_values):
    return ExpressionOrder.fit(log_values, IDS, [""] * GENES)


def columns_of(order):
    return [IDS.index(gene) for gene in order.gene_ids]


CHANGES = {
    "none": lambda x, rng: x,
    "linear": lambda x, rng: np.exp2(x) - 1,
    "log1p": lambda x, rng: np.log1p(np.exp2(x) - 1),
    "FPKM": lambda x, rng: np.log2((np.exp2(x) - 1) * rng.uniform(0.1, 10, (len(x), 1)) + 1),
    "half-precision": lambda x, rng: x.astype(np.float16).astype(np.float64),
    "two-digits": lambda x, rng: x.round(2),
    "a-fifth-missing": lambda x, rng: np.where(rng.random(x.shape) < 0.2, np.nan, x),
    "genes-missing": lambda x, rng: np.where(np.arange(x.shape[1]) % 3 == 0, np.nan, x),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_expression_is_recognised(order, log_values, rng, change):
    changed = change(log_values, rng)[:, columns_of(order)]
    assert order.comparable(changed).all()
    assert [rows.tolist() for rows in order.matches(changed)] == [[n] for n in range(PATIENTS)]


def test_other_patients_are_not(order, rng, log_values):
    level = log_values.mean(0)
    others = np.clip(level + rng.normal(0, 1, (500, GENES)), 0, None)[:, columns_of(order)]
    assert not any(len(rows) for rows in order.matches(others))


def test_what_was_hardly_measured_is_not_compared(order, log_values):
    few = np.full((1, len(order.gene_ids)), np.nan)
    few[0, :10] = log_values[0, columns_of(order)[:10]]
    assert not order.comparable(few).any()
    assert [len(rows) for rows in order.matches(few)] == [0]
    assert [len(rows) for rows in order.matches(np.zeros_like(few))] == [0]


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((10, GENES)),
        np.full((10, GENES), np.nan),
        np.arange(10 * GENES, dtype=float).reshape(10, GENES),  # all in the same order
        np.random.default_rng(0).normal(size=(10, 4)),
        np.empty((0, GENES)),
    ],
    ids=["zeros", "nan", "one-order", "four-genes", "nobody"],
)
def test_patients_who_cannot_be_told_apart_are_not_compared(values):
    assert ExpressionOrder.fit(values, IDS[: values.shape[1]], [""] * values.shape[1]) is None


def test_a_patient_who_is_there_twice_does_not_spoil_it(log_values):
    twice = np.concatenate([log_values, log_values[:1]])
    order = ExpressionOrder.fit(twice, IDS, [""] * GENES)
    found = order.matches(log_values[:2, columns_of(order)])
    assert [rows.tolist() for rows in found] == [[0, PATIENTS], [1]]


@pytest.fixture
def means(rng):
    return (3 + rng.normal(size=(PATIENTS, CHANNELS))).astype(np.float32)


@pytest.fixture
def slides(means):
    return SlideMeans.fit(means, np.arange(PATIENTS))


def test_slides_are_recognised(slides, means, rng):
    noise = rng.normal(0, 0.01, means.shape)
    for changed in (means, means.astype(np.float16), means + noise):
        found = [rows.tolist() for rows in slides.matches(changed.astype(np.float32))]
        assert found == [[n] for n in range(PATIENTS)]


def test_other_slides_are_not(slides, rng):
    others = 3 + rng.normal(size=(500, CHANNELS)).astype(np.float32)
    assert not any(len(rows) for rows in slides.matches(others))
    assert [len(rows) for rows in slides.matches(np.ones((2, CHANNELS + 1)))] == [0, 0]


@pytest.mark.parametrize(
    "means",
    [
        np.ones((10, CHANNELS)),
        np.random.default_rng(0).integers(0, 2, (50, 1)),
        np.full((5, 3), np.inf),
        np.ones((1, 3)),
    ],
    ids=["equal", "two-values", "infinite", "one-slide"],
)
def test_slides_that_cannot_be_told_apart_are_not_compared(means):
    with np.errstate(invalid="ignore"):
        assert SlideMeans.fit(means.astype(np.float32), np.arange(len(means))) is None


def test_slides_of_one_patient_may_be_alike(rng):
    means = np.repeat(rng.normal(size=(20, CHANNELS)), 2, axis=0)
    means[::2] += 1e-4
    slides = SlideMeans.fit(means, np.repeat(np.arange(20), 2))
    assert [rows.tolist() for rows in slides.matches(means[:2])] == [[0, 1], [0, 1]]


def test_json_keeps_all(order, slides, log_values, means):
    for found in (order, slides):
        values = json.loads(json.dumps(found.as_dict()))
        again = type(found).from_dict(values)
        assert again.as_dict() == values
        assert again.limit == found.limit
    values = log_values[:, columns_of(order)]
    again = ExpressionOrder.from_dict(order.as_dict())
    np.testing.assert_array_equal(again.signs, order.signs)
    assert [len(rows) for rows in again.matches(values)] == [1] * PATIENTS
    again = SlideMeans.from_dict(slides.as_dict())
    assert [len(rows) for rows in again.matches(means)] == [1] * PATIENTS


def test_the_digest_of_a_patient_is_small(order, slides):
    assert len(order.as_dict()["higher"] + order.as_dict()["lower"]) < 50 * PATIENTS
    assert len(slides.as_dict()["means"]) < 90 * PATIENTS
