"""`--check`, `--report` and `--verify`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders.prepare_inputs import CASES, Inputs

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError


def break_two(inputs: Inputs) -> list[Path]:
    files = sorted(inputs.slides.iterdir())[:2]
    files[0].write_bytes(files[0].read_bytes()[:-100])
    with h5py.File(files[1], "a") as h5:
        h5["features"][0, 0] = np.nan
    return files


def test_check_writes_nothing_and_reports_everything(inputs, capsys):
    report = inputs.folder / "report.json"
    argv = inputs.argv("--check", "--report", report)
    assert prepare.main(argv) == 0
    assert "no fault found" in capsys.readouterr().out
    assert not inputs.out.exists()
    assert json.loads(report.read_text("utf-8"))["faults"] == []
    files = break_two(inputs)
    assert prepare.main(argv) == 2
    error = capsys.readouterr().err
    assert "2 faults in the cohort" in error
    assert "by kind: 1 truncated-file, 1 features-not-finite" in error
    found = json.loads(report.read_text("utf-8"))
    assert found["faults_by_kind"] == {"truncated-file": 1, "features-not-finite": 1}
    assert {fault["where"].split("[")[0] for fault in found["faults"]} == set(map(str, files))
    assert set(found["faults"][0]) == {"kind", "where", "found", "expected"}


def test_the_report_says_what_is_left_out(inputs):
    shutil.copy(inputs.slides / f"{CASES[0]}-01Z.h5", inputs.slides / "stranger.h5")
    report = inputs.folder / "report.json"
    assert prepare.main(inputs.argv("--report", report)) == 0
    found = json.loads(report.read_text("utf-8"))
    assert [row["id"] for row in found["dropped"]] == ["stranger"]
    assert found["dropped_by_reason"] == {"slide: not labelled": 1}
    assert "30 (30 with RNA)" in found["summary"]


@pytest.mark.parametrize("pack", [[], ["--pack"]], ids=["files", "packed"])
def test_verify(inputs, capsys, pack):
    assert prepare.main(inputs.argv(*pack)) == 0
    assert prepare.main(["--verify", str(inputs.out)]) == 0
    assert "30 patients, 30 slides, 4 genes intact" in capsys.readouterr().out
    if pack:
        content = bytearray((inputs.out / "store.safetensors").read_bytes())
        content[8 + int.from_bytes(content[:8], "little") + 50] ^= 1
        (inputs.out / "store.safetensors").write_bytes(content)
    else:
        with h5py.File(inputs.slides / f"{CASES[9]}-01Z.h5", "a") as h5:
            h5["features"][3, 1] += 1
    assert prepare.main(["--verify", str(inputs.out)]) == 2
    assert ("[checksum]" if pack else "[changed-file]") in capsys.readouterr().err


@pytest.mark.parametrize("name", ["expression.npy", "patch_order.npy"])
def test_changed_arrays_are_noticed(inputs, name):
    assert prepare.main(inputs.argv("--order", "hilbert")) == 0
    content = bytearray((inputs.out / name).read_bytes())
    content[-3] ^= 1
    (inputs.out / name).write_bytes(content)
    with pytest.raises(GimpError, match="checksum"):
        open_cohort(inputs.out).expression(CASES[:1])


def test_a_report_that_cannot_be_written(inputs, capsys):
    assert prepare.main(inputs.argv("--report", inputs.labels / "report.json")) == 2
    assert "report.json: cannot be written" in capsys.readouterr().err
    assert not inputs.out.exists()
