"""One model of several targets, end to end on synthetic patients who lack some of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from builders.cohorts import cohort_of_gaps
from builders.runs import METHODS, QUICK, SMALL, train_run

import gimp_fast
from gimp_fast import models
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.inference import TrainedModel, export_ensemble, export_model
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.runs.records import open_run
from gimp_fast.runs.target_views import views_of
from gimp_fast.training import load_config, train
from gimp_fast.training.claim import config_hash
from gimp_fast.training.fit_scalers import fit_slide_scaler

ALL = "target=[os,grade,burden]"
TARGETS = ("os", "grade", "burden")


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """A cohort whose patients lack outcomes, classes and numbers; not to be changed."""
    return cohort_of_gaps(tmp_path_factory.mktemp("gaps"))


def settings(method="gimp", modalities="both"):
    fields = models.model_class(method).settings_class.model_fields
    sizes = [f"model.{name}={value}" for name, value in SMALL.items() if name in fields]
    return [*QUICK, *sizes, f"method={method}", f"modalities={modalities}"]


@pytest.fixture(scope="module")
def trained(gaps, tmp_path_factory):
    """GiMP with all its stages and the validated fusion, by Cox's loss."""
    out = tmp_path_factory.mktemp("several") / "run"
    more = ["survival.loss=cox", "model.fusion=validated", "finetune.select=os:c_index"]
    return train_run(out, gaps, *settings(), *more, "finetune.epochs=2", ALL)


@pytest.mark.parametrize(("method", "modalities"), METHODS, ids="-".join)
def test_every_method_learns_several_targets(method, modalities, gaps, tmp_path):
    asked = [*settings(method, modalities), "target=[burden,os,grade,classification]"]
    run = open_run(train_run(tmp_path / "run", gaps, *asked)).read_all()
    assert list(run.metrics.targets) == ["burden", "os", "grade", "classification"]
    assert run.metrics.targets["os"].test.c_index is not None
    assert run.metrics.targets["grade"].test.accuracy is not None
    assert run.metrics.targets["burden"].test.correlation is not None
    assert run.metrics.targets["classification"].classes == ("SYN-A", "SYN-B")


@pytest.mark.parametrize("keep", ["last", "probe"])
def test_pretraining_and_genes_know_all_targets(keep, gaps, tmp_path):
    more = [f"pretrain.keep={keep}", "pretrain.mining=all", ALL]
    run = open_run(train_run(tmp_path / "run", gaps, *settings(), *more)).read_all()
    assert {"os:loss", "grade:accuracy", "burden:loss"} <= run.epochs["genes"][0].val.keys()
    probed = "probe_grade:accuracy" in run.epochs["pretrain"][0].val
    assert probed == (keep == "probe")
    assert np.isfinite(run.epochs["pretrain"][0].train["triplet"])


def test_hospitals_are_compared_within_the_classes_of_the_first_target_that_has_any(gaps):
    cohort = open_cohort(gaps)
    cohort._sites = {case: "ab"[row % 2] for row, case in enumerate(cohort.case_ids)}
    found = [
        fit_slide_scaler(1.0, cohort, "split_0", asked).matrix
        for asked in (("os", "grade", None), "grade", ("os", "burden"), ("burden", "os"))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[2])


def test_patients_without_any_value_are_left_out(gaps, tmp_path):
    cohort = open_cohort(gaps)
    run = open_run(train_run(tmp_path / "run", gaps, *settings(), "target=[os,burden]"))
    split = cohort.split("split_0")
    for part, cases in split.items():
        known = {name: [c for c in cases if cohort.knows(c, name)] for name in ("os", "burden")}
        assert run.metrics.cohort.n[part] == len({*known["os"], *known["burden"]}) < len(cases)
        for name, of_target in run.metrics.targets.items():
            assert of_target.n[part] == len(known[name])


def test_what_is_not_known_is_empty_in_the_predictions(trained, gaps):
    cohort, run = open_cohort(gaps), open_run(trained).read_all()
    table = pd.read_csv(trained / "predictions.csv", dtype={"case_id": str}).set_index("case_id")
    assert set(table["split"]) == {"val", "test"}
    for name, column in (("os", "os_time"), ("grade", "grade_label"), ("burden", "burden_truth")):
        known = {case for case in table.index if cohort.knows(case, name)}
        assert set(table.index[table[column].notna()]) == known
        assert set(run.predictions.known[name].case_id) == known
    predicted = ["os_risk", "grade_prediction", "grade_prob_high", "burden_prediction"]
    assert table[predicted].notna().all().all()
    view = views_of(run)["grade"]
    assert view.metrics.test.n == len(view.predictions.of("test")) < len(run.predictions)
    assert view.metrics.cohort.classes == ("high", "low")


