"""Two real slides, from pixels to a prediction and a picture, by the commands alone."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from PIL import Image

from gimp_fast import extract, heatmap, predict, prepare
from gimp_fast.data.synthetic.patients import SyntheticConfig, prepare_synthetic
from gimp_fast.training import load_config, train

pytestmark = pytest.mark.slow
SLIDES = ["cmu-1-small-region", "tcga-cr-7395-01a-01-ts1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of slides alone, with the channels of the extracted features; trained on synthetic ones."""
    folder = tmp_path_factory.mktemp("model")
    config = SyntheticConfig(
        num_patients=30, feature_dim=1024, num_genes=20, min_patches=5, median_patches=20
    )
    prepare_synthetic(folder / "out", config)
    overrides = [
        "modalities=slide", "model.dim=16", "model.heads=2", "model.num_landmarks=8",
        "pretrain.epochs=0", "finetune.epochs=1", "bootstrap=20", "threads=1", "device=cpu",
    ]  # fmt: skip
    run = folder / "run"
    settings = load_config(overrides=overrides)
    train(settings, folder / "out" / "cohort", run, log=lambda text: None)
    return run


@pytest.fixture(scope="module")
def features(real_data, tmp_path_factory):
    pytest.importorskip("openslide")
    out = tmp_path_factory.mktemp("features")
    argv = ["--slides", str(real_data / "slides"), "--out", str(out), "--random-weights"]
    argv += ["--mpp-override", "0.25", "--magnification", "10", "--device", "cpu"]
    assert extract.main(argv) == 0
    return out


def test_from_slides_to_a_prediction_and_a_map(real_data, features, model, tmp_path):
    cohort = tmp_path / "cohort"
    argv = ["--slides", str(features / "h5_files"), "--no-labels", "--out", str(cohort)]
    assert prepare.main([*argv, "--allow-missing-modality"]) == 0

    table = tmp_path / "predictions.csv"
    assert predict.main(["--run", str(model), "--data", str(cohort), "--out", str(table)]) == 0
    predicted = pd.read_csv(table)
    assert len(predicted) == 2
    assert predicted.filter(like="prob_").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    # The model never saw this encoder, and is told so.
    assert predicted["warnings"].str.contains("encoder").all()

    maps = tmp_path / "maps"
    argv = ["--run", str(model), "--data", str(cohort), "--out", str(maps), "--geojson", "all"]
    assert heatmap.main([*argv, "--slide-images", str(real_data / "slides")]) == 0
    for slide_id in SLIDES:
        patches = pd.read_csv(maps / slide_id / "patches.csv")
        shapes = json.loads(next((maps / slide_id).glob("*.geojson")).read_text())
        assert len(shapes["features"]) == len(patches) > 3
        pictures = list((maps / slide_id).glob("*.png"))
        assert pictures
        assert all(min(Image.open(picture).size) > 50 for picture in pictures)
