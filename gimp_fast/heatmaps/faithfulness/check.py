"""Checks whether the weights of maps are faithful to the model, and writes what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from gimp_fast.data import Cohort
from gimp_fast.errors import counted
from gimp_fast.files.atomic import write_json, write_text
from gimp_fast.files.safe_text import guarded_table
from gimp_fast.heatmaps.attribution import describe
from gimp_fast.heatmaps.each_patient import of_each
from gimp_fast.heatmaps.faithfulness.curves import CURVES
from gimp_fast.heatmaps.faithfulness.page import write_page
from gimp_fast.heatmaps.faithfulness.patient import (
    KINDS,
    RANDOM,
    PatientCurves,
    check_patient,
)
from gimp_fast.heatmaps.faithfulness.summary import summarised
from gimp_fast.heatmaps.one_target import explained_for
from gimp_fast.heatmaps.options import GRADIENT, HeatmapOptions
from gimp_fast.heatmaps.protocols import ExplainedModel
from gimp_fast.heatmaps.records import facts_of, made_by
from gimp_fast.runs import layout


def check_faithfulness(
    trained: ExplainedModel,
    cohort: Cohort,
    case_ids: Sequence[str],
    options: HeatmapOptions,
    *,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Take away patches and genes of patients in the order of their weights, and in others.

    Writes ``faithfulness.json``, ``.csv``, ``.html`` and figures into ``options.out``, over those
    of an earlier check. A patient who fails does not stop the others.

    Args:
        trained: the model, in fp32.
        cohort: whose patients they are.
        case_ids: the patients, in this order.
        options: of the maps, with ``check_draws``.
        log: receives one line for each patient.

    Returns:
        What ``faithfulness.json`` holds: ``model``, ``explained``, ``kinds`` and ``failures``.
        ``kinds`` has "patches" and "genes", as far as the model reads them and a patient has more
        than can stay; see :func:`gimp_fast.heatmaps.faithfulness.summary.summarised`.

    Raises:
        GimpError: the model has no such attribution, or the features or genes of the cohort are
            not those of the model.
    """
    trained = explained_for(trained, options.target)
    attribution = "gradient × input of genes"
    if trained.uses_slides:
        attribution = describe(trained, options.attribution)
    reader = trained.reader_of(cohort, trained.columns_in(cohort))

    def check(case: str) -> tuple[list[PatientCurves], str]:
        inputs = reader.inputs([case]).to(trained.device)
        found = list(check_patient(trained, case, inputs, options.attribution, options.check_draws))
        sizes = [f"{one.size:,} {one.kind}" for one in found]
        return found, f"checked {' and '.join(sizes) or 'nothing: a single patch'}"

    checked, failures = of_each(case_ids, check, log)
    every = [one for found in checked.values() for one in found]
    of_kind = {kind: [one for one in every if one.kind == kind] for kind in KINDS}
    summary = {
        "settings": made_by(trained, options.attribution) | {"check_draws": options.check_draws},
        "model": facts_of(trained, cohort),
        "cohort": cohort.name,
        "explained": explained(trained),
        "attribution": attribution,
        "checked": len(checked),
        "kinds": {
            kind: summarised(found, of_classes=bool(trained.classes))
            for kind, found in of_kind.items()
            if found
        },
        "failures": failures,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    table = guarded_table(pd.DataFrame(_rows(every), columns=_COLUMNS))
    text = table.to_csv(index=False, float_format="%.6g")
    write_text(options.out / layout.FAITHFULNESS_TABLE, text)
    write_json(options.out / layout.FAITHFULNESS, summary, indent=1)
    write_page(summary, options.out)
    return summary


def explained(trained: ExplainedModel) -> str:
    """The value whose curves are drawn, in words."""
    if trained.classes:
        return "probability of the predicted class"
    return trained.columns[0].replace("_", " ")


_COLUMNS = [
    "case_id", "kind", "size", "curve", "order", "full", "emptied", "sign", "area", "random_area",
    "random_low", "random_high", "more_faithful_than_random", "more_faithful_than_gradient",
]  # fmt: skip


def _rows(patients: Sequence[PatientCurves]) -> list[list[Any]]:
    """A row for each patient, kind, curve and order but the random ones, whose range it has."""
    return [
        [
            one.case_id, one.kind, one.size, curve, order, one.full, one.emptied, one.sign,
            one.areas(order, curve)[0], chance.mean(), chance.min(), chance.max(),
            one.gains(order, RANDOM, curve).mean(),
            one.gains(order, GRADIENT, curve).mean() if order != GRADIENT else None,
        ]
        for one in patients
        for curve in CURVES
        for chance in [one.areas(RANDOM, curve)]
        for order in one.curves
        if order != RANDOM
    ]  # fmt: skip


def verdicts(summary: dict[str, Any]) -> list[str]:
    """A line for each kind of what can be taken away, and one of patients who were left out."""
    kinds = summary["kinds"]
    lines = [f"{kind}: {of['verdict']}" for kind, of in kinds.items()]
    for kind, of in kinds.items():
        if missing := summary["checked"] - of["patients"]:
            lines.append(f"{counted(missing, 'patient')} without {kind} to take away")
    return lines or ["nothing could be taken away of any patient"]