def test_the_log_names_each_target(gaps, tmp_path):
    lines = []
    config = load_config(overrides=[*settings("mean_pool", "slide"), ALL])
    metrics = train(config, gaps, tmp_path / "run", log=lines.append)
    said = [line for line in lines if line.startswith("test, ")]
    assert [line.partition(":")[0] for line in said] == [f"test, {name}" for name in TARGETS]
    assert metrics["targets"]["os"]["kind"] == "survival"
    assert "test" not in metrics


def test_the_report_shows_each_target(trained):
    from gimp_fast.report import write_report

    page = write_report(trained).read_text(encoding="utf-8")
    for name in TARGETS:
        assert f"<h3>{name}</h3>" in page
    assert "os (survival, in days); grade (class); burden (regression)" in page
    assert ">nan<" not in page.lower()
    figures = {file.stem for file in (trained / "figures").glob("*.svg")}
    drawn = {"os_kaplan_meier", "grade_confusion", "grade_calibration", "burden_predicted"}
    assert drawn | {"finetune_os_c_index", "finetune_grade_accuracy"} <= figures


def test_loaded_exported_and_averaged_models_predict_what_was_recorded(trained, gaps, tmp_path):
    cohort, recorded = open_cohort(gaps), open_run(trained).predictions
    run = gimp_fast.load(trained)
    export_model(run, tmp_path / "model")
    export_ensemble([run, gimp_fast.load(tmp_path / "model")], tmp_path / "both")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "- os, test: C-index" in card
    assert "- grade: It assigns one of its classes" in card
    cases = recorded.case_id.tolist()
    for models_ in (
        [run], [gimp_fast.load(tmp_path / "model")], gimp_fast.load(tmp_path / "both").members,
    ):  # fmt: skip
        found = predict_cohort(models_, cohort, cases)
        for name in ("os_risk", "grade_prob_low", "burden_prediction"):
            expected = recorded.columns()[name]
            assert found.table[name].to_numpy() == pytest.approx(expected, abs=1e-6)
        metrics = found.metrics(resamples=20)["targets"]
        test = open_run(trained).metrics.targets
        for name, score in (("os", "c_index"), ("grade", "accuracy")):
            expected = getattr(test[name].test, score).value
            new = metrics[name]["new"][score]
            value = new["value"] if isinstance(new, dict) else new.value
            assert value == pytest.approx(expected)
    table = found.table.set_index("case_id")
    known = [case for case in cases if cohort.knows(case, "os")]
    assert set(table.index[table["os_true_time"].notna()]) == set(known)
    assert set(table.index[table["grade_label"] != ""]) == {
        case for case in cases if cohort.knows(case, "grade")
    }


def test_the_predict_command_tells_of_each_target(trained, gaps, tmp_path, capsys):
    from gimp_fast.predict import main

    argv = ["--run", trained, "--data", gaps, "--part", "test", "--out", tmp_path / "out"]
    assert main(list(map(str, [*argv, "--bootstrap", "20"]))) == 0
    said = capsys.readouterr().out
    assert "\nos\n  labels known: C-index" in said
    assert "\ngrade: " in said
    facts = json.loads((tmp_path / "out" / "predictions.warnings.json").read_text())
    assert facts["metrics"]["targets"].keys() == set(TARGETS)


@pytest.mark.parametrize(
    ("asked", "shown"), [(None, "os_risk "), ("grade", ""), ("burden", "burden_prediction ")]
)
def test_heatmaps_explain_a_chosen_target(trained, gaps, tmp_path, asked, shown):
    from gimp_fast.heatmap import main

    argv = ["--run", trained, "--data", gaps, "--out", tmp_path / "maps", "--max-patients", 1]
    argv += ["--attribution", "gradient", "--geojson", "none", "--device", "cpu"]
    argv += ["--check", "--check-draws", 2]
    argv += [] if asked is None else ["--target", asked]
    assert main(list(map(str, argv))) == 0
    summary = json.loads((tmp_path / "maps" / "heatmaps.json").read_text())
    assert summary["model"]["target"] == (asked or "os")
    check = json.loads((tmp_path / "maps" / "faithfulness.json").read_text())
    wanted = {"grade": "probability of the predicted class", "burden": "burden prediction"}
    assert check["explained"] == wanted.get(asked, "os risk")
    assert check["kinds"].keys() == {"patches", "genes"}
    (patient,) = summary["patients"]
    rows = pd.read_csv(tmp_path / "maps" / "faithfulness.csv")
    values = list(patient["probabilities"].values())
    full = max(values) if asked == "grade" else values[0]
    np.testing.assert_allclose(rows["full"], full, atol=1e-5, rtol=1e-5)
    assert patient["prediction"].startswith(shown)
    if asked == "grade":
        assert patient["prediction"] in ("low", "high")
        assert patient["probabilities"].keys() == {"low", "high"}
        assert patient["label"] == open_cohort(gaps).class_of(patient["case_id"], "grade")


