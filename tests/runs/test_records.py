"""The records of a run: what is written is what is read, and errors name the file."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from gimp_fast.errors import GimpError
from gimp_fast.models import available
from gimp_fast.runs.folder import RunFolder
from gimp_fast.runs.method_titles import method_title
from gimp_fast.runs.records import (
    CasePredictions,
    Metrics,
    RunRecord,
    open_run,
    read_object_or_empty,
)

RECORD = {
    "row": "gimp", "split": "site_0", "seed": 1, "digest": "ab", "cohort": "cd",
    "classes": ["a", "b"], "best_epoch": None, "seconds": 1.0, "cpu_seconds": 0.5,
}  # fmt: skip


def predictions(classes=("0", "NA")) -> CasePredictions:
    """Ids and classes that look like numbers or gaps."""
    probabilities = np.array([[0.25, 0.75], [0.9999999, 1e-7], [0.5, 0.5]])
    return CasePredictions(
        classes, np.array(["0012", "a,b", "NA"]), np.array(["val", "test", "test"]),
        np.array([1, 1, 0]), np.array([1, 0, 1]), probabilities,
    )  # fmt: skip


def test_predictions_survive_a_round_trip(make_run):
    run, given = make_run(classes=("0", "NA"), epochs=1), predictions()
    RunFolder(run).write_predictions(given)
    found = open_run(run).predictions
    for name in ("classes", "case_id", "split", "label", "predicted"):
        assert list(getattr(found, name)) == list(getattr(given, name))
    np.testing.assert_allclose(found.probabilities, given.probabilities, rtol=1e-6)
    test = found.of("test")
    assert (list(test.case_id), list(test.hits)) == (["a,b", "NA"], [False, False])
    assert len(found.of("train")) == 0
    assert found.of("train").probabilities.shape == (0, 2)


def test_embeddings_survive_a_round_trip(make_run):
    run = make_run(stages=("finetune",))
    given = open_run(run).embeddings
    before = (run / "embeddings.npz").read_bytes()
    RunFolder(run).write_embeddings(given)
    assert (run / "embeddings.npz").read_bytes() == before
    assert set(given.stages) == {"finetune"}


def test_keys_of_another_version_are_kept_in_their_place(make_run):
    run = make_run()
    values = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    values["test"]["auc"] = None
    values |= {"later": {"x": [1]}}
    (run / "metrics.json").write_text(json.dumps(values), encoding="utf-8")
    metrics = open_run(run).metrics
    assert metrics.to_json() == json.dumps(values)
    assert metrics.as_dict() == values
    assert metrics.method == "gimp"  # runs that predate other methods do not name theirs


def test_an_epoch_that_ran_again_replaces_its_first_record(make_run):
    run = make_run(epochs=2, stages=("finetune",))
    again = {"stage": "finetune", "epoch": 1, "train": {"loss": 7}, "val": {}, "lr": 0.1}
    RunFolder(run).append_metrics(again, step=3)
    first, second = open_run(run).epochs["finetune"]
    assert (first.epoch, first.train) == (1, {"loss": 7})
    assert second.epoch == 2


def test_a_run_is_finished_and_recorded_by_its_files(make_run):
    path = make_run()
    run = open_run(path)
    assert run.is_finished
    assert not run.is_recorded
    RunFolder(path).write_record(RunRecord(**RECORD))
    assert run.is_recorded
    assert json.loads((path / "run.json").read_text(encoding="utf-8")) == RECORD
    assert run.record.classes == ("a", "b")
    (path / "metrics.json").unlink()
    assert not run.is_finished
    with pytest.raises(GimpError, match=r"metrics\.json: missing"):
        open_run(path).read_all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "found a list; expected an object"),
        ('{"row": "gimp"}', "split: found nothing; expected text"),
        (json.dumps(RECORD | {"seed": "x"}), "seed: found 'x'; expected a whole number"),
    ],
)
def test_a_wrong_record_is_named_with_its_key(make_run, content, message):
    run = make_run()
    (run / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(GimpError, match=rf"run\.json: .*{message}"):
        _ = open_run(run).record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("prob_LUSC", "prob_COAD"), r"columns \['prob_LUSC'\] are missing"),
        (lambda t: t + "x,test\n", r"line \d+: found 2 cells; expected 6"),
        (lambda t: t + "x,test,LUAD,LUAD,much,0\n", "much"),
        (lambda t: t + "x,test,LUAD,LUAD,nan,0\n", "not finite"),
        (lambda t: t + '"x,test\n', "unexpected end of data"),
    ],
    ids=["column", "short", "text", "nan", "quote"],
)
def test_wrong_predictions_are_named(make_run, change, message):
    file = make_run() / "predictions.csv"
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(GimpError, match=rf"predictions\.csv: cannot be read: .*{message}"):
        _ = open_run(file.parent).predictions


@pytest.mark.parametrize("header", ["{'descr': 1}", "{'shape': (1", "12", "{" * 500])
def test_embeddings_with_another_header_are_named(make_run, header):
    file = make_run() / "embeddings.npz"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("case_id", "split", "label"):
            archive.writestr(f"{name}.npy", data)
    with pytest.raises(GimpError, match=r"embeddings\.npz: cannot be read: "):
        _ = open_run(file.parent).embeddings


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(GimpError, match=r"config\.yaml: missing; expected a run"):
        open_run(tmp_path)
    with pytest.raises(GimpError, match="no such run folder"):
        open_run(tmp_path / "nowhere")


def test_an_object_is_read_or_empty(tmp_path):
    file = tmp_path / "object.json"
    for content, expected in ((None, {}), ("[1]", {}), ('{"a"', {}), ('{"a": 1}', {"a": 1})):
        if content is not None:
            file.write_text(content, encoding="utf-8")
        assert read_object_or_empty(file) == expected


def test_every_method_has_a_title():
    titles = [method_title(method) for method in available()]
    assert len(set(titles)) == len(titles)
    assert not set(titles) & set(available())
    assert method_title("mine") == "mine"


def test_metrics_are_checked_when_they_are_made():
    with pytest.raises(ValueError, match="modalities"):
        Metrics(cohort={}, modalities="pictures", seed=0)
