"""The files of a validation: a page, numbers as JSON and tables, figures."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.errors import GimpError
from gimp_fast.evaluation.intervals import WITHOUT_SPREAD, Estimate
from gimp_fast.external import missing_texts, number_texts, panels, texts
from gimp_fast.external.kinds import Kind
from gimp_fast.external.of_classes import Classes
from gimp_fast.external.of_numbers import Numbers
from gimp_fast.external.of_survival import TimeToEvent
from gimp_fast.external.result import Validation
from gimp_fast.files.atomic import write_json, write_text
from gimp_fast.files.safe_text import guarded, guarded_table
from gimp_fast.inference.cautions import CODES
from gimp_fast.pages import style
from gimp_fast.pages.templates import get_template
from gimp_fast.report.decision_panel import decision_panel
from gimp_fast.report.html import written_panel
from gimp_fast.runs import layout
from gimp_fast.runs.environment import environment
from gimp_fast.runs.score_texts import READS

RESULTS, SCORES, MISSING = "results.json", "scores.csv", "missing.csv"
FILES = (layout.REPORT, RESULTS, SCORES, MISSING, layout.PREDICTIONS, layout.FIGURES)
_KINDS: dict[str, type[Kind]] = {
    "class": Classes, "survival": TimeToEvent, "regression": Numbers
}  # fmt: skip
_COLUMNS = (
    "by", "group", "patients", "counts", "score", "value", "low", "high", "difference",
    "difference_low", "difference_high", "drawn", "reason",
)  # fmt: skip


def check_folder(out: str | Path) -> Path:
    """The folder, if it is new, empty, or holds nothing but an earlier validation.

    Raises:
        GimpError: a file, or a folder with other files in it.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise GimpError(f"{out}: found a file; expected a new or empty folder")
    others = sorted({path.name for path in out.iterdir()} - set(FILES)) if out.is_dir() else []
    if others:
        raise GimpError(
            f"{out}: found {', '.join(others[:5])}; expected a new folder, or one of an earlier "
            "validation, whose files are replaced"
        )
    return out


def write_validation(found: Validation, out: str | Path, command: Sequence[str] = ()) -> Path:
    """Write all files into a folder; returns the path of ``report.html``.

    Args:
        found: what :func:`gimp_fast.external.validate_model` gave.
        out: folder, new, empty or of an earlier validation.
        command: the words of the command, for the record.

    Raises:
        GimpError: the folder holds something else, or cannot be written.
    """
    out, versions = check_folder(out), environment()
    words = shlex.join(command)
    write_json(out / RESULTS, results(found) | {"command": words, "environment": versions})
    write_text(out / SCORES, score_lines(found))
    if found.missing is None:
        (out / MISSING).unlink(missing_ok=True)  # of an earlier validation
    else:
        write_text(out / MISSING, missing_texts.missing_lines(found.missing))
    table = guarded_table(found.table)
    text = table.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_text(out / layout.PREDICTIONS, text)
    page = get_template("validation.html.j2", "gimp_fast.external").render(
        found=found,
        kind=_KINDS[found.kind],
        texts=texts,
        missing_texts=missing_texts,
        number_texts=number_texts,
        reads=READS,
        codes=CODES,
        sections=_figures(found, out / layout.FIGURES),
        groups=[(by, list(of)) for by, of in groupby(found.groups, key=lambda group: group.by)],
        about_intervals=WITHOUT_SPREAD if found.kind == "class" else "",
        command=words,
        environment=_flat(versions),
    )
    write_text(out / layout.REPORT, page)
    return out / layout.REPORT


def _figures(found: Validation, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Section -> its figures as the page shows them; figures of an earlier call go away."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        old.unlink()
    kind = _KINDS[found.kind]
    with style.rc():
        sections = {
            "scores": [panels.score_panel(found, kind)],
            "calibration": panels.calibration_panels(found),
            "decision": [
                decision_panel(named, f"{found.patients} new patients") for named in found.curves
            ],
            "groups": [panels.group_panel(found, kind)],
            "missing": [
                panels.missing_panel(curve, kind, found.missing.patients)
                for curve in (found.missing.curves if found.missing else ())
                if curve.score == found.main
            ],
        }
        return {
            name: [written_panel(panel, folder) for panel in some]
            for name, some in sections.items()
        }


def results(found: Validation) -> dict[str, Any]:
    """What ``results.json`` holds, but for the command and the environment."""
    facts = {name: _plain(value) for name, value in vars(found).items() if name not in ("table",)}
    if found.missing is None:
        del facts["missing"]
    left_out = facts["left_out"]
    left_out["known"] = {"count": len(left_out["known"] or {}), "patients": left_out["known"] or {}}
    return {"format": 1, **facts}


def _plain(value: Any) -> Any:
    """As JSON holds it: arrays as lists, what is not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in vars(value)}
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def score_lines(found: Validation) -> str:
    """The text of ``scores.csv``: a line for each score of all patients, and for each group."""
    rows: list[dict[str, Any]] = []
    for score in found.scores.values():
        of_sample = {"all new patients": score.new, "own test patients": score.own}
        if score.single is not None:
            of_sample["all new patients, single models"] = score.single
        for name, one in of_sample.items():
            is_new = name != "own test patients"
            row = {
                "by": "all",
                "group": name,
                "patients": found.patients if is_new else found.own.patients,
                "counts": number_texts.counts_text(found.counts) if is_new else "",
                "score": score.name,
                "drawn": found.drawn.name if is_new else "patients",
            }
            is_compared = name == "all new patients" if score.single is None else "single" in name
            rows.append(row | _numbers(one, score.difference if is_compared else None))
    for group in found.groups:
        row = {
            "by": group.by,
            "group": group.name,
            "patients": group.patients,
            "counts": number_texts.counts_text(group.counts),
            "score": found.main,
            "drawn": group.drawn,
            "reason": group.reason,
        }
        rows.append(row | _numbers(group.score, group.difference))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: guarded(v) if isinstance(v, str) else v for k, v in row.items()})
    return stream.getvalue()


def _numbers(score: Estimate | None, difference: Estimate | None) -> dict[str, str]:
    cells = {}
    if score is not None:
        cells = {name: f"{value:.9g}" for name, value in asdict(score).items()}
    if difference is not None:
        names = ("difference", "difference_low", "difference_high")
        cells |= {n: f"{v:.9g}" for n, v in zip(names, asdict(difference).values(), strict=True)}
    return cells


def _flat(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{key}: {name}", str(one)) for name, one in value.items()]
        else:
            rows.append((key, "" if value is None else str(value)))
    return rows