def test_heatmaps_refuse_a_target_that_is_not_predicted(trained, gaps, tmp_path, capsys):
    from gimp_fast.heatmap import main

    argv = ["--run", trained, "--data", gaps, "--out", tmp_path / "maps", "--target", "graed"]
    assert main(list(map(str, argv))) == 2
    assert "found 'graed'; expected one of os, grade, burden" in capsys.readouterr().err


def test_a_run_is_resumed_with_the_same_targets(gaps, tmp_path):
    asked = [*settings(), "survival.loss=cox", ALL]
    whole = train_run(tmp_path / "whole", gaps, *asked)
    config = load_config(overrides=[*asked, f"data={gaps}"])
    parts = tmp_path / "parts"
    train(config, gaps, parts, stages=["genes"], log=lambda text: None)
    train(config, gaps, parts, resume=True, log=lambda text: None)
    assert open_run(parts).metrics.targets == open_run(whole).metrics.targets
    assert yaml.safe_load((parts / "config.yaml").read_text())["target"] == list(TARGETS)


def test_one_name_has_the_same_configuration_in_a_list_or_alone():
    alone, listed = load_config(overrides=["target=os"]), load_config(overrides=["target=[os]"])
    assert alone.target == listed.target == "os"
    assert config_hash(alone) == config_hash(listed)
    assert config_hash(load_config(overrides=["target=[os,burden]"])) != config_hash(alone)
    assert load_config().model_dump(mode="json")["target"] == "classification"
    weighted = load_config(overrides=["target=[os:2, burden]"])
    assert weighted.target_weights == {"os": 2.0, "burden": 1.0}
    assert load_config(overrides=["target=[os:2]"]).target == "os"


def test_the_command_takes_several_names(gaps, tmp_path):
    from gimp_fast.train import main

    out = tmp_path / "run"
    argv = ["--data", gaps, "--out", out, "--preset", "small", "--method", "mean_pool"]
    argv += [part for one in QUICK for part in ("--set", one)]
    assert main([*map(str, argv), "--target", "os", "grade,burden:0.5"]) == 0
    assert list(open_run(out).metrics.targets) == list(TARGETS)
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["target=[os,oss]"], r"target: found 'oss'.*did you mean 'os'"),
        (["target=[os,os]"], r"target: found .*; expected one name or more, each of them once"),
        (["target=[]"], "expected one name or more"),
        (["target=[os,[burden]]"], "target: found"),
        (["target=[os,burden:0]"], "after a colon a weight above 0, as burden:0.5"),
        (["target=[os,os:2]"], "each of them once"),
        (["target=[os,burden:much]"], "after a colon a weight above 0"),
        ([ALL, "finetune.select=c_index"], "expected one of loss, os:c_index, .*'os:c_index'"),
        ([ALL, "finetune.select=os:accuracy"], "found os:accuracy; expected one of loss"),
        (
            [ALL, "finetune.select=oss:c_index"],
            r"expected one of loss, .*did you mean 'os:c_index'",
        ),
        ([ALL, "finetune.select=os:c-index"], "finetune.select: found 'os:c-index'; expected one"),
        (["target=os", "finetune.select=os:c_index"], "expected c_index or loss"),
    ],
    ids=[
        "unknown",
        "twice",
        "empty",
        "nested",
        "no-weight",
        "twice-weighted",
        "word-as-weight",
        "plain-measure",
        "measure",
        "name",
        "spelling",
        "one",
    ],
)
def test_what_does_not_fit_is_refused(asked, message, gaps, tmp_path):
    with pytest.raises(GimpError, match=message):
        train_run(tmp_path / "run", gaps, *settings("mean_pool", "slide"), *asked)
    assert not (tmp_path / "run").exists()


def test_the_labels_cannot_be_asked_twice(gaps, tmp_path, monkeypatch):
    from gimp_fast import targets

    monkeypatch.setattr(targets._TARGETS, "things", dict(targets._TARGETS.things))
    targets.register("mine", targets.Classification())
    with pytest.raises(
        GimpError, match="mine and classification, which are ways to learn the same"
    ):
        train_run(tmp_path / "run", gaps, *settings(), "target=[mine,classification]")


