"""What a cohort is, in a few lines for a reader."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gimp_fast.errors import counted


def cohort_facts(cohort: Any) -> dict[str, object]:
    """Name -> what is to say of a cohort's patients, slides, genes, targets and splits.

    Args:
        cohort: a :class:`gimp_fast.data.Cohort`, whose file imports this one.
    """
    cases = cohort.case_ids
    labelled = [case for case in cases if cohort.has_label(case)]
    labels = Counter(cohort.truth(labelled).tolist() if labelled else ())
    hospitals = {cohort.site(case) for case in cases} - {None}
    slides = f"{len(cohort.slide_owners())} of {sum(map(cohort.has_slides, cases))} patients"
    features = f"{cohort.feature_dim} channels, {cohort.encoder or 'encoder not recorded'}"
    expression = f"{len(cohort.gene_ids):,} of {sum(map(cohort.has_expression, cases))} patients"
    return {
        "patients": len(cases),
        "classes": [f"{name} {labels[place]}" for place, name in enumerate(cohort.classes)],
        "slides": f"{slides}; {features}",
        "genes": f"{expression}; {cohort.expression_transform}" if cohort.gene_ids else "",
        "targets": [f"{name} ({target.kind})" for name, target in cohort.targets.items()],
        "covariates": list(cohort.covariates),
        "hospitals": len(hospitals) or None,
        "splits": list(cohort.split_names),
        "cautions": counted(len(cohort.cautions), "caution") if cohort.cautions else "",
        "folder": cohort.path,
    }
