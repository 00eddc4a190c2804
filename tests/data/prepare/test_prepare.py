"""The command: good input gives a cohort; bad input gives every fault, exit 2, and no cohort."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.data.synthetic.patients import SyntheticConfig, write_synthetic_cohort

CONFIG = SyntheticConfig(
    num_patients=20, feature_dim=6, num_genes=30, median_patches=45, max_patches=60
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "raw"
    write_synthetic_cohort(folder, CONFIG)
    return folder


class Raw:
    """A copy of the raw files that a test may damage."""

    def __init__(self, folder: Path):
        self.folder, self.out = folder, folder.parent / "cohort"
        self.labels, self.split = folder / "labels.csv", folder / "splits" / "split_0.csv"

    def argv(self, *extra: str) -> list[str]:
        slides = [str(folder) for folder in sorted((self.folder / "slides").iterdir())]
        paths = {"--rna": "rna", "--labels": "labels.csv", "--splits": "splits"}
        argv = ["--slides", *slides, "--out", str(self.out)]
        for name, path in paths.items():
            argv += [name, str(self.folder / path)]
        return [*argv, *extra]

    def slide(self, kind: str, index: int = 0) -> Path:
        return sorted((self.folder / "slides" / kind).iterdir())[index]

    def rna_of(self, case: str) -> Path:
        """The primary tumour's file."""
        sheet = (self.folder / "rna" / "gdc_sample_sheet.tsv").read_text(encoding="utf-8")
        row = next(line for line in sheet.splitlines() if f"{case}-01A" in line).split("\t")
        return self.folder / "rna" / row[0] / row[1]

    def edit(self, file: Path, old: str, new: str, count: int = -1) -> None:
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, count), encoding="utf-8")

    def forget_rna(self, case: str) -> None:
        sheet = self.folder / "rna" / "gdc_sample_sheet.tsv"
        lines = sheet.read_text(encoding="utf-8").splitlines(keepends=True)
        sheet.write_text("".join(line for line in lines if case not in line), encoding="utf-8")


@pytest.fixture
def raw(tmp_path, pristine) -> Raw:
    shutil.copytree(pristine, tmp_path / "raw")
    return Raw(tmp_path / "raw")


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


def test_slides_and_rna_are_checked_although_the_labels_are_missing(raw, capsys):
    raw.labels.unlink()
    truncate(raw)
    negative_fpkm(raw)
    assert prepare.main(raw.argv()) == 2
    found = kinds(capsys.readouterr().err)
    assert found == ["missing-file", "negative-expression", "truncated-file"]


def test_a_good_cohort_prints_a_summary(raw, capsys):
    assert prepare.main(raw.argv("--name", "mine")) == 0
    printed = capsys.readouterr().out
    assert "SYNTHETIC cohort 'mine'" in printed
    assert "patients  20 (20 with RNA): 10 SYN-A, 10 SYN-B" in printed
    assert "rna-sample: not a primary tumour" in printed
    cohort = open_cohort(raw.out)
    assert cohort.name == "mine"
    assert sorted(path.name for path in raw.out.parent.iterdir()) == ["cohort", "raw"]


def test_a_cohort_may_be_moved(raw):
    assert prepare.main(raw.argv()) == 0
    moved = raw.out.with_name("moved")
    shutil.move(raw.out, moved)
    cohort = open_cohort(moved)
    assert cohort.bag(cohort.case_ids[0]).read(0, 1).shape == (1, 6)


def test_slides_may_be_moved_into_the_cohort(raw):
    assert prepare.main(raw.argv()) == 0
    before = open_cohort(raw.out).fingerprint
    shutil.move(raw.folder / "slides", raw.out / "slides")
    raw.edit(raw.out / "slides.csv", f"{raw.folder.resolve()}/", "")
    cohort = open_cohort(raw.out)
    assert cohort.fingerprint == before
    assert cohort.bag(cohort.case_ids[0]).read(0, 1).shape == (1, 6)


def test_missing_modality_on_request(raw, capsys):
    without_rna, without_slide = case_of(raw.slide("pt")), case_of(raw.slide("clam"))
    raw.forget_rna(without_rna)
    lines = raw.labels.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(without_slide)]
    label = next(line for line in lines if line.startswith(without_slide)).split(",")[2]
    text = "\n".join([*kept, f"{without_slide},,{label}"]) + "\n"
    raw.labels.write_text(text, encoding="utf-8")
    assert prepare.main(raw.argv()) == 2
    assert kinds(capsys.readouterr().err) == ["missing-rna", "missing-slide"]
    assert prepare.main(raw.argv("--allow-missing-modality")) == 0
    cohort = open_cohort(raw.out)
    assert len(cohort.case_ids) == 20
    assert not cohort.has_expression(without_rna)
    assert cohort.has_slides(without_rna)
    assert cohort.has_expression(without_slide)
    assert not cohort.has_slides(without_slide)
    assert cohort.expression([without_slide]).shape == (1, 30)


