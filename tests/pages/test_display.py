"""What a notebook shows of cohorts, models, runs and predictions; names in it are never HTML."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from builders.runs import TINY, train_run

import gimp_fast
from gimp_fast.data import open_cohort
from gimp_fast.inference.ensemble import Ensemble
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.pages.display import shown
from gimp_fast.pages.style import new_figure
from gimp_fast.runs import open_run

HOSTILE = '<script>alert("1")</script><img src=x onerror=y>\u202e\x1b[31m'


class _Shown(HTMLParser):
    """The tags of a display, their attributes, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data + " "


def read(html: str) -> _Shown:
    found = _Shown(html)
    assert found.tags <= {"div", "table", "tr", "th", "td", "b"}
    assert found.attributes <= {"style"}
    assert not {"\u202e", "\x1b"} & set(html)
    assert len(html) < 6000
    return found


@pytest.fixture(scope="module")
def run(cohort_folder, tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("display") / "run", cohort_folder, *TINY)


def test_nothing_is_obeyed_and_nothing_is_endless():
    found = read(shown(HOSTILE, {HOSTILE: HOSTILE, "many": ["x" * 99] * 40}, note=HOSTILE))
    assert found.text.count('<script>alert("1")</script>') == 4
    assert r"\u202e\x1b[31m" in found.text
    assert "…" in found.text


def test_facts_that_are_not_known_are_left_out():
    found = read(shown("title", {"a": None, "b": "", "c": [], "zero": 0}))
    assert found.text.split() == ["title", "zero", "0"]


def test_a_cohort(cohort):
    found = read(cohort._repr_html_())
    for words in (
        "Cohort 'synthetic'", "SYNTHETIC", "40", "SYN-A 20, SYN-B 20", "8 channels, synthetic",
        "60 of 40 patients", "os (survival), burden (regression)", "age, stage", "split_0",
    ):  # fmt: skip
        assert words in found.text
    cohort.name = cohort.encoder = HOSTILE
    cohort.classes = (HOSTILE, "b")
    assert "<script>alert" in read(cohort._repr_html_()).text


def test_a_model_and_an_ensemble(run):
    trained = gimp_fast.load(run)
    found = read(trained._repr_html_())
    for words in ("Trained model: gimp", "SYNTHETIC", "60", "SYN-A, SYN-B", "'synthetic', split"):
        assert words in found.text
    ensemble = Ensemble([trained, trained], run)
    assert "Ensemble of 2 models" in read(ensemble._repr_html_()).text
    trained.classes = ensemble.members[0].classes = (HOSTILE, "b")
    trained.facts["cohort"] |= {"name": HOSTILE, "split": HOSTILE, "encoder": HOSTILE}
    for thing in (trained, ensemble):
        assert "<script>alert" in read(thing._repr_html_()).text


def test_a_run_finished_damaged_and_unfinished(make_run):
    folder = make_run(classes=(HOSTILE[:40], "b"), name=HOSTILE)
    found = read(open_run(folder)._repr_html_())
    assert "test accuracy" in found.text
    assert "<script>alert" in found.text
    metrics = folder / "metrics.json"
    metrics.write_text("{")
    assert "metrics.json: cannot be read" in read(open_run(folder)._repr_html_()).text
    metrics.unlink()
    assert "not finished" in read(open_run(folder)._repr_html_()).text


def test_predictions(run, cohort_folder):
    cohort = open_cohort(cohort_folder)
    predicted = predict_cohort([gimp_fast.load(run)], cohort, cohort.case_ids[:5])
    found = read(predicted._repr_html_())
    assert "case_id, slide_ids, prediction" in found.text
    assert "training-patient" in found.text
    table = predicted.table.rename(columns={"prediction": HOSTILE})
    assert "<script>alert" in read(replace(predicted, table=table)._repr_html_()).text


def test_a_figure_shows_itself_without_pyplot():
    assert new_figure()._repr_png_().startswith(b"\x89PNG")
