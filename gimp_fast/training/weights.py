"""How much each training patient counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gimp_fast.errors import GimpError


def site_weights(site_of: Mapping[str, str | None]) -> dict[str, float]:
    """Patient -> weight, 1 / √(training patients of their hospital), with a mean of one.

    A hospital with four times the patients then counts twice as much, not four times. A patient
    whose hospital is not known counts as one alone there.

    Raises:
        GimpError: no hospital is known.
    """
    count = Counter(site for site in site_of.values() if site is not None)
    if site_of and not count:
        raise GimpError(
            "finetune.site_weights=sqrt: found no training patient whose hospital is known; "
            "expected TCGA barcodes, or a cohort prepared with --site-column"
        )
    weights = {case: count.get(site, 1) ** -0.5 for case, site in site_of.items()}
    mean = sum(weights.values()) / max(len(weights), 1)
    return {case: weight / mean for case, weight in weights.items()}
