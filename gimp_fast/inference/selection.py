"""Which patients a heatmap is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.inference.model import TrainedModel

_SHOWN = 5


def select_patients(
    trained: TrainedModel,
    cohort: Cohort,
    *,
    cases: Sequence[str] | None = None,
    slides: Sequence[str] | None = None,
    part: str | None = None,
    split: str | None = None,
) -> list[str]:
    """Case ids by name, by slide, or by part of a split.

    Args:
        trained: the model; patients with nothing that it reads are left out of a part.
        cohort: whose patients they are.
        cases: these patients.
        slides: the patients of these slides.
        part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; None is the test part of the cohort
            that the model was trained on, and all of another.
        split: that ``part`` is of; None is that of the model, or the cohort's only one.

    Raises:
        GimpError: unknown names, or nobody to draw.
    """
    if cases is not None:
        _check_known(cases, cohort.case_ids, "patient", cohort)
        return list(dict.fromkeys(cases))
    if slides is not None:
        owners = {
            slide: case
            for case in cohort.case_ids
            if cohort.has_slides(case)
            for slide in cohort.bag(case).slide_ids
        }
        _check_known(slides, owners, "slide", cohort)
        return list(dict.fromkeys(owners[slide] for slide in slides))
    same = cohort.fingerprint == trained.trained_on.get("fingerprint")
    if part is None:
        part = "test" if same else "all"
    if part == "all":
        chosen = list(cohort.case_ids)
    else:
        chosen = cohort.split(split or _split_name(trained, cohort, same))[part]
    usable = [case for case in chosen if _usable(trained, cohort, case)]
    if not usable:
        raise GimpError(
            f"{cohort.path}: found no patient of the part '{part}' with what the model reads"
        )
    return usable


def _split_name(trained: TrainedModel, cohort: Cohort, same: bool) -> str:
    if same and trained.trained_on.get("split") in cohort.split_names:
        return trained.trained_on["split"]
    if len(cohort.split_names) == 1:
        return cohort.split_names[0]
    raise GimpError(
        f"{cohort.path}: found {len(cohort.split_names)} splits; expected --split with one of "
        f"{', '.join(cohort.split_names) or 'none, for it has none: give --part all'}"
    )


def _usable(trained: TrainedModel, cohort: Cohort, case: str) -> bool:
    return (trained.uses_slides and cohort.has_slides(case)) or (
        trained.uses_genes and cohort.has_expression(case)
    )


def _check_known(asked: Sequence[str], known: Sequence[str] | dict, what: str, cohort: Cohort):
    unknown = [name for name in asked if name not in set(known)]
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise GimpError(f"{cohort.path}: found no {what} {', '.join(unknown[:_SHOWN])}{more}")