def test_an_own_way_to_learn_the_labels_can_be_one_of_several(gaps, tmp_path, monkeypatch):
    from gimp_fast import targets

    class Halved(targets.Classification):
        def loss(self, logits, labels):
            return super().loss(logits, labels) / 2

    monkeypatch.setattr(targets._TARGETS, "things", dict(targets._TARGETS.things))
    targets.register("halved", Halved())
    asked = settings("mean_pool", "slide")
    train_run(tmp_path / "run", gaps, *asked, "target=[os,halved]")
    # A way to learn is needed for training alone.
    monkeypatch.undo()
    assert "halved_prob_SYN-A" in gimp_fast.load(tmp_path / "run").columns


def test_every_part_must_have_a_value_of_each_target(tmp_path):
    cohort = open_cohort(cohort_of_gaps(tmp_path / "gaps"))
    split = cohort.split("split_0")
    without = {c: v for c, v in cohort.targets["os"].values.items() if c not in split["val"]}
    object.__setattr__(cohort.targets["os"], "values", without)
    config = load_config(overrides=[*settings("mean_pool", "slide"), ALL])
    with pytest.raises(GimpError, match="no patient with a value of the target 'os' in val"):
        train(config, cohort, tmp_path / "run", log=lambda text: None)


def test_a_class_that_training_lacks_is_refused_by_the_name_of_its_target(tmp_path):
    cohort = open_cohort(cohort_of_gaps(tmp_path / "gaps"))
    split, grade = cohort.split("split_0"), cohort.targets["grade"]
    low = grade.classes.index("low")
    values = {c: v for c, v in grade.values.items() if c not in split["train"] or v != low}
    object.__setattr__(grade, "values", values)
    config = load_config(overrides=[*settings("mean_pool", "slide"), ALL])
    with pytest.raises(GimpError, match=r"target 'grade': all \d+ train patients are 'high'"):
        train(config, cohort, tmp_path / "run", log=lambda text: None)


def test_the_memory_of_several_targets_is_predicted(gaps):
    from gimp_fast.training.memory import memory_report

    config = load_config(overrides=[*settings("mean_pool", "slide"), ALL, "device=cpu"])
    assert any("finetune, batch" in line for line in memory_report(config, open_cohort(gaps)))


def test_a_class_that_the_model_does_not_know_is_told_by_its_target(trained, gaps):
    cohort, model = open_cohort(gaps), gimp_fast.load(trained)
    grade, case = cohort.targets["grade"], cohort.split("split_0")["test"][0]
    object.__setattr__(grade, "classes", (*grade.classes, "odd"))
    object.__setattr__(grade, "values", {**grade.values, case: 2})
    found = predict_cohort([model], cohort, [case])
    told = {caution.code: caution.message for caution in found.cautions[case]}
    assert told["class-unknown"] == "grade: 'odd'; the model knows high, low"
    assert found.table["grade_label"].tolist() == ["odd"]


def test_the_truth_of_one_target_of_classes_is_not_the_label(gaps, tmp_path):
    train_run(tmp_path / "run", gaps, *settings("mean_pool", "slide"), "target=grade")
    cohort = open_cohort(gaps)
    cases = [c for c in cohort.split("split_0")["test"] if cohort.knows(c, "grade")]
    found = predict_cohort([gimp_fast.load(tmp_path / "run")], cohort, cases)
    assert found.table["label"].tolist() == [cohort.class_of(case, "grade") for case in cases]
    assert not any("class-unknown" in codes for codes in found.table["warnings"])
    recorded = open_run(tmp_path / "run").metrics.test.accuracy.value
    assert found.metrics(resamples=20)["new"]["accuracy"]["value"] == pytest.approx(recorded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": []}, "cannot build: found no target"),
        ({"targets": "os"}, "target.targets: found 'os'"),
        ({"kind": "many"}, "target.kind: found 'many'"),
        ({"targets": [{"name": "os"}]}, "target.targets.0: found nothing"),
        ({"targets": [{"name": "os", "kind": "several"}]}, "target.targets.0: found 'several'"),
        ({"targets": [{"name": "a", "kind": "class", "classes": ["x", "y"]}]}, "cannot build"),
    ],
    ids=["none", "text", "kind", "no-kind", "several-in-several", "fewer-outputs"],
)
def test_facts_of_targets_that_are_damaged_are_told(change, message, trained):
    tensors, facts = load_checkpoint(trained / "checkpoints" / "finetune.safetensors")
    facts["target"] |= change
    with pytest.raises(GimpError, match=message):
        TrainedModel(tensors, facts, trained)
