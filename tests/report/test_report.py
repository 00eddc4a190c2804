"""The report of whole and partial runs: its figures, its page, its table of cases."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from builders.runs import made_up_run

from gimp_fast.report import write_report

ALL_FIGURES = {
    "genes_loss", "genes_accuracy", "genes_auc", "pretrain_reconstruction", "pretrain_triplet",
    "finetune_loss", "finetune_accuracy", "finetune_auc", "confusion", "roc", "calibration",
    "precision_recall", "decision_1", "tsne_pretrain", "tsne_finetune",
}  # fmt: skip


class _Page(HTMLParser):
    """Collects tags with their attributes and the visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def _page(run) -> _Page:
    return _Page(write_report(run).read_text(encoding="utf-8"))


def _drawn(run) -> set[str]:
    return {file.stem for file in (run / "figures").glob("*.svg")}


@pytest.fixture(scope="module")
def drawn_run(tmp_path_factory):
    """A run with its report; not to be changed."""
    run = made_up_run(tmp_path_factory.mktemp("report") / "run")
    write_report(run)
    return run


@pytest.fixture(scope="module")
def html(drawn_run) -> str:
    return (drawn_run / "report.html").read_text(encoding="utf-8")


def test_every_figure_is_written_twice(drawn_run):
    run = drawn_run
    assert _drawn(run) == ALL_FIGURES
    assert {file.stem for file in (run / "figures").glob("*.png")} == ALL_FIGURES
    for file in (run / "figures").glob("*.svg"):
        assert ET.parse(file).getroot().tag.endswith("svg")
    for file in (run / "figures").glob("*.png"):
        assert file.read_bytes().startswith(b"\x89PNG")


