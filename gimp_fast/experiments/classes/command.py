"""The paper's tables and figures, of one cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.experiments.carry_out import Asked, OnCohort
from gimp_fast.experiments.classes.document import document
from gimp_fast.experiments.classes.results import summarise
from gimp_fast.experiments.document import write_document
from gimp_fast.experiments.plan import Shared


def prepared(asked: Asked, cohorts: Sequence[Cohort], shared: Shared) -> list[OnCohort]:
    """The work on the cohort; GimpError if it has no labels."""
    (cohort,) = cohorts
    if not cohort.classes:
        raise GimpError(
            f"{cohort.path}: the cohort has no labels, and these tables are of classes; `prepare` "
            "reads them from --labels, in the column --label-column. Targets of survival have the "
            "table 'survival'"
        )
    return [OnCohort(asked, cohort, shared)]


def make_tables(asked: Asked, works: Sequence[OnCohort], out: Path) -> tuple[int, int, int]:
    """Train, and write all tables; returns runs that are done, that were wanted, that failed."""
    (work,) = works
    call, plan, finished, errors = work.train()
    for table in asked.tables:
        print(f"{table.title}: computing intervals and drawing figures", flush=True)
        page = write_document(
            document(summarise(table, plan, finished, errors, call)), out / table.name
        )
        print(f"{table.title}: {page}")
    return len(finished), len(plan.runs), len(errors)
