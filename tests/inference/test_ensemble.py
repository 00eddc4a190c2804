"""Several models as one folder: the mean of their probabilities, whole or not at all."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from builders.runs import TINY, train_run

import gimp_fast
from gimp_fast import heatmap, predict
from gimp_fast.errors import FaultError, GimpError
from gimp_fast.inference.ensemble import Ensemble, export_ensemble, members_of
from gimp_fast.inference.export import export_model
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.runs.gene_list import read_gene_reference


@pytest.fixture(scope="module")
def runs(cohort_folder, tmp_path_factory):
    """Two methods and two seeds; one reads slides alone."""
    out = tmp_path_factory.mktemp("members")
    abmil = ("method=abmil", "model.dim=8", "finetune.epochs=1", "bootstrap=20")
    return [
        train_run(out / "first", cohort_folder, *TINY),
        train_run(out / "second", cohort_folder, *TINY, "seed=1"),
        train_run(out / "slides", cohort_folder, *abmil),
    ]


@pytest.fixture
def members(runs):
    return [gimp_fast.load(run) for run in runs]


@pytest.fixture
def exported(members, tmp_path):
    export_ensemble(members, tmp_path / "ensemble")
    return tmp_path / "ensemble"


def test_it_predicts_the_mean_of_its_members(members, exported, cohort):
    cases = cohort.case_ids[:5]
    bags, genes = [cohort.bag(case).read() for case in cases], cohort.expression(cases)
    each = [member.predict(bags, genes) for member in members]
    ensemble = gimp_fast.load(exported)
    assert isinstance(ensemble, Ensemble)
    found = ensemble.predict(bags, genes)
    np.testing.assert_allclose(found, np.mean(each, 0), atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert ensemble.gene_ids == members[0].gene_ids
    assert ensemble.synthetic
    assert repr(ensemble) == "<Ensemble of 3: abmil, gimp -> SYN-A, SYN-B>"


def test_the_command_takes_it_for_a_run(runs, cohort_folder, cohort, tmp_path, capsys):
    given = [text for run in runs for text in ("--run", str(run))]
    assert predict.main([*given, "--export", str(tmp_path / "model")]) == 0
    assert "ensemble of 3 models exported" in capsys.readouterr().out
    argv = ["--data", str(cohort_folder), "--out"]
    assert predict.main([*given, *argv, str(tmp_path / "runs")]) == 0
    assert predict.main(["--run", str(tmp_path / "model"), *argv, str(tmp_path / "model_out")]) == 0
    tables = [(tmp_path / name / "predictions.csv").read_text() for name in ("runs", "model_out")]
    columns = [[row["prob_SYN-A"] for row in csv.DictReader(text.splitlines())] for text in tables]
    np.testing.assert_allclose(*(np.array(column, float) for column in columns), atol=1e-6)
    mean = predict_cohort(gimp_fast.load(tmp_path / "model").members, cohort).probabilities()
    np.testing.assert_allclose(mean[:, 0], np.array(columns[1], float), atol=1e-6)


def test_what_is_in_the_folder(exported):
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "ensemble.json", "member_0", "member_1", "member_2",
    ]  # fmt: skip
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "# Ensemble of 3 models" in card
    assert "SYNTHETIC" in card
    assert "[member_1](member_1/README.md): gimp, trained on" in card
    assert "seed 1" in card
    assert members_of(exported) == [exported / f"member_{number}" for number in range(3)]
    assert members_of("anything else") == [type(exported)("anything else")]


def test_new_patients_are_aligned_to_it(exported, cohort, members):
    assert read_gene_reference(exported).gene_ids == cohort.gene_ids
    export_ensemble(members[2:], exported.parent / "slides")
    with pytest.raises(FaultError, match="1 models without genes"):
        read_gene_reference(exported.parent / "slides")


def test_heatmaps_are_of_one_model(exported, tmp_path, capsys):
    assert heatmap.main(["--run", str(exported), "--out", str(tmp_path / "maps")]) == 2
    assert "expected one model, such as a member of it" in capsys.readouterr().err


def test_models_that_do_not_belong_together(members, tmp_path):
    first, second, _ = members
    second.classes = ("other", "names")
    with pytest.raises(GimpError, match="found the classes other, names; expected SYN-A, SYN-B"):
        export_ensemble([first, second], tmp_path / "out")
    second.classes, second.gene_ids = first.classes, first.gene_ids[::-1]
    with pytest.raises(GimpError, match="found other genes than"):
        export_ensemble([first, second], tmp_path / "out")
    with pytest.raises(GimpError, match="found no model"):
        export_ensemble([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_an_ensemble_is_replaced(exported, members, tmp_path):
    with pytest.raises(GimpError, match="or --overwrite to replace an ensemble"):
        export_ensemble(members[:2], exported)
    export_ensemble(members[:2], exported, overwrite=True)
    assert len(members_of(exported)) == 2
    export_model(members[0], tmp_path / "one")
    with pytest.raises(GimpError, match="--overwrite only replaces an ensemble"):
        export_ensemble(members, tmp_path / "one", overwrite=True)
    (exported / "member_0" / "mine.txt").write_text("notes")
    with pytest.raises(GimpError, match="--overwrite only replaces an ensemble"):
        export_ensemble(members, exported, overwrite=True)
    with pytest.raises(GimpError, match="--overwrite only replaces an export"):
        export_model(members[0], exported, overwrite=True)


DAMAGE = {
    "no-json": ("{", "cannot be read"),
    "list": ("[]", "found version None"),
    "version": ('{"ensemble_version": 9}', "found version 9"),
    "no-members": ('{"ensemble_version": 1}', "found members None"),
    "path": ('{"ensemble_version": 1, "members": ["../run"]}', "found members"),
    "number": ('{"ensemble_version": 1, "members": 3}', "found members 3"),
    "too-many": (
        json.dumps({"ensemble_version": 1, "members": [f"member_{n}" for n in range(4)]}),
        "member_3: found no model.safetensors",
    ),
}


@pytest.mark.parametrize(("text", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_list_of_members(exported, text, message):
    (exported / "ensemble.json").write_text(text)
    with pytest.raises(GimpError, match=message):
        gimp_fast.load(exported)


def test_a_member_that_was_changed_is_refused(exported):
    shutil.copy(exported / "member_1" / "genes.csv", exported / "member_2" / "genes.csv")
    with pytest.raises(GimpError, match=r"member_2.*changed since the export"):
        gimp_fast.load(exported)