def test_page_is_self_contained_and_has_alt_texts(html):
    page = _Page(html)
    targets = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data")
    ]
    assert targets
    assert [target for target in targets if not target.startswith(("#", "data:"))] == []
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    policy = next(a["content"] for tag, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == len(ALL_FIGURES)
    assert all(len(attributes["aria-label"]) > 20 for attributes in drawings)


def test_ids_are_unique_and_every_reference_has_its_target(html):
    ids = [attributes["id"] for _, attributes in _Page(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)) != set()
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', html)
    assert set(references) <= set(ids)


def test_headline_gives_count_and_interval(drawn_run, html):
    metrics = json.loads((drawn_run / "metrics.json").read_text(encoding="utf-8"))
    accuracy, text = metrics["test"]["accuracy"], _Page(html).text
    assert f"{accuracy['k']} of {accuracy['n']} patients" in text
    assert f"95 % CI {accuracy['low']:.3f}–{accuracy['high']:.3f}" in text


def test_only_synthetic_cohorts_have_a_banner(make_run, html):
    assert "Synthetic cohort." in _Page(html).text
    run = make_run(synthetic=False, patients=8, epochs=1, stages=("finetune",))
    assert "Synthetic cohort." not in _page(run).text


def test_names_from_the_data_are_escaped(make_run):
    classes = ("a<b>", "$x$ & _y", "_z --> 'q'")
    run = make_run(classes=classes, name="<script>x</script>", epochs=2, stages=("finetune",))
    html = write_report(run).read_text("utf-8")
    assert "<script>x" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "<h4>Net benefit: a&lt;b&gt;</h4>" in html
    assert "a probability of “a&lt;b&gt;”" in html
    assert 'aria-label="Net benefit: a&lt;b&gt;; at a threshold' in html


@pytest.mark.parametrize("count", [3, 7, 8, 14])
def test_many_classes(make_run, count):
    classes = tuple(f"carcinoma of a long name {i}" for i in range(count))
    run = make_run(classes=classes, epochs=2, stages=("finetune",))
    write_report(run)
    assert {"confusion", "roc", "precision_recall"} <= _drawn(run)


@pytest.mark.parametrize("stages", [("finetune",), ("genes", "finetune"), ("genes",)], ids="-".join)
def test_a_stage_that_was_not_run_is_explained(make_run, stages):
    run = make_run(stages=stages, modalities="slide")
    page = _page(run)
    others = {"confusion", "roc", "precision", "calibration", "decision", "tsne"}
    assert {name.split("_")[0] for name in _drawn(run)} - others == set(stages)
    assert "This run has no such stage" in page.text
    assert "embeddings.npz has no embeddings of this stage" in page.text


def test_few_patients_have_no_tsne_and_no_test_figures(make_run):
    run = make_run(patients=8, epochs=1)
    page = _page(run)
    assert _drawn(run).isdisjoint(
        {
            "tsne_pretrain", "tsne_finetune", "confusion", "roc", "precision_recall", "calibration",
            "decision_1",
        }
    )  # fmt: skip
    assert "t-SNE of 8 patients shows nothing" in page.text
    assert "predictions.csv has no test case" in page.text


def test_test_set_of_one_class_has_no_roc_and_removes_the_old_one(make_run):
    run = make_run(stages=("finetune",))
    write_report(run)
    before = _drawn(run)
    table = (run / "predictions.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in table if ",test,LUSC," not in line]
    (run / "predictions.csv").write_text("".join(kept), encoding="utf-8")
    page = _page(run)
    assert "roc" in before
    assert _drawn(run) == before - {"roc", "precision_recall", "decision_1"}
    assert "the curve needs test cases of at least two classes" in page.text
    assert "a ROC curve needs test cases of at least two classes" in page.text


@pytest.mark.parametrize(
    ("values", "reason"),
    [(np.ones((60, 4)), "same embedding"), (np.full((60, 4), np.nan), "not finite")],
    ids=["constant", "nan"],
)
def test_embeddings_that_cannot_be_drawn_are_explained(make_run, values, reason):
    run = make_run(stages=("finetune",))
    with np.load(run / "embeddings.npz") as archive:
        arrays = dict(archive)
    np.savez(run / "embeddings.npz", **{**arrays, "finetune": values})
    assert reason in _page(run).text
    assert "tsne_finetune" not in _drawn(run)


def test_losses_that_are_not_finite_leave_gaps(make_run):
    run = make_run(stages=("finetune",), epochs=3)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    rows[1]["train"]["loss"] = float("nan")
    rows[2]["val"]["auc"] = None
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "metrics.jsonl").write_text(lines, encoding="utf-8")
    write_report(run)
    assert {"finetune_loss", "finetune_auc"} <= _drawn(run)


def test_same_run_gives_the_same_page(drawn_run, html):
    assert write_report(drawn_run) == drawn_run / "report.html"
    assert (drawn_run / "report.html").read_text(encoding="utf-8") == html


def _rows(html: str) -> list[tuple[str, str]]:
    """Markup before and after the case id of every row of the table of cases."""
    return re.findall(
        r'<tr( class=wrong)?><th scope="row">MADE-UP-\d+</th>(.*?)</tr>', html, flags=re.S
    )


def test_misclassified_cases_come_first_most_confident_on_top(make_run):
    run = make_run(classes=("a", "b", "c"), patients=150, stages=("genes",))
    rows = _rows(write_report(run).read_text(encoding="utf-8"))
    tests = [(bool(wrong), row) for wrong, row in rows if "<td>test</td>" in row]
    wrong = [is_wrong for is_wrong, _ in tests]
    assert sum(wrong) >= 2
    assert wrong == sorted(wrong, reverse=True)
    confidence = [max(map(float, re.findall(r">([\d.]+)<", row))) for is_wrong, row in tests]
    assert confidence[: sum(wrong)] == sorted(confidence[: sum(wrong)], reverse=True)
    table = (run / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == len(table) - 1


def test_the_table_needs_no_script(html):
    page = _Page(html)
    form = next(attributes for tag, attributes in page.tags if tag == "form")
    assert "hidden" in form
    assert page.text.count("MADE-UP-") >= 20


def test_many_classes_have_two_columns_of_probabilities(make_run):
    run = make_run(classes=tuple("abcdef"), epochs=2, patients=90, stages=("genes",))
    page = _page(run)
    assert "P(true class)" in page.text
    assert "P(a)" not in page.text


def test_other_methods_are_called_by_name_and_need_no_stages(make_run):
    run = make_run(stages=("finetune",), modalities="slide")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (run / "metrics.json").write_text(json.dumps(metrics | {"method": "clam_sb"}), "utf-8")
    page = _page(run)
    assert "CLAM-SB on made-up cohort" in page.text
    assert "This run has no such stage" not in page.text
    assert "After pre-training" not in page.text
    assert "CLSpat" not in page.text


def _with_metrics(run, **more):
    """The run with more in its metrics."""
    file = run / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(metrics | more), encoding="utf-8")
    return run


def _modalities(run, **changes):
    """Scores of each modality alone, made of those of the test set."""
    test = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]
    gap = {"value": -0.021, "low": -0.06, "high": 0.018, "p": 0.344}
    alone = test | {"accuracy_difference": gap, "auc_difference": gap | {"p": None}}
    found = {"n": 9, "of": 12, "seen_in_training": True, "both": test, "rna": alone}
    return found | {"slide": alone} | changes


