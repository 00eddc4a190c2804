"""All audits of the expression of a cohort, as cautions."""

from __future__ import annotations

from gimp_fast.data.prepare.audits.duplicates import duplicate_cautions
from gimp_fast.data.prepare.audits.hospitals import hospital_cautions
from gimp_fast.data.prepare.audits.profiles import Audited, profiles
from gimp_fast.data.prepare.audits.scales import scale_cautions
from gimp_fast.data.prepare.audits.sex import sex_cautions


def expression_cautions(audited: Audited) -> list[str]:
    """Sentences on what is wrong with expression as a whole, and what to do; usually none."""
    if not audited.cases:
        return []
    scaled = profiles(audited.values)
    return [
        *scale_cautions(audited, scaled),
        *duplicate_cautions(audited, scaled),
        *sex_cautions(audited),
        *hospital_cautions(audited, scaled),
    ]
