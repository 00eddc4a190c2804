"""Single figures of a run, for a notebook."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from builders.cohorts import cohort_of_gaps
from builders.runs import TINY, train_run
from matplotlib.figure import Figure

from gimp_fast.errors import GimpError
from gimp_fast.report import plot_attention, plot_confusion, plot_curves, plot_roc, plot_survival
from gimp_fast.runs import open_run


def words(figure: Figure) -> str:
    """All text of a figure."""
    found = [label.get_text() for axes in figure.axes for label in axes.texts]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        found += [] if (legend := axes.get_legend()) is None else map(_text, legend.texts)
    found += [_text(label) for legend in figure.legends for label in legend.texts]
    return " | ".join(found)


def _text(label) -> str:
    return label.get_text()


def test_curves_roc_and_confusion_of_a_run_and_of_its_folder(make_run):
    folder = make_run()
    for run in (folder, str(folder), open_run(folder)):
        assert "best epoch (8)" in words(plot_curves(run))
    assert "Masked L1" in words(plot_curves(folder, "pretrain", "reconstruction"))
    assert "AUC 0.940" in words(plot_roc(folder))
    assert "True class" in words(plot_confusion(folder))


@pytest.mark.parametrize(
    ("plot", "asked", "error"),
    [
        (plot_curves, {"stage": "finetun"}, "found no 'finetun'; .* did you mean 'finetune'"),
        (
            plot_curves,
            {"quantity": "los"},
            "finetune: found no 'los'; .* accuracy, auc, loss",
        ),
        (plot_survival, {}, "found no 'kaplan_meier'; expected one of confusion, roc"),
        (plot_roc, {"target": "os"}, "found no 'os'"),
    ],
    ids=["stage", "quantity", "survival", "target"],
)
def test_what_a_run_has_not_is_said(make_run, plot, asked, error):
    with pytest.raises(GimpError, match=error):
        plot(make_run(), **asked)


def test_without_test_patients_the_reason_is_said(make_run):
    with pytest.raises(GimpError, match=r"Left out: predictions\.csv has no test case"):
        plot_confusion(make_run(patients=8))


def test_no_run_is_one_error(tmp_path):
    with pytest.raises(GimpError, match="no such run folder"):
        plot_roc(tmp_path / "nothing")


def test_each_of_several_targets(tmp_path):
    cohort = cohort_of_gaps(tmp_path)
    targets = 'target=["os", "grade"]'
    run = train_run(tmp_path / "run", cohort, *TINY, targets)
    assert "At risk" in words(plot_survival(run, "os"))
    assert "Predicted class" in words(plot_confusion(run, "grade"))
    assert "C-index" in words(plot_curves(run, quantity="os:c_index"))
    with pytest.raises(GimpError, match="found no target; the run has os, grade"):
        plot_survival(run)


@pytest.fixture
def maps(tmp_path) -> Path:
    """A folder as `heatmap` writes it: a patient with two slides, and one without places."""
    slides = []
    for number in range(2):
        folder = tmp_path / "maps" / f"slide_{number}"
        folder.mkdir(parents=True)
        with (folder / "patches.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["row", "x", "y", "patch_size", "percentile"])
            rows.writerows([[i, 256 * i, 512 * i, 200, 10 * i] for i in range(7)])
            rows.writerow([7, "", "", "", 50])
        files = {"patches": "patches.csv"}
        slides.append({"slide_id": f"slide_{number}", "folder": folder.name, "files": files})
    patients = [{"case_id": "A", "slides": slides}, {"case_id": "B", "slides": []}]
    (tmp_path / "maps" / "heatmaps.json").write_text(json.dumps({"patients": patients}))
    return tmp_path / "maps"


def test_attention_is_drawn_where_patches_lie(maps):
    figure = plot_attention(maps, "A")
    drawn = figure.axes[:2]
    assert [axes.get_title() for axes in drawn] == ["slide_0", "slide_1"]
    for axes in drawn:
        (squares,) = axes.collections
        for i, path in enumerate(squares.get_paths()):
            corners = {tuple(corner) for corner in path.vertices.tolist()}
            (x, y) = 256 * i, 512 * i
            assert corners == {(x, y), (x + 200, y), (x + 200, y + 200), (x, y + 200)}
        assert squares.get_array().tolist() == [10 * i for i in range(7)]
        assert axes.yaxis_inverted()
    assert "Percentile of attention" in words(figure)


def test_attention_of_a_run_is_in_its_heatmaps(make_run, maps):
    run = make_run()
    maps.rename(run / "heatmaps")
    assert len(plot_attention(open_run(run), "A").axes) == 3
    assert len(plot_attention(run, "A").axes) == 3


def test_a_patient_without_a_map_is_named(maps):
    with pytest.raises(GimpError, match="found no 'C'; expected one of A, B"):
        plot_attention(maps, "C")
    with pytest.raises(GimpError, match="the patches of 'B' have no places to draw"):
        plot_attention(maps, "B")
