"""A table of texts: how numbers look in its cells, and how Markdown and LaTeX show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

from gimp_fast.evaluation.comparison import Difference
from gimp_fast.evaluation.intervals import Estimate, Spread
from gimp_fast.experiments.rows import Row
from gimp_fast.files import safe_text
from gimp_fast.runs.score_texts import p_text, signed

NONE = "–"
MOST_IN_PRINT = 10  # columns that can be read across a page of paper


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    A column has the heading of its group of splits, or none, and its title. A cell has one line,
    and perhaps a second that matters less.
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Row, tuple[str, ...]], ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over columns, each with the number of columns that it spans."""
        spans = groupby(heading for heading, _ in self.columns)
        return [(heading, len(list(columns))) for heading, columns in spans]

    def parts(self, most: int) -> list[Grid]:
        """Tables of at most so many columns beside each other; a group of splits is not torn."""
        ranges, start, end = [], 0, 0
        for _, width in self.groups:
            if start < end and end + width - start > most:
                ranges.append(slice(start, end))
                start = end
            end += width
        return [
            Grid(self.columns[some], tuple((row, cells[some]) for row, cells in self.rows))
            for some in (*ranges, slice(start, end))
        ]

    @property
    def sections(self) -> list[tuple[str, list[tuple[Row, tuple[str, ...]]]]]:
        """Headings over rows, each with its rows."""
        spans = groupby(self.rows, key=lambda line: line[0].section)
        return [(section, list(lines)) for section, lines in spans]


class HasHeading(Protocol):
    """Splits that are reported together."""

    @property
    def heading(self) -> str: ...


Group = TypeVar("Group", bound=HasHeading)


def build_grid(
    rows: Sequence[Row],
    groups: Sequence[Group],
    titles: Sequence[str],
    cells: Callable[[Row, Group], list[str]],
    with_paper: bool = False,
) -> Grid:
    """Columns of these titles for each group of splits; where ``cells`` has too few, dashes."""
    columns = [(group.heading, title) for group in groups for title in titles]
    lines = []
    for row in rows:
        texts: list[str] = []
        for group in groups:
            of_group = cells(row, group)
            texts += of_group + [NONE] * (len(titles) - len(of_group))
        if with_paper:
            texts.append(str(row.paper or NONE).replace(" (", "\n("))
        lines.append((row, tuple(texts)))
    return Grid((*columns, *([("", "Paper")] if with_paper else [])), tuple(lines))


def difference_text(difference: Difference | None) -> str:
    if difference is None:
        return NONE
    interval = f"({signed(difference.low)} to {signed(difference.high)})"
    return f"{signed(difference.value)}\n{interval}, {p_text(difference.best_p)}"


def estimate_text(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{estimate.value:.3f}\n{interval_text(estimate)}"


def interval_text(estimate: Estimate) -> str:
    return f"({estimate.low:.3f} to {estimate.high:.3f})"


def spread_text(spread: Spread) -> str:
    if spread.mean is None:
        return NONE
    mean = f"{spread.mean:.3f}".replace("-", "−")
    return mean if spread.sd is None else f"{mean} ± {spread.sd:.3f}"


def markdown(grid: Grid) -> str:
    """A pipe table; headings of columns name their group if there are several."""
    several = len({heading for heading, _ in grid.columns if heading}) > 1
    heads = [f"{group}: {title}" if several and group else title for group, title in grid.columns]
    lines = [[_md(head) for head in ("Method", *heads)], ["---"] * (len(heads) + 1)]
    for section, rows in grid.sections:
        lines.append([f"*{_md(section)}*"] + [""] * len(heads))
        for row, cells in rows:
            title = f"**{_md(row.title)}**" if row.ours else _md(row.title)
            lines.append([title, *map(_md, cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _md(text: str) -> str:
    return safe_text.markdown(_one_line(text))


def _one_line(cell: str) -> str:
    """The two lines of a cell, one after the other."""
    return " ".join(cell.replace("\n(", " (").replace("\n", ", ").split())


_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": "$-$", "–": "--", "δ": r"$\delta$", "<": "$<$", ">": "$>$",
})  # fmt: skip


def tex(text: str) -> str:
    """Text as LaTeX sets it, in any encoding of the document."""
    return safe_text.visible(_one_line(text), keep="").translate(_LATEX)


def latex_tables(grid: Grid, caption: str, label: str) -> list[str]:
    """A table, or one for each part that fits a page; the parts are numbered."""
    parts = grid.parts(MOST_IN_PRINT)
    if len(parts) == 1:
        return [latex(grid, caption, label)]
    return [
        latex(part, f"{caption} Part {number} of {len(parts)}.", f"{label}-{number}")
        for number, part in enumerate(parts, start=1)
    ]


def latex(grid: Grid, caption: str, label: str) -> str:
    """A booktabs table, to be included with ``\\input``."""
    spans, rules, column = [""], [], 2
    for group, width in grid.groups:
        head = rf"\multicolumn{{{width}}}{{c}}{{{tex(group)}}}"
        spans.append(head if group else "& " * (width - 1))
        if group:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
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
        " & ".join(["Method", *(tex(title) for _, title in grid.columns)]) + r" \\",
    ]
    for section, rows in grid.sections:
        lines.append(r"\midrule")
        width = len(grid.columns) + 1
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{tex(section)}}}}} \\")
        for row, cells in rows:
            title = rf"\textbf{{{tex(row.title)}}}" if row.ours else tex(row.title)
            lines.append(" & ".join([title, *map(tex, cells)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(line for line in lines if line) + "\n"
