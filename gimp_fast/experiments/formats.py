"""A table as files: the grid as Markdown and LaTeX, and every number as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from gimp_fast.experiments.paper import Experiment
from gimp_fast.experiments.tables import Grid


def markdown(grid: Grid, first: str = "Method") -> str:
    """A pipe table; groups of columns are named in their headings."""
    several = len({column.group for column in grid.columns if column.group}) > 1
    heads = [first] + [
        f"{column.group}: {column.title}" if several and column.group else column.title
        for column in grid.columns
    ]
    lines = [_pipes(map(_md, heads)), _pipes(["---"] * len(heads))]
    section = None
    for row in grid.rows:
        if row.section != section:
            section = row.section
            lines.append(_pipes([f"*{_md(section)}*"] + [""] * len(grid.columns)))
        title = f"**{_md(row.title)}**" if row.strong else _md(row.title)
        lines.append(_pipes([title, *map(_md, row.cells)]))
    return "\n".join(lines) + "\n"


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(text: str) -> str:
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, "\\" + sign)
    return one_line(text)


def one_line(cell: str) -> str:
    """The two lines of a cell behind each other."""
    return " ".join(cell.replace("\n(", " (").replace("\n", ", ").split())


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": "$-$", "–": "--", "δ": r"$\delta$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def tex(text: str) -> str:
    """Text as LaTeX sets it, in any encoding of the document."""
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text))


def latex(grid: Grid, caption: str, label: str, first: str = "Method") -> str:
    """A booktabs table, to be read in with ``\\input``."""
    spans, heads, rules, column = [""], [""], [], 2
    for group, width in grid.groups:
        spans.append(
            rf"\multicolumn{{{width}}}{{c}}{{{tex(group)}}}" if group else "& " * (width - 1)
        )
        if group:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    heads = [tex(first), *(tex(c.title) for c in grid.columns)]
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(caption)}}}",
        rf"\label{{{label}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{l{'l' * len(grid.columns)}}}",
        r"\toprule",
        " & ".join(spans) + r" \\",
        " ".join(rules),
        " & ".join(heads) + r" \\",
    ]
    section = None
    for row in grid.rows:
        if row.section != section:
            section = row.section
            lines.append(r"\midrule")
            width = len(grid.columns) + 1
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{tex(section)}}}}} \\")
        title = rf"\textbf{{{tex(row.title)}}}" if row.strong else tex(row.title)
        lines.append(" & ".join([title, *map(tex, row.cells)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(line for line in lines if line) + "\n"


CSV_COLUMNS = (
    "experiment", "section", "row", "title", "method", "modalities", "overrides", "splits",
    "runs", "runs_wanted", "skipped", "patients", "predictions", "correct",
    "accuracy", "accuracy_low", "accuracy_high", "accuracy_mean", "accuracy_sd",
    "auc", "auc_low", "auc_high", "balanced_accuracy", "balanced_accuracy_low",
    "balanced_accuracy_high", "f1_macro", "f1_macro_low", "f1_macro_high", "calibration_error",
    "brier", "val_accuracy", "val_correct", "val_predictions", "difference", "difference_low",
    "difference_high", "p", "p_holm", "mcnemar_only_this", "mcnemar_only_reference", "mcnemar_p",
    "mcnemar_p_holm", "paper_accuracy", "paper_counts",
)  # fmt: skip


def csv_text(experiment: Experiment, rows: Sequence[dict[str, Any]]) -> str:
    """A line for each row and group of splits, with every number at full precision."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        for group, numbers in row["groups"].items():
            writer.writerow(_csv_row(experiment, row, group, numbers))
    return buffer.getvalue()


def _csv_row(experiment: Experiment, row: dict, group: str, numbers: dict) -> dict[str, Any]:
    line: dict[str, Any] = {
        "experiment": experiment.name, "section": row["section"], "row": row["key"],
        "title": row["title"], "method": row["method"], "modalities": row["modalities"],
        "overrides": " ".join(row["overrides"]), "splits": group, "runs": numbers["runs"],
        "runs_wanted": numbers["of"], "skipped": row["skipped"] or "",
    }  # fmt: skip
    if row["paper"]:
        line["paper_accuracy"] = row["paper"]["printed"]
        line["paper_counts"] = row["paper"]["counts"] or ""
    test = numbers["test"]
    if test is None:
        return line
    line |= {name: test[name] for name in ("patients", "predictions", "calibration_error", "brier")}
    for name in ("accuracy", "auc", "balanced_accuracy", "f1_macro"):
        estimate = test[name] or {"value": "", "low": "", "high": ""}
        line |= {name: estimate["value"]}
        line |= {f"{name}_{end}": estimate[end] for end in ("low", "high")}
    sd = test["accuracy_of_runs"]["sd"]
    line |= {
        "correct": test["accuracy"]["k"],
        "accuracy_mean": test["accuracy_of_runs"]["mean"],
        "accuracy_sd": "" if sd is None else sd,
    }
    val = numbers["val"]["accuracy"]
    line |= {"val_accuracy": val["value"], "val_correct": val["k"], "val_predictions": val["n"]}
    versus = numbers["versus"]
    if versus:
        line |= {
            "difference": versus["value"], "difference_low": versus["low"],
            "difference_high": versus["high"], "p": versus["p"], "p_holm": versus["p_holm"],
        }  # fmt: skip
        if exact := versus["mcnemar"]:
            line |= {f"mcnemar_{name}": value for name, value in exact.items()}
    return line
