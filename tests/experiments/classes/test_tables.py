"""Cells, and the same grid as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from gimp_fast.evaluation.comparison import Comparison, Difference, McNemar
from gimp_fast.evaluation.intervals import Estimate, Spread
from gimp_fast.evaluation.rates import Share
from gimp_fast.experiments.catalog import experiment
from gimp_fast.experiments.classes.csv_table import csv_text
from gimp_fast.experiments.classes.results import (
    ByModality,
    EstimatedShare,
    Group,
    Results,
    RowScores,
    Scores,
    Validation,
)
from gimp_fast.experiments.classes.tables import detail_grid, grids, main_grid
from gimp_fast.experiments.grid import MOST_IN_PRINT, Grid, latex, latex_tables, markdown, tex
from gimp_fast.experiments.resampling import Units
from gimp_fast.experiments.rows import PaperFigure, Row

VERSUS = Comparison(
    Difference(-0.0213, -0.04, 0.0001, 0.03, 0.06, 50, McNemar(1, 8, 0.0391, 0.0782)),
    None,
    Difference(0.05, 0.01, 0.09, 0.002, 0.004, 50),
)
PAPER = PaperFigure("0.7737", "147/190")


def estimate(value):
    return Estimate(value, value - 0.05, value + 0.02)


def scores(k=45, n=50, runs=5, of=5, versus=None, auc=0.95):
    share = k / n
    test = Scores(
        predictions=n, patients=n,
        accuracy=EstimatedShare(share, share - 0.05, share + 0.02, k, n),
        accuracy_of_runs=Spread(share, 0.031, (share,)),
        auc=None if auc is None else estimate(auc),
        balanced_accuracy=estimate(0.89), f1_macro=estimate(0.88), cross_entropy=estimate(0.31),
        calibration_error=0.041, brier=0.081,
    )  # fmt: skip
    return RowScores(runs, of, {}, test, Validation(Share(0.875, 35, 40)), versus)


def row(key="abmil", paper=None):
    overrides = ("model.gated=false",)
    ours = key == "gimp"
    return Row(key, "Slides & more", "A_method", "abmil", "slide", overrides, paper, ours)


def table(rows, skipped=None, **groups):
    """Rows, and for each group of splits the scores of each row."""
    return Results(
        experiment("table1"), None, tuple(rows), skipped or {},
        tuple(
            Group(
                name, (), (), Units(0, None), {}, {},
                dict(zip([r.key for r in rows], of_rows, strict=True)), {},
            )
            for name, of_rows in groups.items()
        ), (), {}, 0,
    )  # fmt: skip


WHOLE = table([row(paper=PAPER), row("gimp")], random=[scores(versus=VERSUS), scores(k=46)])


def test_main_cells_say_counts_interval_and_p():
    (_, first), (_, second) = main_grid(WHOLE).rows
    assert first == (
        "0.900\n45/50 (0.850 to 0.920)", "0.900 ± 0.031", "0.950\n(0.900 to 0.970)",
        "−0.021\n(−0.040 to 0.000), p = 0.078", "0.7737\n(147/190)",
    )  # fmt: skip
    assert second[3:] == ("reference", "–")
    text = markdown(main_grid(WHOLE))
    assert text.count("| **A\\_method** |") == text.count("| A\\_method |") == 1


def test_cells_of_rows_that_are_not_whole():
    rows = [row("snn"), row("abmil"), row("dsmil")]
    of_rows = [RowScores(0, 0, {}), RowScores(0, 5, {}), scores(runs=3, auc=None)]
    results = table(rows, {"snn": "needs RNA"}, random=of_rows)
    cells = [cells for _, cells in main_grid(results).rows]
    assert cells[0][0] == "left out\nneeds RNA"
    assert cells[1][0] == "failed\n0 of 5 runs"
    assert cells[2][0].endswith("; 3 of 5 runs")
    assert cells[2][2:] == ("–", "–")
    details = [cells for _, cells in detail_grid(results).rows]
    assert details[1] == ("–", "–", "–", "–", "–", "–", "0 of 5")
    assert details[2] == (
        "0.890\n(0.840 to 0.910)", "0.880\n(0.830 to 0.900)", "0.310\n(0.260 to 0.330)",
        "0.041", "0.081", "0.875\n35/40", "3 of 5",
    )  # fmt: skip


def test_groups_of_splits_are_groups_of_columns():
    grid = main_grid(table([row()], random=[scores()], site=[scores(k=40)]))
    assert grid.groups == [("random splits", 4), ("site splits", 4)]
    assert main_grid(table([row()], split=[scores()])).groups == [("all splits", 4)]
    text = markdown(grid)
    assert "| random splits: Accuracy |" in text
    assert "| site splits: AUC |" in text
    assert r"\multicolumn{4}{c}{random splits}" in latex(grid, "c", "l")
    assert r"\cmidrule(lr){6-9}" in latex(grid, "c", "l")
    assert "| 0.900, 45/50 (0.850 to 0.920) |" in text


def test_a_wide_table_is_cut_between_groups_of_splits():
    columns = tuple((heading, title) for heading in "abc" for title in ("AUC", "Brier"))
    grid = Grid(columns, ((row(), tuple("123456")),))
    assert [part.rows[0][1] for part in grid.parts(5)] == [("1", "2", "3", "4"), ("5", "6")]
    assert [part.groups for part in grid.parts(1)] == [[("a", 2)], [("b", 2)], [("c", 2)]]
    assert grid.parts(6) == [grid]


def test_a_table_that_is_too_wide_for_paper_is_several_in_latex():
    columns = tuple((heading, title) for heading in "abc" for title in "12345")
    wide = Grid(columns, ((row(), tuple("x" * 15)),))
    assert len(columns) > MOST_IN_PRINT
    first, second = latex_tables(wide, "All.", "tab:x")
    assert r"\caption{All. Part 1 of 2.}" in first
    assert r"\label{tab:x-2}" in second
    assert (first.count(r"\cmidrule"), second.count(r"\cmidrule")) == (2, 1)
    narrow = wide.parts(5)[0]
    assert latex_tables(narrow, "All.", "tab:x") == [latex(narrow, "All.", "tab:x")]


def test_what_markdown_and_latex_read_as_signs_is_escaped():
    odd = Row("odd", "S_1 & *2*", "50 % of $x$ #1 {a} ~^\\", "abmil", "slide", ours=True)
    grid = Grid((("", "P|Q"),), ((odd, ("p < 0.001\n(1 − δ)",)),))
    text = markdown(grid)
    assert text.splitlines() == [
        r"| Method | P\|Q |",
        "| --- | --- |",
        r"| *S\_1 &amp; \*2\** |  |",
        r"| **50 % of $x$ #1 {a} ~^\\** | p &lt; 0.001 (1 − δ) |",
    ]
    lines = latex(grid, "100 % & more", "tab:x")
    assert r"\caption{100 \% \& more}" in lines
    assert r"\emph{S\_1 \& *2*}" in lines
    assert r"p $<$ 0.001 (1 $-$ $\delta$) \\" in lines
    assert tex("{a} ~^\\") == r"\{a\} \textasciitilde{}\textasciicircum{}\textbackslash{}"


def test_latex_is_balanced_and_every_line_has_all_cells():
    lines = latex(main_grid(WHOLE), "caption", "label").splitlines()
    text = "\n".join(lines)
    assert text.count("{") == text.count("}")
    body = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count(" & ") for line in body} == {5}
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}}", r"\end{table}"):
        assert rule in lines


def test_csv_has_every_number_and_empty_fields_for_none():
    results = table(
        [row(paper=PAPER)], random=[scores(versus=VERSUS, auc=None)], site=[scores(k=40)]
    )
    found = list(csv.DictReader(io.StringIO(csv_text(results))))
    assert [line["splits"] for line in found] == ["random", "site"]
    assert found[0]["correct"] == "45"
    assert found[0]["predictions"] == "50"
    assert (found[0]["val_correct"], found[0]["val_predictions"]) == ("35", "40")
    assert float(found[0]["difference"]) == -0.0213
    assert found[0]["mcnemar_only_reference"] == "8"
    assert found[0]["auc"] == found[1]["p"] == ""
    assert found[0]["paper_counts"] == "147/190"
    assert csv_text(table([])).splitlines() == [",".join(found[0])]


def test_each_modality_alone_is_a_table_of_the_rows_that_have_it():
    alone = ByModality(Share(0.9, 45, 50), Share(0.8, 40, 50), None, Spread(0.3, None, (0.3,)))
    of_rows = [scores(), replace(scores(), by_modality=alone)]
    tables = grids(table([row(), row("gimp")], random=of_rows))
    titles = [title for _, title in tables["Each modality alone"].columns]
    assert titles == ["Slides and RNA", "RNA alone", "Slides alone", "Fusion weight"]
    ((shown, cells),) = tables["Each modality alone"].rows
    assert shown.key == "gimp"
    assert cells == ("0.900\n45/50", "0.800\n40/50", "–", "0.300")
    assert "Each modality alone" not in grids(WHOLE)
    lines = list(csv.DictReader(io.StringIO(csv_text(table([row("gimp")], random=of_rows[1:])))))
    assert (lines[0]["rna_alone_correct"], lines[0]["slide_alone_correct"]) == ("40", "")


def test_a_table_for_a_spreadsheet_has_no_formula():
    odd = Row("odd", "=cmd|' /C calc'!A0", "@SUM(1)", "abmil", "slide")
    text = csv_text(table([odd], random=[scores()]))
    assert "'=cmd|' /C calc'!A0" in text
    assert "'@SUM(1)" in text