def test_a_run_of_both_says_what_each_modality_contributes(make_run):
    run = make_run(stages=("finetune",))
    fusion = {"weight": 0.0, "chosen_on": 12}
    page = _page(_with_metrics(run, by_modality=_modalities(run), fusion=fusion))
    assert "What each modality contributes" in page.text
    assert "slides are not used" in page.text
    assert "RNA alone" in page.text
    assert "slides alone" in page.text
    assert "−0.021 (−0.060 to +0.018), p = 0.344" in page.text
    assert "Only the 9 of 12 test patients who have both are compared" in page.text
    assert "0: slides are not used" in page.text


def test_a_run_of_covariates_says_what_is_left_without_them(make_run):
    run = make_run(stages=("finetune",), modalities="rna")
    alone = _modalities(run)["rna"]
    more = {"reads": "rna", "with_covariates": 7, "without_covariates": alone, "covariates": alone}
    page = _page(_with_metrics(run, by_modality=_modalities(run, rna=None, slide=None, **more)))
    assert "RNA, without covariates" in page.text
    assert "covariates alone" in page.text
    assert "RNA and covariates" in page.text
    assert "RNA alone" not in page.text
    assert "Of them, 7 have covariates." in page.text
    assert "AUC against both" in page.text


def test_a_model_that_cannot_do_without_slides_says_why(make_run):
    run = make_run(stages=("finetune",))
    changes = {"rna": None, "refused": {"rna": "ValueError: needs <slides>"}}
    page = _page(_with_metrics(run, by_modality=_modalities(run, **changes)))
    assert "not possible: ValueError: needs <slides>" in page.text


def test_runs_of_an_older_version_say_nothing_of_modalities(html):
    assert "What each modality contributes" not in _Page(html).text


def test_an_auc_that_does_not_exist_is_said(make_run):
    run = make_run(stages=("finetune",))
    test = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]
    page = _page(_with_metrics(run, test=test | {"auc": None}))
    assert "AUC undefined, because a class has no patient here" in page.text


def test_no_figure_without_a_drawing_and_no_stage_that_the_model_cannot_have(make_run):
    page = _page(make_run(stages=("pretrain", "finetune"), modalities="slide"))
    figures = sum(tag == "figure" for tag, _ in page.tags)
    assert figures == sum(tag == "svg" for tag, _ in page.tags)
    assert "Genes" not in page.text
    assert "This run has no such stage" not in page.text


def test_only_the_first_cases_are_printed(make_run, html):
    run = make_run(patients=600, stages=("finetune",), epochs=1)
    html = write_report(run).read_text(encoding="utf-8")
    assert "The first 25 of 240 cases are printed" in html
    assert "nth-child(n + 26) { display: none; }" in html
