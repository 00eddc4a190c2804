"""Signs that groups of patients were scaled apart: each by itself, or in another unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gimp_fast.data.prepare.audits.profiles import Audited
from gimp_fast.evaluation.group_effects import codes_of, group_effect, share_between

_FEWEST_GENES, _FEWEST_PATIENTS = 20, 8  # of a group
_LESS = 0.5  # of the least difference between shuffled groups
# Sources that were scaled by themselves: nine in ten genes have a mean near 0, the usual gene has a
# deviation near 1, and sources explain little. Published z-scores of TCGA are so, though some of
# their patients were left out since; tumours of two organs that were scaled together are not.
_NEAR, _MOST, _DEVIATION, _LITTLE = 0.5, 0.9, 0.3, 0.05
# Of genes that all shift one way, and by how many deviations: no disease does this.
_ONE_WAY, _FAR = 0.95, 0.5


def scale_cautions(audited: Audited, scaled: np.ndarray) -> Iterator[str]:
    """Sentences on groups that were scaled apart.

    Args:
        audited: the patients.
        scaled: (n, k), their ``profiles``.
    """
    if scaled.shape[1] < _FEWEST_GENES:
        return
    for name, group_of in audited.groups.items():
        rows, groups = _members(audited, group_of)
        if len(set(groups.tolist())) < 2:
            continue
        yield from _apart(name, scaled[rows], groups)
        yield from _shifted(name, scaled[rows], groups)
    rows, groups = _members(audited, audited.sources)
    names = sorted(set(groups.tolist()))
    if len(names) < 2:
        return
    standard = all(_is_standard(audited.values[rows[groups == name]]) for name in names)
    if standard and share_between(scaled[rows], groups) < _LITTLE:
        yield (
            f"each of the {len(names)} sources of expression holds z-scores of its own patients: "
            "what differs between sources is gone, also between classes that come from one source "
            "each. Start from values that are not scaled; `train` scales them by training patients"
        )
    else:
        yield from _shifted("source", scaled[rows], groups)


def _members(audited: Audited, group_of: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the patients in groups that are large enough, and their groups."""
    groups = np.array([group_of.get(case, "") for case in audited.cases])
    names, counts = np.unique(groups, return_counts=True)
    large = names[(names != "") & (counts >= _FEWEST_PATIENTS)]
    rows = np.flatnonzero(np.isin(groups, large))
    return rows, groups[rows]


def _apart(name: str, scaled: np.ndarray, groups: np.ndarray) -> Iterator[str]:
    """A sentence if groups differ less than chance allows: each has been scaled by itself."""
    expected = (len(set(groups.tolist())) - 1) / (len(groups) - 1)
    if share_between(scaled, groups) >= _LESS * expected:
        return  # shuffling takes its time
    found = group_effect(scaled, groups)
    least = float(found.shuffled.min())
    if found.share < _LESS * least:
        yield (
            f"{name}: expression differs less between groups ({_listed(groups)}) than between "
            f"shuffled patients: they explain {found.share:.2%} of the variance, at least "
            f"{least:.2%} by chance. It was scaled within each {name.split(' ')[0]}, so results "
            "here will not hold for new patients. Start from values that are not scaled; `train` "
            "scales them by training patients"
        )


def _shifted(name: str, scaled: np.ndarray, groups: np.ndarray) -> Iterator[str]:
    """A sentence for the first group in which nearly all genes are higher, or lower."""
    codes = codes_of(groups)
    for code, group in enumerate(sorted(set(groups.tolist()))):
        inside = codes == code
        shift = scaled[inside].mean(0) - scaled[~inside].mean(0)
        higher = float((shift > 0).mean())
        by = float(np.median(np.abs(shift)))
        if max(higher, 1 - higher) >= _ONE_WAY and by >= _FAR:
            way = "higher" if higher > 0.5 else "lower"
            yield (
                f"{name}, '{group}': {max(higher, 1 - higher):.0%} of the genes are {way} than in "
                f"the others, by {by:.1f} standard deviations (median): another unit or scaling, "
                "no biology, and a model can tell it by any gene. Read all patients from one "
                "pipeline, or train with --harmonise rank"
            )
            return


def _is_standard(values: np.ndarray) -> bool:
    """Whether nearly all genes of a group have a mean near 0 and a deviation near 1."""
    known = values[:, np.isfinite(values).all(0)]
    if not known.shape[1] or known.min() >= 0:
        return False
    mean, deviation = np.abs(known.mean(0)), np.abs(known.std(0) - 1)
    return bool((mean < _NEAR).mean() >= _MOST and np.median(deviation) < _DEVIATION)


def _listed(groups: np.ndarray) -> str:
    names = sorted(set(groups.tolist()))
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
