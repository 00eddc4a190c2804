"""The tables of an experiment on classes, as grids of text."""

from __future__ import annotations

from dataclasses import replace

from gimp_fast.evaluation.calibration import ECE
from gimp_fast.evaluation.comparison import Comparison
from gimp_fast.evaluation.rates import EstimatedShare, Share
from gimp_fast.experiments.classes.results import Group, Results
from gimp_fast.experiments.classes.vectors import NEIGHBOURS
from gimp_fast.experiments.grid import (
    NONE,
    Grid,
    build_grid,
    difference_text,
    estimate_text,
    interval_text,
    spread_text,
)
from gimp_fast.experiments.rows import Row


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
        share = f"{_share(accuracy)} {interval_text(accuracy)}"
        if scores.runs < scores.of:
            share += f"; {scores.runs} of {scores.of} runs"
        versus = "reference" if row.key == reference.key else _versus(scores.versus, "accuracy")
        mean = [NONE if of_runs.sd is None else spread_text(of_runs)] if several_runs else []
        return [share, *mean, estimate_text(scores.test.auc), versus]

    return build_grid(
        results.rows,
        results.groups,
        titles,
        cells,
        with_paper=any(row.paper for row in results.rows),
    )


def detail_grid(results: Results) -> Grid:
    """The other metrics, and how many runs they come from."""

    def cells(row: Row, group: Group) -> list[str]:
        scores = group.scores[row.key]
        runs = f"{scores.runs} of {scores.of}"
        if scores.test is None:
            return [NONE] * 6 + [runs]
        test, val = scores.test, _share(scores.val.accuracy)
        rates = map(estimate_text, (test.balanced_accuracy, test.f1_macro, test.cross_entropy))
        errors = [f"{error:.3f}" for error in (test.calibration_error, test.brier)]
        return [*rates, *errors, val, runs]

    titles = ("Balanced accuracy", "Macro F1", "Cross-entropy", ECE, "Brier score")
    return build_grid(results.rows, results.groups, (*titles, "Validation accuracy", "Runs"), cells)


def difference_grid(results: Results) -> Grid:
    """Every row against the reference, in AUC and in cross-entropy."""

    def cells(row: Row, group: Group) -> list[str]:
        if row.key == results.experiment.reference:
            return ["reference"] * 2
        versus = group.scores[row.key].versus
        return [_versus(versus, "auc"), _versus(versus, "cross_entropy")]

    return build_grid(results.rows, results.groups, ("AUC", "Cross-entropy"), cells)


def modality_grid(results: Results) -> Grid:
    """Accuracy of models of both modalities that are shown one, and their fusion weight."""

    def cells(row: Row, group: Group) -> list[str]:
        found = group.scores[row.key].by_modality
        if found is None:
            return []
        shares = [NONE if s is None else _share(s) for s in (found.both, found.rna, found.slide)]
        return [*shares, NONE if found.weight is None else spread_text(found.weight)]

    titles = ("Slides and RNA", "RNA alone", "Slides alone", "Fusion weight")
    grid = build_grid(results.rows, results.groups, titles, cells)
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
    grid = build_grid(
        results.rows, results.groups, [f"{title}, {on}" for on in fitted for title in titles], cells
    )
    return replace(grid, rows=tuple(row for row in grid.rows if set(row[1]) != {NONE}))


def separation_grid(results: Results) -> Grid:
    """How far apart the classes lie after pre-training."""

    def cells(row: Row, group: Group) -> list[str]:
        if row.key not in group.separation:
            reason = results.skipped.get(row.key)
            return [f"left out\n{reason}"] if reason else []
        found = group.separation[row.key]
        return [spread_text(found.train), spread_text(found.test), _share(found.neighbours)]

    neighbours = f"{NEIGHBOURS} nearest neighbours, test"
    return build_grid(
        results.rows,
        results.groups,
        ("Silhouette, training", "Silhouette, test", neighbours),
        cells,
    )


def _versus(versus: Comparison | None, metric: str) -> str:
    return difference_text(versus and getattr(versus, metric))


def _share(share: Share | EstimatedShare) -> str:
    return f"{share.value:.3f}\n{share.k}/{share.n}"
