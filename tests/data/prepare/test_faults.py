"""Bad input gives every fault, exit code 2, and no cohort."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders.prepare_inputs import CASES, GENES, Raw

from gimp_fast import prepare


def kinds(stderr: str) -> list[str]:
    return sorted(re.findall(r"\[([a-z-]+)\]$", stderr, flags=re.MULTILINE))


def case_of(slide: Path) -> str:
    return slide.stem[:12]


def rewrite(file: Path, features: np.ndarray) -> None:
    with h5py.File(file, "w") as h5:
        h5["features"] = features.astype(np.float32)


def features_with(value: float) -> np.ndarray:
    features = np.zeros((50, 6))
    features[17, 3] = value
    return features


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("the-bomb-went-off",))


def truncate(raw: Raw) -> None:
    file = raw.slide("clam")
    file.write_bytes(file.read_bytes()[:-200])


def duplicate_row(raw: Raw) -> None:
    text = raw.labels.read_text(encoding="utf-8")
    raw.labels.write_text(text + text.splitlines()[-1] + "\n", encoding="utf-8")


def conflicting_label(raw: Raw) -> None:
    case = case_of(raw.slide("clam"))
    shutil.copy(raw.slide("clam"), raw.slide("clam").with_name("extra.h5"))
    text = raw.labels.read_text(encoding="utf-8")
    other = "SYN-B" if f"{raw.slide('clam').stem},SYN-A" in text else "SYN-A"
    raw.labels.write_text(f"{text}{case},extra,{other}\n", encoding="utf-8")


def leak(raw: Raw) -> None:
    text = raw.split.read_text(encoding="utf-8")
    train = next(line for line in text.splitlines() if line.endswith(",train"))
    raw.split.write_text(text + train.replace("train", "test") + "\n", encoding="utf-8")


def negative_fpkm(raw: Raw) -> None:
    file = raw.rna_of(case_of(raw.slide("clam")))
    lines = file.read_text(encoding="utf-8").splitlines()
    cells = lines[-1].split("\t")
    cells[7] = "-0.5"
    file.write_text("\n".join([*lines[:-1], "\t".join(cells)]) + "\n", encoding="utf-8")


def only_coords(raw: Raw) -> None:
    with h5py.File(raw.slide("clam"), "w") as h5:
        h5["coords"] = np.zeros((5, 2), np.int64)


def other_encoder(raw: Raw) -> None:
    with h5py.File(raw.slide("trident"), "a") as h5:
        h5["features"].attrs["encoder"] = "another"


FAULTS = {
    "truncated-h5": (truncate, "truncated-file"),
    "not-an-h5": (lambda r: r.slide("stamp").write_bytes(b"x" * 99), "unreadable-file"),
    "feature-width": (lambda r: rewrite(r.slide("clam"), np.ones((9, 7))), "feature-width"),
    "nan": (lambda r: rewrite(r.slide("clam"), features_with(np.nan)), "features-not-finite"),
    "infinity": (lambda r: rewrite(r.slide("clam"), features_with(np.inf)), "features-not-finite"),
    "no-rna": (lambda r: r.forget_rna(case_of(r.slide("pt"))), "missing-rna"),
    "empty-bag": (lambda r: rewrite(r.slide("clam"), np.ones((0, 6))), "empty-bag"),
    "duplicate-id": (duplicate_row, "duplicate-slide"),
    "two-files-a-slide": (
        lambda r: shutil.copy(r.slide("clam"), r.slide("pt").with_name(r.slide("clam").name)),
        "duplicate-slide",
    ),
    "label-column": (lambda r: r.edit(r.labels, "label", "subtype", 1), "missing-column"),
    "split-column": (lambda r: r.edit(r.split, "split", "part", 1), "missing-column"),
    "pickle-bomb": (
        lambda r: r.slide("pt").write_bytes(pickle.dumps(Bomb(), protocol=2)),
        "unsafe-pickle",
    ),
    "torch-pickle-bomb": (lambda r: torch.save(Bomb(), r.slide("pt")), "unsafe-pickle"),
    "missing-slide": (lambda r: r.slide("clam").unlink(), "missing-slide-file"),
    "missing-rna-file": (lambda r: r.rna_of(case_of(r.slide("clam"))).unlink(), "missing-file"),
    "missing-labels": (lambda r: r.labels.unlink(), "missing-file"),
    "label-conflict": (conflicting_label, "label-conflict"),
    "one-class": (lambda r: r.edit(r.labels, "SYN-B", "SYN-A"), "one-class"),
    "split-leak": (leak, "split-leak"),
    "split-stranger": (lambda r: r.edit(r.split, "SYNT-00-0001", "X", 1), "unknown-patient"),
    "negative-fpkm": (negative_fpkm, "negative-expression"),
    "coords-only": (only_coords, "no-features"),
    "mixed-encoders": (other_encoder, "mixed-encoders"),
    "no-sheet": (
        lambda r: (r.folder / "rna" / "gdc_sample_sheet.tsv").unlink(),
        "sample-sheet",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_one_fault_is_one_message(raw, capsys, monkeypatch, case):
    monkeypatch.chdir(raw.folder)
    damage, kind = FAULTS[case]
    damage(raw)
    assert prepare.main(raw.argv()) == 2
    stderr = capsys.readouterr().err
    assert kinds(stderr) == [kind]
    assert stderr.count("error:") == 1
    assert "Traceback" not in stderr
    assert not raw.out.exists()
    assert sorted(path.name for path in raw.folder.parent.iterdir()) == ["raw"]
    assert not (raw.folder / "the-bomb-went-off").exists()


def test_all_faults_are_reported_together(raw, capsys):
    truncate(raw)
    rewrite(raw.slide("clam", 1), np.ones((9, 7)))
    rewrite(raw.slide("clam", 2), features_with(np.nan))
    rewrite(raw.slide("clam", 3), np.ones((0, 6)))
    torch.save(Bomb(), raw.slide("pt"))
    raw.forget_rna(case_of(raw.slide("pt", 1)))
    duplicate_row(raw)
    leak(raw)
    negative_fpkm(raw)
    assert prepare.main(raw.argv()) == 2
    stderr = capsys.readouterr().err
    assert kinds(stderr) == sorted(
        [
            "truncated-file",
            "feature-width",
            "features-not-finite",
            "empty-bag",
            "unsafe-pickle",
            "missing-rna",
            "duplicate-slide",
            "split-leak",
            "negative-expression",
        ]
    )
    assert "9 faults in the cohort" in stderr
    assert "first in row 17" in stderr


def test_rna_is_checked_although_the_labels_are_missing(raw, capsys):
    raw.labels.unlink()
    negative_fpkm(raw)
    assert prepare.main(raw.argv()) == 2
    assert kinds(capsys.readouterr().err) == ["missing-file", "negative-expression"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out", "x"], "give --slides, --rna, --labels"),
        (["--out", "x", "--synthetic", "--labels", "l"], "leave out --labels"),
        (["--out", "x", "--synthetic", "--patients", "3"], "20 or more"),
    ],
)
def test_impossible_requests(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    assert prepare.main(argv) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_patients_of_whom_there_is_nothing(inputs, capsys):
    text = inputs.labels.read_text(encoding="utf-8")
    inputs.labels.write_text(f"{text}TCGA-AA-9999,,X,AA\n", encoding="utf-8")
    for given in (["--slides", inputs.slides], ["--rna", inputs.rna]):
        argv = ["--labels", inputs.labels, "--allow-missing-modality", "--check", *given]
        assert prepare.main(list(map(str, argv))) == 2
        assert "'TCGA-AA-9999' with neither slide nor RNA" in capsys.readouterr().err


def test_rna_of_other_patients_is_one_fault(inputs, capsys):
    others = [f"TCGA-ZZ-{n:04d}" for n in range(len(CASES))]
    inputs.write_rna(inputs.rna, others, GENES, inputs.matrix)
    for extra in ([], ["--allow-missing-modality"]):
        assert prepare.main(inputs.argv(*extra)) == 2
        error = capsys.readouterr().err
        assert error.count("error:") == 1
        assert "none of 30 labelled patients, such as 'TCGA-" in error
        assert "'TCGA-ZZ-0000' [no-samples]\n" in error


def test_mixed_resolutions_are_a_fault(inputs, capsys):
    for number, file in enumerate(sorted(inputs.slides.iterdir())):
        with h5py.File(file, "a") as h5:
            h5["coords"].attrs["target_magnification"] = 40 if number == 4 else 20
    assert prepare.main(inputs.argv()) == 2
    assert (
        "0.25 µm a pixel; expected 0.5 µm a pixel, as in most slides [mixed-mpp]"
        in capsys.readouterr().err
    )


def test_a_hint_where_the_features_lie_one_folder_deeper(inputs, capsys):
    argv = inputs.argv()
    argv[1] = str(inputs.folder)
    assert prepare.main(argv) == 2
    assert "there are some in 'slides'" in capsys.readouterr().err
