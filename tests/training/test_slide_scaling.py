"""Embeddings in which hospitals differ less: the formula, the fit, and where it is applied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.prepare_inputs import Inputs
from builders.runs import TINY, train_run

from gimp_fast import load, prepare
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.inference.export import export_model
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.runs.records import open_run
from gimp_fast.training.slide_scaling import SlideScaler
from gimp_fast.training.weights import site_weights

COUNT = 600
SITES = [f"H{n % 6}" for n in range(COUNT)]


def shifted(shift=3.0, seed=0):
    """Patients whose class moves the first channel, and whose hospital the second."""
    rng = np.random.default_rng(seed)
    labels = np.arange(COUNT) % 2
    means = rng.normal(size=(COUNT, 5))
    means[:, 0] += 2 * labels
    means[:, 1] += shift * np.array([int(site[1]) - 2.5 for site in SITES])
    return means, labels


def test_the_direction_of_hospitals_shrinks_and_others_stay():
    means, labels = shifted()
    spread = {}
    for strength in (0.0, 100.0):
        scaler = SlideScaler.fit(means, labels, SITES, strength)
        scaled = scaler(torch.from_numpy(means)).numpy()
        assert scaled.mean(0) == pytest.approx(0, abs=1e-4)
        assert scaled.std(0).mean() == pytest.approx(1, rel=1e-4)
        spread[strength] = scaled.std(0)
    assert spread[0.0] == pytest.approx(1, rel=1e-3)
    assert spread[100.0][1] < 0.25 * spread[100.0][[0, 2, 3, 4]].min()


def test_the_matrix_is_that_of_the_formula():
    means, labels = shifted()
    z = (means - means.mean(0)) / means.std(0)
    scatter = np.zeros((5, 5))
    for n, site in enumerate(SITES):
        same = [k for k in range(COUNT) if labels[k] == labels[n]]
        here = [k for k in same if SITES[k] == site]
        shift = z[here].mean(0) - z[same].mean(0)
        scatter += np.outer(shift, shift) / COUNT
    values, vectors = np.linalg.eigh(np.eye(5) + 7 * scatter)
    expected = vectors @ np.diag(values**-0.5) @ vectors.T
    expected /= (z @ expected).std(0).mean() * means.std(0)[:, None]
    found = SlideScaler.fit(means, labels, SITES, 7.0).matrix.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_patients_without_a_known_hospital_are_not_compared():
    means, labels = shifted()
    unknown = [None if n >= 400 else site for n, site in enumerate(SITES)]
    first = SlideScaler.fit(means, labels, unknown, 50.0)
    assert not torch.equal(first.matrix, SlideScaler.fit(means, labels, SITES, 50.0).matrix)
    with pytest.raises(GimpError, match="two known hospitals"):
        SlideScaler.fit(means, labels, [None] * COUNT, 50.0)
    with pytest.raises(GimpError, match=r"site_shrinkage=null"):
        SlideScaler.fit(means, labels, [f"of class {label}" for label in labels], 50.0)


def test_a_constant_channel_stays_finite():
    means, labels = shifted()
    means[:, 3] = 4.0
    scaler = SlideScaler.fit(means, labels, SITES, 10.0)
    assert scaler(torch.full((2, 5), 4.0)).isfinite().all()


def test_hospitals_weigh_by_the_root_of_their_patients():
    found = site_weights({"a": "1", "b": "1", "c": "1", "d": "1", "e": "2", "f": None})
    assert found["a"] == pytest.approx(found["e"] / 2)
    assert found["f"] == found["e"]
    assert sum(found.values()) / 6 == pytest.approx(1)
    with pytest.raises(GimpError, match="no training patient whose hospital is known"):
        site_weights({"a": None})
    assert site_weights({}) == {}


@pytest.fixture(scope="module")
def cohort_of_hospitals(tmp_path_factory):
    inputs = Inputs(tmp_path_factory.mktemp("hospitals") / "inputs")
    assert prepare.main(inputs.argv()) == 0
    return inputs.out


@pytest.fixture(scope="module")
def run(tmp_path_factory, cohort_of_hospitals):
    out = tmp_path_factory.mktemp("shrunk") / "run"
    settings = ("site_shrinkage=10", "finetune.site_weights=sqrt", "pretrain.epochs=1")
    return train_run(out, cohort_of_hospitals, *TINY, *settings, "genes.epochs=1")


def test_predictions_of_a_loaded_model_are_those_of_the_run(run, cohort_of_hospitals, tmp_path):
    cohort, trained = open_cohort(cohort_of_hospitals), load(run)
    recorded = open_run(run).predictions.of("test")
    cases = recorded.case_id.tolist()
    bags = [cohort.bag(case).read() for case in cases]
    export_model(trained, tmp_path / "export")
    for model in (trained, load(tmp_path / "export")):
        found = model.predict(bags, cohort.expression(cases))
        np.testing.assert_allclose(found, recorded.probabilities, atol=1e-5)
        outputs = model.reader_of(cohort, model.columns_in(cohort)).inputs(cases)
        np.testing.assert_allclose(model.outputs(outputs).predictions, found, atol=1e-6)


def test_it_is_fitted_on_training_patients(run, cohort_of_hospitals):
    cohort = open_cohort(cohort_of_hospitals)
    tensors, _ = load_checkpoint(run / "checkpoints" / "finetune.safetensors")
    training = cohort.split(cohort.split_names[0])["train"]
    means = np.stack([cohort.bag(case).read().mean(0, dtype=np.float64) for case in training])
    np.testing.assert_allclose(cohort.mean_patches(training), means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tensors["slide_scaler.mean"], means.mean(0), rtol=1e-4, atol=1e-5)
    tensors["slide_scaler.matrix"] = torch.eye(3)
    with pytest.raises(GimpError, match=r"slide_scaler\.matrix of \d+ channels"):
        type(load(run))(tensors, load(run).facts, run)


def test_a_cohort_without_hospitals_is_told_what_to_do(cohort_folder, tmp_path):
    with pytest.raises(GimpError, match="--site-column"):
        train_run(tmp_path / "run", cohort_folder, *TINY, "site_shrinkage=10")


def test_without_classes_hospitals_are_compared_among_all_patients(tmp_path):
    inputs = Inputs(tmp_path / "inputs")
    lines = inputs.labels.read_text(encoding="utf-8").splitlines()
    rows = ["case_id,slide_id,os_days,os_event"]
    for n, line in enumerate(lines[1:]):
        case, slide, _, _ = line.split(",")
        rows.append(f"{case},{slide},{100 + 7 * n},{n % 3 != 0:d}")
    inputs.labels.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--target", "os=survival:os_days,os_event")) == 0
    settings = ("target=os", "method=mean_pool", "site_shrinkage=10", "finetune.site_weights=sqrt")
    out = train_run(tmp_path / "run", inputs.out, "finetune.epochs=1", "bootstrap=20", *settings)
    cohort = open_cohort(inputs.out)
    cases = cohort.split("split_0")["train"]
    sites, labels = [cohort.site(case) for case in cases], np.zeros(len(cases), int)
    expected = SlideScaler.fit(cohort.mean_patches(cases), labels, sites, 10.0)
    torch.testing.assert_close(load(out).slide_scaler.matrix, expected.matrix)
