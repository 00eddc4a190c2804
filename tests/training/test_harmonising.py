"""Harmonised genes: the order within a patient, whatever the unit, and gaps in it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from gimp_fast.training import load_config
from gimp_fast.training.harmonising import harmonised, mean_quantiles
from gimp_fast.training.scaling import GeneScaler

METHODS = ("rank", "quantile")


@pytest.fixture
def counts():
    """(23, 41) reads, many of them zero."""
    rng = np.random.default_rng(0)
    return rng.poisson(rng.lognormal(2, 2, (1, 41)) * rng.lognormal(0, 1, (23, 41))) * 1.0


def per_length(counts, seed=1):
    """(FPKM, TPM) of reads, by lengths of genes."""
    rates = counts / np.random.default_rng(seed).lognormal(0, 1, counts.shape[1])
    return rates / counts.sum(1, keepdims=True) * 1e9, rates / rates.sum(1, keepdims=True) * 1e6


def test_ranks_are_quantiles_of_a_normal_with_ties_averaged(counts):
    expected = [norm.ppf((rankdata(row) - 0.5) / len(row)) for row in counts]
    np.testing.assert_allclose(harmonised(counts), expected, atol=1e-6)
    assert harmonised(np.zeros((2, 5))).tolist() == [[0.0] * 5] * 2  # nothing but ties


def test_missing_genes_are_left_out_of_the_order_and_stay_missing(counts):
    gaps = counts.copy()
    gaps[3, ::4] = np.nan
    found, kept = harmonised(gaps), ~np.isnan(gaps[3])
    np.testing.assert_array_equal(found[3, kept], harmonised(counts[3:4, kept])[0])
    assert np.isnan(found[3, ~kept]).all()
    np.testing.assert_array_equal(np.delete(found, 3, 0), np.delete(harmonised(counts), 3, 0))
    assert np.isnan(harmonised(np.full((1, 3), np.nan))).all()


def test_quantiles_are_the_means_of_the_training_patients():
    values = np.array([[5.0, 2, 3], [4, 1, 6]])  # the first two columns of Bolstad's table, turned
    quantiles = mean_quantiles(values)
    np.testing.assert_allclose(quantiles, [1.5, 3.5, 5.5])
    np.testing.assert_allclose(harmonised(values, quantiles), [[5.5, 1.5, 3.5], [3.5, 1.5, 5.5]])
    tied = harmonised(np.array([[7.0, 7, 9]]), quantiles)
    np.testing.assert_allclose(tied, [[2.5, 2.5, 5.5]])


def test_quantiles_of_patients_with_gaps_lie_between_those_measured():
    values = np.array([[1.0, 2, 3, 4], [1, np.nan, 3, np.nan]])
    np.testing.assert_allclose(mean_quantiles(values), [1, 1.75, 2.75, 3.5])


@pytest.mark.parametrize("method", METHODS)
def test_units_that_differ_by_a_factor_are_equal_and_counts_are_not(counts, method):
    fpkm, tpm = per_length(counts)
    scaler = GeneScaler.fit(np.log2(fpkm + 1), harmonise=method)
    expected = scaler(np.log2(fpkm + 1))
    for same in (np.log2(tpm + 1), tpm, np.log1p(fpkm * 1e-3)):
        np.testing.assert_allclose(scaler(same), expected, atol=1e-5)
    assert np.abs(scaler(np.log2(counts + 1)) - expected).mean() > 0.1
    plain = GeneScaler.fit(np.log2(fpkm + 1))
    assert np.abs(plain(np.log2(tpm + 1)) - plain(np.log2(fpkm + 1))).mean() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_standardised_and_a_missing_gene_has_the_training_mean(counts, method):
    scaler = GeneScaler.fit(counts, harmonise=method, limit=10.0)
    scaled = scaler(counts)
    varied = counts.std(0) > 0
    np.testing.assert_allclose(scaled[:, varied].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled[:, varied].std(0), 1, atol=1e-4)
    gaps = counts.copy()
    gaps[:, 7] = np.nan
    assert (scaler(gaps)[:, 7] == 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lost", ["lowest", "highest", "random"])
def test_missing_genes_are_counted_where_they_usually_are(counts, method, lost):
    scaler = GeneScaler.fit(counts, harmonise=method)
    order = np.argsort(counts.mean(0))
    order = {"lowest": order, "highest": order[::-1], "random": np.arange(41)}[lost]
    gaps = counts.copy()
    gaps[:, order[:13]] = np.nan
    kept = order[13:]
    whole, found = scaler.harmonised(counts)[:, kept], scaler.harmonised(gaps)[:, kept]
    without = harmonised(gaps, scaler.quantiles)[:, kept]
    assert np.isfinite(found).all()
    assert np.isnan(scaler.harmonised(gaps)[:, order[:13]]).all()
    error, error_without = (np.abs(x - whole).mean() for x in (found, without))
    assert error < (1.5 if lost == "random" else 0.5) * error_without
    np.testing.assert_array_equal(scaler.harmonised(gaps * 2 + 1), scaler.harmonised(gaps))


@pytest.mark.parametrize("method", METHODS)
def test_the_order_is_that_of_the_genes_that_are_kept(counts, method):
    scaler = GeneScaler.fit(counts, harmonise=method, most_variable=11)
    assert len(scaler.columns) == 11
    alone = GeneScaler.fit(counts[:, scaler.columns], harmonise=method)
    np.testing.assert_array_equal(scaler(counts), alone(counts[:, scaler.columns]))
    np.testing.assert_array_equal(scaler.columns, GeneScaler.fit(counts, most_variable=11).columns)


def test_a_configuration_without_it_is_dumped_as_before():
    assert "gene_harmonise" not in load_config().model_dump()
    assert load_config(overrides=["gene_harmonise=rank"]).model_dump()["gene_harmonise"] == "rank"
