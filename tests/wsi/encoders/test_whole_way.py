"""A small ViT of timm through all commands: slides, cohort, training, prediction, heatmap."""

from __future__ import annotations

import h5py
import pandas as pd
import pytest
from builders.slides import write_slide

from gimp_fast import extract, heatmap, predict, prepare, train

pytestmark = pytest.mark.slow
PATIENTS = [f"P{n:02}" for n in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features of twelve slides, and a second set of other weights; labels of two classes."""
    for package in ("timm", "openslide", "tifffile"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("whole-way")
    for name in PATIENTS:
        write_slide(
            folder / "slides", f"{name}.tif", size=(1400, 1300), tissue=[(256, 256, 1024, 1024)]
        )
    lines = [f"{name},{name},{'ab'[n % 2]}" for n, name in enumerate(PATIENTS)]
    (folder / "labels.csv").write_text("case_id,slide_id,label\n" + "\n".join(lines) + "\n")
    argv = ["--slides", str(folder / "slides"), "--encoder", "timm:test_vit", "--no-overlay"]
    argv += ["--random-weights", "--device", "cpu"]
    assert extract.main([*argv, "--out", str(folder / "features"), "--precision", "bf16"]) == 0
    return folder


def prepared(folder, features, out):
    argv = ["--slides", str(features), "--labels", str(folder / "labels.csv"), "--out", str(out)]
    return prepare.main([*argv, "--allow-missing-modality"])


def renamed(folder, features, encoder, names):
    """Copies of feature files that record another encoder."""
    copies = folder / encoder
    copies.mkdir()
    for name in names:
        copy = copies / f"{name}.h5"
        copy.write_bytes((features / f"{name}.h5").read_bytes())
        with h5py.File(copy, "r+") as file:
            file["features"].attrs["encoder"] = file.attrs["encoder"] = encoder
    return copies


def test_from_slides_to_a_heatmap(folder, capsys):
    features = folder / "features" / "h5_files"
    with h5py.File(features / "P00.h5") as file:
        assert file["features"].shape == (9, 64)
        facts = {key: file.attrs[key] for key in ("precision", "preprocessing", "encoder_licence")}
        assert facts["precision"] == "bf16"
        assert facts["preprocessing"].startswith("160 pixels")
        assert facts["encoder_licence"]
        assert len(file.attrs["weights_digest"]) == 64
    first = renamed(folder, features, "vit-01234567", PATIENTS)
    assert prepared(folder, first, folder / "cohort") == 0

    argv = ["--data", str(folder / "cohort"), "--out", str(folder / "run"), "--method", "abmil"]
    settings = ["modalities=slide", "finetune.epochs=1", "bootstrap=20", "threads=1", "device=cpu"]
    argv += [part for setting in settings for part in ("--set", setting)]
    assert not train.main(argv)
    argv = ["--run", str(folder / "run"), "--data", str(folder / "cohort")]
    assert not predict.main([*argv, "--out", str(folder / "predicted.csv")])
    assert len(pd.read_csv(folder / "predicted.csv")) == len(PATIENTS)
    maps = folder / "maps"
    assert not heatmap.main([*argv, "--out", str(maps), "--slide-images", str(folder / "slides")])
    assert list(maps.rglob("*.png"))

    # Features of other weights are refused, alone and in a mixture.
    other = renamed(folder, features, "vit-89abcdef", PATIENTS)
    assert prepared(folder, other, folder / "other") == 0
    argv = ["--run", str(folder / "run"), "--data", str(folder / "other")]
    capsys.readouterr()
    assert predict.main([*argv, "--out", str(folder / "refused.csv")]) == 2
    assert "found features of the encoder 'vit-89abcdef'" in capsys.readouterr().err
    (first / "P00.h5").write_bytes((other / "P00.h5").read_bytes())
    assert prepared(folder, first, folder / "mixture") == 2
    assert "encoder 'vit-89abcdef'" in capsys.readouterr().err
