"""A synthetic cohort written, joined and opened: contents, windows, integrity, evidence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gimp_fast.data import open_cohort
from gimp_fast.data.prepare.assemble import prepare
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.data.slides import open_slide
from gimp_fast.data.synthetic.patients import (
    SyntheticConfig,
    prepare_synthetic,
    write_synthetic_cohort,
)
from gimp_fast.errors import GimpError

SMALL = SyntheticConfig(
    num_patients=24, feature_dim=6, num_genes=40, median_patches=50, multi_slide=0.4, seed=1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "synthetic"
    prepare_synthetic(out, SMALL)
    return out


@pytest.fixture
def cohort(folder):
    return open_cohort(folder / "cohort")


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_contents(cohort, folder):
    assert cohort.synthetic
    assert cohort.name == "synthetic"
    assert cohort.classes == ("SYN-A", "SYN-B")
    assert (cohort.feature_dim, len(cohort.gene_ids), len(cohort.case_ids)) == (6, 40, 24)
    assert (cohort.encoder, cohort.patch_order) == ("synthetic", "file")
    assert cohort.expression_transform == "log2(x+1)"
    parts = cohort.split("split_0")
    assert cohort.split_names == ("split_0",)
    assert sorted(case for cases in parts.values() for case in cases) == sorted(cohort.case_ids)
    assert {cohort.label(case) for case in cohort.case_ids} == {0, 1}
    dropped = (folder / "cohort" / "dropped.csv").read_text(encoding="utf-8")
    assert "not a primary tumour" in dropped
    assert "not labelled" in dropped


def test_every_slide_format_is_there(cohort, folder):
    text = (folder / "cohort" / "slides.csv").read_text(encoding="utf-8")
    for kind in ("clam-h5", "trident-h5", "stamp-h5", "pt"):
        assert f",{kind}," in text


def test_expression_rows_are_as_asked(cohort):
    everyone = cohort.expression(cohort.case_ids)
    assert everyone.dtype == np.float32
    two = [cohort.case_ids[7], cohort.case_ids[2]]
    np.testing.assert_array_equal(cohort.expression(two), everyone[[7, 2]])
    assert cohort.expression([]).shape == (0, 40)


def test_bag_windows_cross_slides(cohort):
    case = max(cohort.case_ids, key=lambda case: len(cohort.bag(case).slides))
    bag = cohort.bag(case)
    assert len(bag.slide_ids) >= 2
    assert bag.slide_ids == tuple(sorted(bag.slide_ids))
    parts = []
    for slide in bag.slides:
        with open_slide(slide.path) as file:
            parts.append(file.read())
    whole = np.concatenate(parts)
    np.testing.assert_array_equal(bag.read(), whole)
    edge = bag.lengths[0]
    windows = [(edge - 1, edge + 1), (edge, edge), (edge, None), (0, edge), (3, bag.num_patches)]
    for start, stop in windows:
        np.testing.assert_array_equal(bag.read(start, stop), whole[start:stop])


def test_a_window_opens_only_the_slides_it_needs(cohort, monkeypatch):
    case = max(cohort.case_ids, key=lambda case: len(cohort.bag(case).slides))
    bag = cohort.bag(case)
    opened = []

    def spy(path):
        opened.append(path)
        return open_slide(path)

    monkeypatch.setattr("gimp_fast.data.bag.open_slide", spy)
    bag.read(bag.lengths[0], bag.lengths[0] + 1)
    assert opened == [bag.slides[1].path]


def test_unknown_names_are_errors(cohort):
    with pytest.raises(GimpError, match="split_0"):
        cohort.split("nope")
    with pytest.raises(GimpError, match="no patient"):
        cohort.label("nope")
    with pytest.raises(GimpError, match="no patient"):
        cohort.expression(["nope"])


def test_same_configuration_same_bytes(tmp_path):
    write_synthetic_cohort(tmp_path / "a", SMALL)
    write_synthetic_cohort(tmp_path / "b", SMALL)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_fingerprint_ignores_where_files_lie(tmp_path, cohort):
    prepare_synthetic(tmp_path / "elsewhere", SMALL)
    assert open_cohort(tmp_path / "elsewhere" / "cohort").fingerprint == cohort.fingerprint


def change_label(folder: Path) -> None:
    file = folder / "patients.csv"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("SYN-A", "SYN-B", 1), encoding="utf-8")


def change_version(folder: Path) -> None:
    manifest = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    manifest["format_version"] = 99
    (folder / "cohort.json").write_text(json.dumps(manifest), encoding="utf-8")


DAMAGE = {
    "no-manifest": (lambda f: (f / "cohort.json").unlink(), "not a cohort folder"),
    "half-a-manifest": (lambda f: (f / "cohort.json").write_text("{"), "cannot be read"),
    "list-manifest": (lambda f: (f / "cohort.json").write_text("[]"), "format version"),
    "empty-manifest": (
        lambda f: (f / "cohort.json").write_text('{"format_version": 2}'),
        "not a valid cohort",
    ),
    "version": (change_version, "format version 99"),
    "no-table": (lambda f: (f / "slides.csv").unlink(), "slides.csv"),
    "label": (change_label, "changed since"),
    "no-split": (lambda f: (f / "splits" / "split_0.csv").unlink(), "changed since"),
    "expression-shape": (
        lambda f: np.save(f / "expression.npy", np.zeros((2, 2), np.float32)),
        "expression.npy",
    ),
    "expression-cut": (
        lambda f: (f / "expression.npy").write_bytes(b"\x93NUMPY"),
        "expression.npy",
    ),
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "synthetic"
    paths = write_synthetic_cohort(out / "raw", SMALL)
    options = PrepareOptions(
        labels=paths.labels,
        slides=paths.slides,
        rna=RnaOptions(paths=(paths.rna,)),
        out=out / "cohort",
        splits=(paths.splits,),
        pack="fp32",
    )
    prepare(options)
    return out / "cohort"


def contents_of(folder: Path) -> str | None:
    """A digest of everything a cohort gives; None where it says that it is damaged."""
    digest = hashlib.sha256()
    try:
        cohort = open_cohort(folder)
        facts = [cohort.classes, cohort.gene_ids, cohort.encoder, cohort.mpp, cohort.patch_order]
        facts += [cohort.split(name) for name in cohort.split_names]
        digest.update(repr([*facts, [cohort.label(c) for c in cohort.case_ids]]).encode())
        digest.update(cohort.expression(cohort.case_ids))
        for case in cohort.case_ids:
            digest.update(cohort.bag(case).read())
    except GimpError:
        return None
    return digest.hexdigest()


FILES = ("cohort.json", "patients.csv", "slides.csv", "genes.csv", "expression.npy")


@pytest.mark.parametrize("name", [*FILES, "splits/split_0.csv", "store.safetensors"])
@settings(
    max_examples=int(os.environ.get("GIMP_FAST_FUZZ", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_told_or_does_not_matter(packed, tmp_path, name, place, bit, cut):
    whole = contents_of(packed)
    shutil.rmtree(tmp_path / "c", ignore_errors=True)
    shutil.copytree(packed, tmp_path / "c")
    content = bytearray((packed / name).read_bytes())
    at = int(place * len(content))
    content[at] ^= 1 << bit
    (tmp_path / "c" / name).write_bytes(content[:at] if cut else content)
    assert contents_of(tmp_path / "c") in (None, whole)


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_cohort_does_not_open(tmp_path, folder, case):
    shutil.copytree(folder / "cohort", tmp_path / "c")
    damage, message = DAMAGE[case]
    damage(tmp_path / "c")
    with pytest.raises(GimpError, match=message):
        open_cohort(tmp_path / "c")


def test_a_slide_that_changed_is_found_on_read(tmp_path):
    prepare_synthetic(tmp_path / "s", SMALL)
    cohort = open_cohort(tmp_path / "s" / "cohort")
    clam = next(
        cohort.bag(case).slides[0]
        for case in cohort.case_ids
        if "clam" in str(cohort.bag(case).slides[0].path)
    )
    case = clam.slide_id[:12]
    with h5py.File(clam.path, "w") as h5:
        h5["features"] = np.zeros((3, 6), np.float32)
    with pytest.raises(GimpError, match=clam.path.name):
        cohort.bag(case).read(0, 1)
    clam.path.unlink()
    with pytest.raises(GimpError, match="no such file"):
        cohort.bag(case).read(0, 1)


def lesion_feature(features: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Mean, along every hidden axis, of the patches highest on the lesion's common axis."""
    latent = features @ axes
    top = np.argsort(-latent[:, 0])[: max(2, round(0.07 * len(latent)))]
    return latent[top].mean(axis=0)


