"""Patients of training are recognised when they come back under other names and in other files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders.runs import QUICK

import gimp_fast
from gimp_fast import predict
from gimp_fast.data import open_cohort
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.inference.export import export_model
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.training import load_config, train
from gimp_fast.verbs import prepare_cohort

SPLIT = "split_0"


def write_slide(file: Path, features: np.ndarray, rng: np.random.Generator) -> None:
    """The rows in another order, in half precision; every other slide as another format."""
    features = features[rng.permutation(len(features))]
    if file.suffix == ".pt":
        torch.save(torch.from_numpy(features).to(torch.bfloat16), file)
        return
    with h5py.File(file, "w") as h5:
        h5["features"] = features.astype(np.float16)
        h5["coords"] = rng.integers(0, 100, (len(features), 2)) * 256


def renamed(cohort, folder: Path, names: dict[str, str], what: str, run: Path, **changes) -> Path:
    """A cohort of some patients under other names: ``what`` of them is in files of another kind."""
    rng, out = np.random.default_rng(1), folder / "cohort"
    (folder / "slides").mkdir(parents=True)
    rows = ["case_id,slide_id,label"]
    for place, (case, name) in enumerate(names.items()):
        slides = cohort.bag(case).slides if what != "expression" else ()
        for number, slide in enumerate(slides):
            slide_id = f"{name}-{number}"
            suffix = ".pt" if place % 2 else ".h5"
            features = slide.rows.read(0, slide.num_patches)
            write_slide(folder / "slides" / f"{slide_id}{suffix}", features, rng)
            rows.append(f"{name},{slide_id},{cohort.classes[cohort.label(case)]}")
        if not slides:
            rows.append(f"{name},,{cohort.classes[cohort.label(case)]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    rna = {}
    if what != "features":
        # As TPM is to FPKM: every patient on a scale of its own, and rounded.
        linear = (np.exp2(cohort.expression(names)) - 1) * rng.uniform(0.3, 3, (len(names), 1))
        lines = [",".join(["gene_id", *names.values()])]
        for gene, values in zip(cohort.gene_ids, linear.T, strict=True):
            lines.append(",".join([gene, *(f"{value:.3f}" for value in values)]))
        (folder / "tpm.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        rna = {"paths": (folder / "tpm.csv",), "genes_of": run}
    prepare_cohort(
        PrepareOptions(
            **{
                "slides": (folder / "slides",) if what != "expression" else (),
                "rna": RnaOptions(**rna),
                "cases": folder / "labels.csv",
                "out": out,
                "allow_missing_modality": True,
                **changes,
            }
        )
    )
    return out


@pytest.fixture(scope="module", params=["run", "export"])
def model(request, gimp_run, tmp_path_factory):
    """A run, and what is exported of it."""
    if request.param == "run":
        return gimp_run
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_model(gimp_fast.load(gimp_run), folder)
    return folder


def part_of(cohort, part: str, keep: bool = False) -> dict[str, str]:
    cases = cohort.split(SPLIT)[part]
    return {case: case if keep else f"NEW{number:03d}" for number, case in enumerate(cases)}


@pytest.mark.parametrize("what", ["expression", "features", "both"])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_under_other_names(cohort, model, tmp_path, part, what):
    trained = gimp_fast.load(model)
    names = part_of(cohort, part)
    new = open_cohort(renamed(cohort, tmp_path, names, what, model))
    found = predict_cohort([trained], new)
    messages = {
        case: [c.message for c in cautions if c.code == "training-patient"]
        for case, cautions in found.cautions.items()
    }
    same = {"both": "expression and features"}.get(what, what)
    name = {"train": "training", "val": "validation"}.get(part)
    expected = [] if part == "test" else [f"of the {name} patients: same {same}"]
    assert messages == dict.fromkeys(names.values(), expected)
    assert found.unchecked == ()
    assert ("new" in found.metrics(20)) == (part == "test")
    assert ("seen" in found.metrics(20)) == (part != "test")


def test_the_id_alone(cohort, gimp_run, tmp_path):
    """Other data under the same id: still the patient, and said how it differs."""
    train, test = (cohort.split(SPLIT)[part] for part in ("train", "test"))
    names = dict(zip(test, train, strict=False))
    new = open_cohort(renamed(cohort, tmp_path, names, "both", gimp_run))
    found = predict_cohort([gimp_fast.load(gimp_run)], new)
    for case in names.values():
        (message,) = [c.message for c in found.cautions[case] if c.code == "training-patient"]
        assert message.startswith("of the training patients: same id, but other expression and ")


@pytest.mark.parametrize("order", ["hilbert", "row"])
@pytest.mark.parametrize("pack", ["fp16", "bf16", None])
def test_packed_and_in_another_order(cohort_folder, cohort, gimp_run, tmp_path, order, pack):
    raw = cohort_folder.parent / "raw"
    slides = tuple(raw / "slides" / name for name in ("clam", "trident"))
    files = [file for folder in slides for file in sorted(folder.iterdir())]
    cases = tmp_path / "cases.csv"
    lines = [f"X{number},{file.stem}" for number, file in enumerate(files)]
    cases.write_text("\n".join(["case_id,slide_id", *lines]), encoding="utf-8")
    options = PrepareOptions(
        slides=slides, rna=RnaOptions(), cases=cases, out=tmp_path / "new", order=order,
        allow_missing_modality=True, **({"pack": pack} if pack else {}),
    )  # fmt: skip
    prepare_cohort(options)
    owner = {s.slide_id: c for c in cohort.case_ids for s in cohort.bag(c).slides}
    test = set(cohort.split(SPLIT)["test"])
    found = predict_cohort([gimp_fast.load(gimp_run)], open_cohort(tmp_path / "new"))
    for number, file in enumerate(files):
        codes = {caution.code for caution in found.cautions[f"X{number}"]}
        assert ("training-patient" in codes) == (owner[file.stem] not in test)


def test_the_command_says_it_before_the_metrics(cohort, gimp_run, tmp_path, capsys):
    names = part_of(cohort, "train") | {c: f"T{c[-4:]}" for c in cohort.split(SPLIT)["test"]}
    new = renamed(cohort, tmp_path, names, "both", gimp_run)
    argv = ["--run", gimp_run, "--data", new, "--out", tmp_path / "p.csv", "--bootstrap", 20]
    assert predict.main(list(map(str, argv))) == 0
    said = capsys.readouterr().out
    assert "CAUTION: the model was trained or chosen on 24 of these patients" in said
    assert said.index("CAUTION") < said.index("labels known, without them: accuracy")
    assert "/8, 95 % CI" in said
    assert "training-patient  24/32" in said
    summary = json.loads((tmp_path / "p.warnings.json").read_text(encoding="utf-8"))
    assert summary["metrics"]["new"]["n"] == 8
    assert summary["metrics"]["seen"]["n"] == 24


def test_training_warns_of_patients_in_two_parts(cohort_folder, tmp_path):
    """One patient of training is among the test patients too, under another name."""
    folder = shutil.copytree(cohort_folder.parent / "raw", tmp_path / "raw")
    labels = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
    case = open_cohort(cohort_folder).split(SPLIT)["train"][0]
    (slide,) = {line.split(",")[1] for line in labels if line.startswith(case)}
    (file,) = (folder / "slides").rglob(f"{slide}.*")
    shutil.copy(file, file.with_stem("COPY"))
    copied = next(line for line in labels if line.startswith(case)).replace(slide, "COPY")
    labels.append(copied.replace(case, "COPY"))
    (folder / "labels.csv").write_text("\n".join(labels), encoding="utf-8")
    with (folder / "splits" / "split_0.csv").open("a", encoding="utf-8") as splits:
        splits.write("COPY,test\n")
    options = PrepareOptions(
        slides=tuple((folder / "slides").iterdir()), labels=folder / "labels.csv",
        splits=(folder / "splits",), out=tmp_path / "cohort", allow_missing_modality=True,
    )  # fmt: skip
    prepare_cohort(options)
    said: list[str] = []
    config = load_config(overrides=[*QUICK, "modalities=slide", "method=mean_pool"])
    train(config, tmp_path / "cohort", tmp_path / "run", log=said.append)
    (warning,) = [text for text in said if text.startswith("warning: ")]
    assert "the data of 1 of 9 test patients are in training or validation too" in warning
    assert "COPY (of the training patients: same features)" in warning


def test_an_export_holds_no_id(gimp_run, cohort, tmp_path):
    export_model(gimp_fast.load(gimp_run), tmp_path / "model")
    for file in (tmp_path / "model").iterdir():
        content = file.read_bytes()
        assert not [case for case in cohort.case_ids if case.encode() in content]


def test_every_part_of_a_run_carries_the_same_digests(gimp_run, tmp_path):
    trained = gimp_fast.load(gimp_run)
    assert trained.known_patients.parts.count("train") == 24
    assert trained.known_patients.parts.count("val") == 8
    export_model(trained, tmp_path / "model")
    assert (
        gimp_fast.load(tmp_path / "model").facts["known_patients"]
        == (trained.facts["known_patients"])
    )
