"""The README: short, with a picture, code that runs, and figures that its result files have."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gimp_fast
from gimp_fast.data.synthetic.patients import SyntheticConfig, write_synthetic_cohort

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MOST_WORDS, MOST_BYTES = 900, 400_000

if not (ROOT / "mkdocs.yml").is_file():
    pytest.skip("the tests lie without the documentation", allow_module_level=True)


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def result(name: str) -> dict:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def rows_of(name: str) -> dict[str, dict]:
    return {row["key"]: row["groups"] for row in result(name)["rows"]}


def site_accuracy(row: str) -> dict:
    return rows_of("tcga-nsclc/table1.json")[row]["site"]["test"]["accuracy"]


def decimals(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def test_it_is_short_and_begins_with_what_it_is(readme):
    assert len(readme.split()) <= MOST_WORDS
    order = ["docs/images/strip.png", "## Install", "## Four verbs", "## Eight lines of Python"]
    places = [readme.index(words) for words in order]
    assert places == sorted(places)
    assert readme[: places[0]].count("\n") < 12
    assert "not for clinical use" in readme


def test_its_three_figures_are_those_of_their_files(readme):
    gimp, baseline = site_accuracy("gimp"), site_accuracy("logistic_regression_rna")
    assert f"**{gimp['k']} of {gimp['n']}** patients of other hospitals" in readme
    assert f"**{baseline['k']} of {baseline['n']}** by logistic regression of 50 genes" in readme

    rows = result("cpu-nystrom_attention.json")["results"]["fp32-batch1"]["rows"]
    both = [row for row in rows if (row["n"], row["mode"]) == (6000, "forward + backward")]
    ours, peer = (
        next(row for row in both if row["peer"] == name)
        for name in ("gimp_fast", "nystrom-attention")
    )
    assert f"**{peer['median_ms'] / ours['median_ms']:.1f} times** as fast as nystrom" in readme
    share = 100 * ours["peak_mib"] / peer["peak_mib"]
    assert f"6,000 patches, with {share:.0f} % of its memory" in readme

    longest = result("cpu-heatmap.json")["results"][-1]
    gigabytes = longest["peak_mib"] * 2**20 / 1e9
    size = f"a slide of {longest['patches']:,} patches"
    assert f"**{longest['command_s']:.0f} s** and {gigabytes:.1f} GB for the heatmap of" in readme
    assert size in readme


def test_what_it_says_of_simple_baselines_is_in_the_tables(readme):
    words = " ".join(readme.split())
    rna, gimp = (
        decimals(site_accuracy(row)["value"]) for row in ("logistic_regression_rna", "gimp")
    )
    assert f"logistic regression of RNA is at {rna}, GiMP of slides and RNA at {gimp}" in words
    keys = [key for key in rows_of("tcga-nsclc/table1.json") if key.endswith("_fallback")]
    found = {key: site_accuracy(key)["value"] for key in keys}
    low, high = decimals(min(found.values())), decimals(max(found.values()))
    own = found["gimp_fallback"]
    assert f"all lie between {low} and {high}, and GiMP ({decimals(own)}) is not first" in words
    assert own < max(found.values())


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("gimp", "GiMP of slides and RNA has a C-index of {};"),
        ("ridge_cox_linear_both", "a C-index of {}; so has its linear part alone"),
        ("ridge_cox_both", "ridge Cox has {}"),
        ("ridge_cox_covariates", "age, sex and stage {}."),
        ("gimp_covariates", "With all three it is {}."),
    ],
)
def test_what_it_says_of_survival_is_the_mean_over_cohorts(readme, row, words):
    groups = rows_of("survival/six_cohorts.json")[row]
    values = [group["test"]["c_index"]["value"] for group in groups.values()]
    assert len(values) == 6
    assert words.format(decimals(np.mean(values))) in " ".join(readme.split())


def test_its_picture_is_there_and_small(readme):
    (name,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    file = ROOT / name
    assert file.stat().st_size <= MOST_BYTES
    with Image.open(file) as picture:
        assert picture.width > 2 * picture.height


def test_the_comparison_in_the_picture_is_that_of_the_table():
    spec = importlib.util.spec_from_file_location("strip", ROOT / "docs" / "hooks" / "strip.py")
    strip = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(strip)
    drawn = strip.accuracies(json.loads(strip.RESULTS.read_text(encoding="utf-8")))
    assert set(drawn) == set(strip.ROWS)
    assert drawn["gimp"]["site"][0] == site_accuracy("gimp")["value"]
    assert {"gimp", "logistic_regression_rna", "clam_sb"} <= set(drawn)


@pytest.mark.slow
def test_its_lines_of_python_run(readme, tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 9  # eight, and the import
    config = SyntheticConfig(num_patients=40, num_genes=60, feature_dim=8, median_patches=20)
    files = write_synthetic_cohort(tmp_path / "raw", config)
    (tmp_path / "h5_files").mkdir()
    for slide in (path for folder in files.slides for path in folder.iterdir()):
        slide.rename(tmp_path / "h5_files" / slide.name)
    files.rna.rename(tmp_path / "gdc_download")
    files.labels.rename(tmp_path / "labels.csv")
    monkeypatch.chdir(tmp_path)
    few = {stage: {"epochs": 1} for stage in ("genes", "pretrain", "finetune")}
    quick = partial(gimp_fast.train_model, bootstrap=20, **few)
    monkeypatch.setattr(gimp_fast, "train_model", quick)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert "[[0." in capsys.readouterr().out