def test_neither_modality_suffices_and_both_do(tmp_path):
    config = SyntheticConfig(num_patients=200, num_genes=200, signal_genes=0.1, feature_dim=16)
    prepare_synthetic(tmp_path / "s", config)
    cohort = open_cohort(tmp_path / "s" / "cohort")
    labels = np.array([cohort.label(case) for case in cohort.case_ids])
    bags = [cohort.bag(case).read() for case in cohort.case_ids]
    genes = cohort.expression(cohort.case_ids)
    axes = np.linalg.svd(np.cov(np.concatenate(bags).T))[0]
    # the lesion's common axis is the skewed one: few patches far out
    scores = np.concatenate(bags) @ axes
    skew = ((scores - scores.mean(0)) ** 3).mean(0) / scores.std(0) ** 3
    first = np.argmax(np.abs(skew))
    axes[:, first] *= np.sign(skew[first])
    axes[:, [0, first]] = axes[:, [first, 0]]
    slides = np.stack([lesion_feature(bag, axes) for bag in bags])

    def accuracy(features: np.ndarray, strength: float) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        return float((cross_val_predict(model, features, labels, cv=5) == labels).mean())

    slide, rna = accuracy(slides, 0.1), accuracy(genes, 0.01)
    mean_pooled = accuracy(np.stack([bag.mean(0) for bag in bags]), 0.1)
    both = accuracy(np.concatenate([slides, genes], axis=1), 0.01)
    assert 0.72 < slide < 0.92
    assert 0.72 < rna < 0.92
    assert mean_pooled < slide - 0.05
    assert both > max(slide, rna) + 0.03


@pytest.mark.parametrize(
    "change", [{"num_patients": 5}, {"feature_dim": 2}, {"weak": 0.7}, {"min_patches": 0}]
)
def test_impossible_configurations_are_refused(change):
    with pytest.raises(GimpError):
        SyntheticConfig(**change)
