"""Good input gives a cohort; what is left out is recorded."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders.prepare_inputs import CASES

from gimp_fast import prepare
from gimp_fast.data import open_cohort


def kinds(stderr: str) -> list[str]:
    return sorted(re.findall(r"\[([a-z-]+)\]$", stderr, flags=re.MULTILINE))


def case_of(slide: Path) -> str:
    return slide.stem[:12]


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


def test_provenance_is_carried_along(inputs, capsys):
    for file in inputs.slides.iterdir():
        with h5py.File(file, "a") as h5:
            h5["features"].attrs["encoder"] = "uni_v1"
            h5["coords"].attrs.update(
                target_magnification=20, patch_size=256, patch_size_level0=512
            )
    assert prepare.main(inputs.argv()) == 0
    assert "encoder uni_v1, 0.5 µm a pixel, 256 pixels" in capsys.readouterr().out
    cohort = open_cohort(inputs.out)
    assert (cohort.encoder, cohort.mpp, cohort.patch_size) == ("uni_v1", 0.5, 256)
    assert ",512," in (inputs.out / "slides.csv").read_text(encoding="utf-8")


def test_a_cohort_without_rna_and_one_without_slides(inputs, capsys):
    labels = ["--labels", str(inputs.labels), "--allow-missing-modality"]
    slides = ["--slides", str(inputs.slides), "--out", str(inputs.folder / "slides-only")]
    assert prepare.main([*labels, *slides]) == 0
    rna = ["--rna", str(inputs.rna), "--out", str(inputs.folder / "rna-only")]
    assert prepare.main([*labels, *rna]) == 0
    capsys.readouterr()
    slides_only, rna_only = (open_cohort(inputs.folder / f"{x}-only") for x in ("slides", "rna"))
    assert (slides_only.has_slides(CASES[0]), slides_only.has_expression(CASES[0])) == (True, False)
    assert (rna_only.has_slides(CASES[0]), rna_only.has_expression(CASES[0])) == (False, True)
    assert prepare.main(["--labels", str(inputs.labels), "--out", "x"]) == 2
    assert "give --slides, --rna" in capsys.readouterr().err