def test_what_is_left_out_is_recorded(raw, capsys):
    lines = raw.labels.read_text(encoding="utf-8").splitlines()
    unlabelled, blank = lines[1].split(",")[0], lines[-1].split(",")[0]
    kept = [line for line in lines if not line.startswith(unlabelled)]
    kept = [f"{line[: line.rindex(',')]}," if line.startswith(blank) else line for line in kept]
    raw.labels.write_text("\n".join(kept) + "\n", encoding="utf-8")
    text = raw.split.read_text(encoding="utf-8").splitlines()
    text = [line for line in text if not line.startswith(unlabelled)]
    raw.split.write_text("\n".join(text) + "\n", encoding="utf-8")
    assert prepare.main(raw.argv()) == 0
    dropped = (raw.out / "dropped.csv").read_text(encoding="utf-8")
    assert re.search(rf"^slide,{unlabelled}-.*,not labelled,", dropped, re.MULTILINE)
    assert re.search(rf"^rna-sample,{unlabelled}-01A,.*,patient not labelled,", dropped, re.M)
    assert re.search(rf"^slide,{blank}-.*,no label,", dropped, re.MULTILINE)
    assert re.search(rf"^split-entry,{blank},", dropped, re.MULTILINE)
    assert len(open_cohort(raw.out).case_ids) == 18


def test_zero_padded_ids_survive(tmp_path):
    slides, cases = tmp_path / "slides", [f"{n:04d}" for n in range(12)]
    slides.mkdir()
    labels = ["case_id,slide_id,label"]
    for n, case in enumerate(cases):
        torch.save(torch.full((n + 1, 3), float(n)), slides / f"0{case}.pt")
        labels.append(f"{case},0{case}.svs,{'AB'[n % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(labels), encoding="utf-8")
    values = "\t".join(map(str, range(12)))
    matrix = "id\t" + "\t".join(cases) + f"\nENSG1.1\t{values}\n"
    (tmp_path / "rna.tsv").write_text(matrix, encoding="utf-8")
    argv = ["--slides", str(slides), "--rna", str(tmp_path / "rna.tsv")]
    argv += ["--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "cohort")]
    assert prepare.main(argv) == 0
    cohort = open_cohort(tmp_path / "cohort")
    assert cohort.case_ids == tuple(cases)
    assert cohort.bag("0007").slide_ids == ("00007",)
    assert cohort.expression(["0007"]).tolist() == [[7.0]]
    assert {p: len(c) for p, c in cohort.split("split_0").items()} == {
        "train": 6,
        "val": 3,
        "test": 3,
    }


@pytest.mark.parametrize("content", ["file.txt", None], ids=["non-empty", "a-file"])
def test_an_existing_output_is_never_touched(raw, capsys, content):
    if content:
        raw.out.mkdir()
        (raw.out / content).touch()
    else:
        raw.out.touch()
    assert prepare.main(raw.argv()) == 2
    assert kinds(capsys.readouterr().err) == ["output-exists"]
    assert raw.out.is_file() or [path.name for path in raw.out.iterdir()] == [content]


def test_an_empty_output_folder_is_used(raw):
    raw.out.mkdir()
    assert prepare.main(raw.argv()) == 0
    assert len(open_cohort(raw.out).case_ids) == 20


def test_a_failed_write_leaves_nothing(raw, capsys, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gimp_fast.data.prepare.cohort_writer.write_table", full_disk)
    assert prepare.main(raw.argv()) == 2
    assert "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in raw.folder.parent.iterdir()) == ["raw"]


KILLED_WRITE = """
import sys, time
import gimp_fast.data.prepare.cohort_writer as writer
from gimp_fast import prepare
from pathlib import Path

def stuck(*args):
    Path(sys.argv[1]).touch()
    time.sleep(600)

writer._manifest = stuck
prepare.main(sys.argv[2:])
"""


def test_a_kill_while_writing_leaves_no_cohort(raw):
    mark = raw.folder.parent / "mark"
    process = subprocess.Popen([sys.executable, "-c", KILLED_WRITE, str(mark), *raw.argv()])
    try:
        deadline = time.monotonic() + 120
        while not mark.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert mark.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not raw.out.exists()
    partial = [path for path in raw.folder.parent.iterdir() if path.name.startswith(".cohort")]
    assert len(partial) == 1
    assert not (partial[0] / "cohort.json").exists()
    assert prepare.main(raw.argv()) == 0


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


def test_synthetic_says_so(tmp_path, capsys):
    out = tmp_path / "demo"
    assert prepare.main(["--synthetic", "--patients", "20", "--seed", "3", "--out", str(out)]) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    assert open_cohort(out / "cohort").synthetic
    assert "SYNTHETIC" in (out / "raw" / "README.txt").read_text(encoding="utf-8")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from gimp_fast import prepare; prepare.build_parser().format_help();"
        "print([m for m in ('torch', 'pandas', 'h5py', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_real_patients(tmp_path, real_data, capsys):
    data = real_data / "tcga_nsclc"
    argv = ["--slides", str(data / "pt_files"), "--rna", str(data / "rna.log2.tsv.gz")]
    argv += ["--labels", str(data / "slides.csv"), "--splits", str(data / "splits")]
    assert prepare.main([*argv, "--out", str(tmp_path / "nsclc")]) == 0
    assert "patches   1 / 40 / 179 a slide" in capsys.readouterr().out
    cohort = open_cohort(tmp_path / "nsclc")
    assert not cohort.synthetic
    assert len(cohort.case_ids) == 701
    assert sum(len(cohort.bag(case).slides) for case in cohort.case_ids) == 780
    assert (cohort.feature_dim, len(cohort.gene_ids)) == (192, 50)
    assert cohort.expression_transform == "as given"
    names = [f"{kind}_{n}" for kind in ("random", "site") for n in range(5)]
    assert list(cohort.split_names) == names
    site = cohort.split("site_4")
    places = {part: {case[5:7] for case in cases} for part, cases in site.items()}
    assert not places["train"] & places["test"]
    bag = cohort.bag(cohort.case_ids[0])
    assert np.isfinite(bag.read()).all()
