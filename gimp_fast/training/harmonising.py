"""Puts the genes of each patient on one scale, by their order alone.

What keeps the order of a patient's genes does not change the result: another depth, FPKM, TPM or
FPKM-UQ, a logarithm. Counts order genes otherwise, because long genes have more reads.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

GeneHarmonise = Literal["none", "rank", "quantile"]


def harmonised(
    expression: np.ndarray, quantiles: np.ndarray | None = None, usual: np.ndarray | None = None
) -> np.ndarray:
    """Values by the order of each patient's genes, (n, G) float32; genes of one value share one.

    Args:
        expression: (n, G). NaN is a gene that was not measured: it is left out of the order, and
            stays NaN.
        quantiles: (Q,) ascending, the values from the lowest to the highest gene; None for those of
            a standard normal.
        usual: (G,) harmonised means of the training patients. Without its low genes, say, a
            patient's others would all seem lower; so missing genes are counted where they usually
            are. None does not count them.
    """
    places = _places(expression)
    if usual is not None and np.isnan(places).any():
        _make_room(places, _usual_places(usual, quantiles))
    if quantiles is None:
        return torch.special.ndtri(torch.from_numpy(places)).float().numpy()
    return np.interp(places, _middles(len(quantiles)), quantiles).astype(np.float32)


def mean_quantiles(expression: np.ndarray) -> np.ndarray:
    """The mean over patients of the lowest, second lowest … highest value, (G,) float32.

    The reference of quantile normalisation (Bolstad et al., Bioinformatics 2003). A patient with
    missing genes counts with quantiles interpolated between those of the others.

    Args:
        expression: (n, G), NaN where missing; every patient has some gene.
    """
    total, wanted = np.zeros(expression.shape[1]), _middles(expression.shape[1])
    for row in expression:
        measured = np.sort(row[~np.isnan(row)]).astype(np.float64)
        total += np.interp(wanted, _middles(len(measured)), measured)
    return (total / len(expression)).astype(np.float32)


def _middles(count: int) -> np.ndarray:
    """(count,) middles of as many equal parts of the range from 0 to 1."""
    return (np.arange(count) + 0.5) / count


def _places(expression: np.ndarray) -> np.ndarray:
    """(n, G) float64: the place of each gene among those measured, above 0 and below 1."""
    places = np.full(expression.shape, np.nan)
    for row, place in zip(expression, places, strict=True):
        measured = np.flatnonzero(~np.isnan(row))
        _, value, counts = np.unique(row[measured], return_inverse=True, return_counts=True)
        middles = np.cumsum(counts) - counts / 2  # of genes with the same value
        place[measured] = middles[value] / max(len(measured), 1)
    return places


def _usual_places(usual: np.ndarray, quantiles: np.ndarray | None) -> np.ndarray:
    """(G,) where genes usually are in the order of all, from 0 to 1."""
    if quantiles is None:
        return torch.special.ndtr(torch.from_numpy(usual).double()).numpy()
    return np.interp(usual, quantiles, _middles(len(quantiles)))


def _make_room(places: np.ndarray, usual: np.ndarray) -> None:
    """Turn places among the measured genes of each patient into places among all, in place."""
    for row in places:
        missing = np.isnan(row)
        measured = ~missing
        if not missing.any() or not measured.any():
            continue
        lost = np.sort(usual[missing])
        # Below the k-th lost gene are k of the lost, and all others are measured.
        below = lost * len(row) - (np.arange(len(lost)) + 0.5)
        among = np.clip(np.maximum.accumulate(below / measured.sum()), 0, 1)
        row[measured] = np.interp(row[measured], [0, *among, 1], [0, *lost, 1])
