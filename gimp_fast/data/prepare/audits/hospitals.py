"""How much of the structure of expression goes with hospitals, beyond what chance gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gimp_fast.data.prepare.audits.profiles import Audited
from gimp_fast.evaluation.group_effects import group_effect

_COMPONENTS = 10
_MOST_PATIENTS = 1000
_FEWEST_PATIENTS, _FEWEST_GENES = 20, 20
# Beyond chance, and relative to what chance leaves: seven cohorts of TCGA have 5 to 9 %.
_SHARE, _P = 0.1, 0.01


def hospital_cautions(audited: Audited, scaled: np.ndarray) -> Iterator[str]:
    """A sentence if hospitals explain much of the leading components, within classes.

    Args:
        audited: the patients; those of unknown hospitals, and hospitals of one patient, do not
            count.
        scaled: (n, k), their ``profiles``.
    """
    sites = np.array([audited.sites.get(case, "") for case in audited.cases])
    names, counts = np.unique(sites, return_counts=True)
    kept = np.flatnonzero(np.isin(sites, names[(names != "") & (counts > 1)]))
    if len(kept) > _MOST_PATIENTS:
        kept = np.sort(np.random.default_rng(0).permutation(kept)[:_MOST_PATIENTS])
    number = len(set(sites[kept].tolist()))
    if len(kept) < _FEWEST_PATIENTS or number < 2 or scaled.shape[1] < _FEWEST_GENES:
        return
    classes = audited.groups.get("class", {})
    strata = np.array([classes.get(audited.cases[row], "") for row in kept])
    found = group_effect(_components(scaled[kept]), sites[kept], strata)
    beyond = (found.share - found.by_chance) / max(1 - found.by_chance, 1e-9)
    if beyond < _SHARE or found.p > _P:
        return
    within = " within classes" if len(set(strata.tolist())) > 1 else ""
    yield (
        f"expression goes with the hospital ({number} of them): it explains {found.share:.0%} of "
        f"the variance of the leading components{within}, {found.by_chance:.0%} by chance "
        f"(p = {found.p:.2g}). A model may learn laboratories: test it at other hospitals "
        "(--site-splits)"
    )


def _components(scaled: np.ndarray) -> np.ndarray:
    """(n, ≤ 10) scores of the leading principal components."""
    centred = scaled - scaled.mean(0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    leading = np.argsort(-values)[:_COMPONENTS]
    return vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0))
