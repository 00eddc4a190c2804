"""Recognises data of the same patient after another transform, format, order or rounding.

Expression is known by its order: which of two genes is higher stays the same when a patient's
values are scaled, logged or rounded. A slide is known by the mean of its features, which is the
same in any format and any order of the patches. Both are compared with how alike different patients
are, which is measured on those of training; where they are too much alike, nothing is recognised.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_PAIRS = 128  # pairs of genes that are compared
_FEWEST_PAIRS = 16  # with fewer that are measured and differ, nothing is said
_CHANNELS = 64
_FITTED_ON = 512  # patients that the choice is made on
_NEIGHBOURS = 8  # places apart in the order of genes by level
_AGREE = 0.95  # of the pairs, at least; patients of one tumour type reach .91
_APART = 0.1  # standard deviations a channel, at most; distinct slides are .2 apart or more
_STEP = 1 / 4096  # of the stored means, in standard deviations


@dataclass(frozen=True)
class ExpressionOrder:
    """Which genes are higher than which, of n patients.

    Attributes:
        gene_ids, gene_names: the K genes that are compared.
        pairs: (P, 2) int, places in ``gene_ids``.
        signs: (n, P) int8: 1 if the first gene of the pair is higher, −1 if the second, 0 if
            neither is, or one was not measured.
        limit: share of the pairs that agree in the same patient.
    """

    gene_ids: tuple[str, ...]
    gene_names: tuple[str, ...]
    pairs: np.ndarray
    signs: np.ndarray
    limit: float

    @classmethod
    def fit(
        cls, values: np.ndarray, gene_ids: Sequence[str], gene_names: Sequence[str]
    ) -> ExpressionOrder | None:
        """Choose pairs that differ between patients; None if patients cannot be told apart.

        Args:
            values: (n, G) expression; NaN where not measured.
            gene_ids, gene_names: of the columns.
        """
        pairs = _choose_pairs(_some(values))
        if len(pairs) < _FEWEST_PAIRS:
            return None
        used, places = np.unique(pairs, return_inverse=True)
        pairs, signs = places.reshape(-1, 2), _signs(values, pairs)
        sample = _some(signs)
        agreement = _agreement(sample, sample)
        np.fill_diagonal(agreement, 0)
        # Some patients may be in the cohort twice, so not the largest.
        usual = float(np.quantile(agreement.max(1), 0.9)) if len(sample) > 1 else 0.0
        ids, names = ([texts[i] for i in used] for texts in (gene_ids, gene_names))
        limit = max(_AGREE, (1 + usual) / 2)
        return (
            None
            if limit > 1 - 1 / len(pairs)
            else cls(tuple(ids), tuple(names), pairs, signs, limit)
        )

    def comparable(self, values: np.ndarray) -> np.ndarray:
        """(m,) bool: whether enough of a patient's genes were measured; arguments as below."""
        return (_signs(values, self.pairs) != 0).sum(1) >= _FEWEST_PAIRS

    def matches(self, values: np.ndarray) -> list[np.ndarray]:
        """For each patient, the rows of ``signs`` that are of the same patient.

        Args:
            values: (m, K) expression of the genes of ``gene_ids``; NaN where not measured.
        """
        found = _agreement(_signs(values, self.pairs), self.signs) >= self.limit
        return [np.flatnonzero(row) for row in found]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a pair takes two bits a patient."""
        return {
            "gene_ids": list(self.gene_ids),
            "gene_names": list(self.gene_names),
            "pairs": self.pairs.tolist(),
            "higher": _packed(np.packbits(self.signs > 0, axis=1)),
            "lower": _packed(np.packbits(self.signs < 0, axis=1)),
            "limit": self.limit,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExpressionOrder:
        """What :meth:`as_dict` gave; ValueError, TypeError or KeyError for anything else."""
        ids, names = (_texts(values[key]) for key in ("gene_ids", "gene_names"))
        pairs = np.array(values["pairs"], np.int64).reshape(-1, 2)
        if len(ids) != len(names) or (
            len(pairs) and not 0 <= pairs.min() <= pairs.max() < len(ids)
        ):
            raise ValueError("pairs of genes that are not listed")
        width = -(-len(pairs) // 8)
        bits = [
            np.unpackbits(_unpacked(values[key], np.uint8, width), axis=1, count=len(pairs))
            for key in ("higher", "lower")
        ]
        signs = bits[0].astype(np.int8) - bits[1].astype(np.int8)
        return cls(ids, names, pairs, signs, float(values["limit"]))


@dataclass(frozen=True)
class SlideMeans:
    """The mean features of n slides, of some channels.

    Attributes:
        channels: (K,) int, of ``width``.
        width: C, channels of the features.
        center, scale: (K,) over the slides of training.
        means: (n, K) float32, minus ``center``, in units of ``scale``.
        limit: root mean square difference up to which it is the same slide.
    """

    channels: np.ndarray
    width: int
    center: np.ndarray
    scale: np.ndarray
    means: np.ndarray
    limit: float

    @classmethod
    def fit(cls, means: np.ndarray, owners: np.ndarray) -> SlideMeans | None:
        """None if the slides of different patients cannot be told apart.

        Args:
            means: (n, C) mean features.
            owners: (n,) the patient of each slide.
        """
        center, scale = means.mean(0, dtype=np.float64), means.std(0, dtype=np.float64)
        varies = np.flatnonzero(scale > 1e-6 * np.abs(center).max(initial=0) + 1e-30)
        if not len(varies) or not np.isfinite(scale).all():
            return None
        chosen = np.unique(np.linspace(0, len(varies) - 1, _CHANNELS).round().astype(np.int64))
        channels = varies[chosen]
        fitted = cls(
            channels, means.shape[1], center[channels], scale[channels], np.empty((0, 0)), 0.0
        )
        scaled = fitted._scaled(means)
        sample, owners = _some(scaled), _some(owners)
        distance = _distance(sample, sample)
        distance[owners[:, None] == owners] = np.inf
        nearest = distance.min(1)
        nearest = nearest[np.isfinite(nearest)]
        # Some slides may be in the cohort twice, so not the smallest.
        usual = float(np.quantile(nearest, 0.1)) if len(nearest) else 0.0
        limit = min(_APART, usual / 4)
        if limit < 16 * _STEP:
            return None
        return cls(channels, means.shape[1], fitted.center, fitted.scale, scaled, limit)

    def matches(self, means: np.ndarray) -> list[np.ndarray]:
        """For each of (m, C) mean features, the rows of ``means`` that are of the same slide."""
        if means.shape[1] != self.width:
            return [np.empty(0, np.int64)] * len(means)
        found = _distance(self._scaled(means), self.means) <= self.limit
        return [np.flatnonzero(row) for row in found]

    def _scaled(self, means: np.ndarray) -> np.ndarray:
        scaled = (means[:, self.channels] - self.center) / self.scale
        limits = np.iinfo(np.int16)
        steps = np.clip(np.nan_to_num(scaled) / _STEP, limits.min, limits.max)
        return (steps.round() * _STEP).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a channel takes two bytes a slide."""
        return {
            "channels": self.channels.tolist(),
            "width": self.width,
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "means": _packed((self.means / _STEP).round().astype("<i2")),
            "limit": self.limit,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SlideMeans:
        """What :meth:`as_dict` gave; ValueError, TypeError or KeyError for anything else."""
        channels, width = np.array(values["channels"], np.int64), int(values["width"])
        center, scale = (np.array(values[key], np.float64) for key in ("center", "scale"))
        if not channels.shape == center.shape == scale.shape == (len(channels),):
            raise ValueError("other numbers of channels, centers and scales")
        if not len(channels) or channels.min() < 0 or channels.max() >= width or scale.min() <= 0:
            raise ValueError("channels that the features do not have")
        means = _unpacked(values["means"], "<i2", len(channels)) * np.float32(_STEP)
        return cls(channels, width, center, scale, means, float(values["limit"]))


def _choose_pairs(values: np.ndarray) -> np.ndarray:
    """(P, 2) genes of similar level, of which now one and now the other is higher."""
    count = values.shape[1]
    measured = np.flatnonzero(np.isfinite(values).any(0)) if len(values) else np.empty(0, int)
    level = np.nanmedian(values[:, measured], 0)
    order = measured[np.argsort(level, kind="stable")]
    chosen: list[tuple[float, int, int, int]] = []
    for apart in range(1, min(len(order), _NEIGHBOURS + 1)):
        first, second = order[:-apart], order[apart:]
        higher = (values[:, first] > values[:, second]).mean(0)
        lower = (values[:, first] < values[:, second]).mean(0)
        balance = -np.minimum(higher, lower)
        chosen += zip(balance.tolist(), [apart] * len(first), first, second, strict=True)
    # A gene in many pairs would decide alone.
    used, most, pairs = np.zeros(count, int), max(2, -(-2 * _PAIRS // max(count, 1))), []
    for balance, _, first, second in sorted(chosen):
        if balance < 0 and used[first] < most and used[second] < most and len(pairs) < _PAIRS:
            pairs.append((first, second))
            used[[first, second]] += 1
    return np.array(pairs, np.int64).reshape(-1, 2)


def _signs(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(n, P) int8."""
    first, second = values[:, pairs[:, 0]], values[:, pairs[:, 1]]
    return (first > second).astype(np.int8) - (first < second).astype(np.int8)


def _agreement(signs: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(m, n) share of the pairs on which two patients agree; 0 where too few can be compared."""
    signs, others = signs.astype(np.float32), others.astype(np.float32)
    both = np.abs(signs) @ np.abs(others).T
    agree = (signs @ others.T + both) / 2
    return np.where(both >= _FEWEST_PAIRS, agree / np.maximum(both, 1), 0)


def _distance(means: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(m, n) root mean square difference of a channel."""
    a, b = means.astype(np.float64), others.astype(np.float64)
    square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    return np.sqrt(np.maximum(square, 0) / max(a.shape[1], 1))


def _some(rows: np.ndarray) -> np.ndarray:
    """At most ``_FITTED_ON`` rows, spread evenly."""
    if len(rows) <= _FITTED_ON:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, _FITTED_ON).round().astype(np.int64))]


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array)).decode("ascii")


def _unpacked(text: Any, dtype: Any, width: int) -> np.ndarray:
    """(n, width) of what ``_packed`` gave."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype).reshape(-1, width)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("something else than a list of text")
    return tuple(values)
