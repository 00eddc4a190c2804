"""The tables of an experiment: cells of text as a grid, written as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from gimp_fast.evaluation.calibration import ECE
from gimp_fast.evaluation.comparison import Comparison, Difference
from gimp_fast.evaluation.intervals import Estimate, Spread
from gimp_fast.evaluation.rates import EstimatedShare, Share
from gimp_fast.experiments.paper import Row
from gimp_fast.experiments.results import Group, Results
from gimp_fast.experiments.vectors import NEIGHBOURS
from gimp_fast.files import safe_text
from gimp_fast.runs.score_texts import p_text, signed

NONE = "–"


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

    @property
    def sections(self) -> list[tuple[str, list[tuple[Row, tuple[str, ...]]]]]:
        """Headings over rows, each with its rows."""
        spans = groupby(self.rows, key=lambda line: line[0].section)
        return [(section, list(lines)) for section, lines in spans]


def grids(results: Results) -> dict[str, Grid]:
    """Heading -> table, in the order of the page."""
    tables, title = {}, "Accuracy and AUC"
    if results.experiment.name == "fig2":
        tables["How far apart the classes lie"] = separation_grid(results)
        title = "Accuracy after fine-tuning"
    tables |= {title: main_grid(results), "Further metrics": detail_grid(results)}
    if any(scores.versus for group in results.groups for scores in group.scores.values()):
        title = f"Further differences to {results.experiment.reference_row.title}"
        tables[title] = difference_grid(results)
    every = [scores.by_modality for group in results.groups for scores in group.scores.values()]
    if any(every):
        tables["Each modality alone"] = modality_grid(results)
    if any(group.probes for group in results.groups):
        tables["What pre-training taught the slide encoder"] = probe_grid(results)
    return tables


def main_grid(results: Results) -> Grid:
    """Accuracy, AUC and the comparison of every row, beside the paper's figure."""
    reference = results.experiment.reference_row
    tests = [scores.test for group in results.groups for scores in group.scores.values()]
    several_runs = any(test and test.accuracy_of_runs.sd is not None for test in tests)
    spread = ("Mean ± SD",) if several_runs else ()
    titles = ("Accuracy", *spread, "AUC", f"Difference to {reference.title}")

    def cells(row: Row, group: Group) -> list[str]:
        scores = group.scores[row.key]
        if row.key in results.skipped:
            return [f"left out\n{results.skipped[row.key]}"]
        if scores.test is None:
            return [f"failed\n0 of {scores.of} runs"]
        accuracy, of_runs = scores.test.accuracy, scores.test.accuracy_of_runs
        share = f"{_share(accuracy)} {_interval(accuracy)}"
        if scores.runs < scores.of:
            share += f"; {scores.runs} of {scores.of} runs"
        versus = "reference" if row.key == reference.key else _versus(scores.versus, "accuracy")
        mean = [NONE if of_runs.sd is None else _spread(of_runs)] if several_runs else []
        return [share, *mean, _estimate(scores.test.auc), versus]

    return _grid(results, titles, cells, with_paper=any(row.paper for row in results.rows))


def detail_grid(results: Results) -> Grid:
    """The other metrics, and how many runs they come from."""

    def cells(row: Row, group: Group) -> list[str]:
        scores = group.scores[row.key]
        runs = f"{scores.runs} of {scores.of}"
        if scores.test is None:
            return [NONE] * 6 + [runs]
        test, val = scores.test, _share(scores.val.accuracy)
        rates = map(_estimate, (test.balanced_accuracy, test.f1_macro, test.cross_entropy))
        errors = [f"{error:.3f}" for error in (test.calibration_error, test.brier)]
        return [*rates, *errors, val, runs]

    titles = ("Balanced accuracy", "Macro F1", "Cross-entropy", ECE, "Brier score")
    return _grid(results, (*titles, "Validation accuracy", "Runs"), cells)


def difference_grid(results: Results) -> Grid:
    """Every row against the reference, in AUC and in cross-entropy."""

    def cells(row: Row, group: Group) -> list[str]:
        if row.key == results.experiment.reference:
            return ["reference"] * 2
        versus = group.scores[row.key].versus
        return [_versus(versus, "auc"), _versus(versus, "cross_entropy")]

    return _grid(results, ("AUC", "Cross-entropy"), cells)


def modality_grid(results: Results) -> Grid:
    """Accuracy of models of both modalities that are shown one, and their fusion weight."""

    def cells(row: Row, group: Group) -> list[str]:
        found = group.scores[row.key].by_modality
        if found is None:
            return []
        shares = [NONE if s is None else _share(s) for s in (found.both, found.rna, found.slide)]
        return [*shares, NONE if found.weight is None else _spread(found.weight)]

    titles = ("Slides and RNA", "RNA alone", "Slides alone", "Fusion weight")
    grid = _grid(results, titles, cells)
    return replace(grid, rows=tuple(row for row in grid.rows if set(row[1]) != {NONE}))


def probe_grid(results: Results) -> Grid:
    """Linear classifiers of CLS_img, before and after pre-training."""

    def cells(row: Row, group: Group) -> list[str]:
        found = group.probes.get(row.key)
        if found is None:
            return []
        return [_share(s) for by in (found.train, found.val) for s in (by.drawn, by.pretrained)]

    titles = ("Weights as drawn", "After pre-training")
    fitted = ("fitted on training patients", "fitted on validation patients")
    grid = _grid(results, [f"{title}, {on}" for on in fitted for title in titles], cells)
    return replace(grid, rows=tuple(row for row in grid.rows if set(row[1]) != {NONE}))


def separation_grid(results: Results) -> Grid:
    """How far apart the classes lie after pre-training."""

    def cells(row: Row, group: Group) -> list[str]:
        if row.key not in group.separation:
            reason = results.skipped.get(row.key)
            return [f"left out\n{reason}"] if reason else []
        found = group.separation[row.key]
        return [_spread(found.train), _spread(found.test), _share(found.neighbours)]

    neighbours = f"{NEIGHBOURS} nearest neighbours, test"
    return _grid(results, ("Silhouette, training", "Silhouette, test", neighbours), cells)


def _grid(
    results: Results,
    titles: Sequence[str],
    cells: Callable[[Row, Group], list[str]],
    with_paper: bool = False,
) -> Grid:
    """Columns of these titles for each group of splits; where ``cells`` has too few, dashes."""
    columns = [(group.heading, title) for group in results.groups for title in titles]
    rows = []
    for row in results.rows:
        texts: list[str] = []
        for group in results.groups:
            of_group = cells(row, group)
            texts += of_group + [NONE] * (len(titles) - len(of_group))
        if with_paper:
            texts.append(str(row.paper or NONE).replace(" (", "\n("))
        rows.append((row, tuple(texts)))
    return Grid((*columns, *([("", "Paper")] if with_paper else [])), tuple(rows))


def _versus(versus: Comparison | None, metric: str) -> str:
    difference: Difference | None = versus and getattr(versus, metric)
    if difference is None:
        return NONE
    interval = f"({signed(difference.low)} to {signed(difference.high)})"
    return f"{signed(difference.value)}\n{interval}, {p_text(difference.best_p)}"


def _estimate(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{estimate.value:.3f}\n{_interval(estimate)}"


def _interval(estimate: Estimate) -> str:
    return f"({estimate.low:.3f} to {estimate.high:.3f})"


def _share(share: Share | EstimatedShare) -> str:
    return f"{share.value:.3f}\n{share.k}/{share.n}"


def _spread(spread: Spread) -> str:
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
