"""Run folders with missing or damaged files: the error names the file, and nothing is drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gimp_fast.errors import GimpError
from gimp_fast.report import write_report

RUN_FILES = (
    "config.yaml", "environment.json", "metrics.jsonl", "metrics.json", "predictions.csv",
    "embeddings.npz",
)  # fmt: skip


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_missing_file_is_named(make_run, name):
    run = make_run()
    (run / name).unlink()
    with pytest.raises(GimpError, match=rf"{re.escape(name)}: missing"):
        write_report(run)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{[,", b"", b"- 1\n- 2\n"], ids=["bytes", "empty", "list"]
)
@pytest.mark.parametrize("name", [name for name in RUN_FILES if name != "metrics.jsonl"])
def test_a_damaged_file_is_named(make_run, name, content):
    run = make_run()
    (run / name).write_bytes(content)
    with pytest.raises(GimpError, match=re.escape(name)):
        write_report(run)
    assert not (run / "figures").exists()


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_truncated_embeddings_are_named(make_run, keep):
    run = make_run()
    file = run / "embeddings.npz"
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(GimpError, match=r"embeddings\.npz"):
        write_report(run)


def test_pickled_embeddings_are_refused(make_run):
    run = make_run()
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(run / "embeddings.npz", case_id=objects, split=objects, label=objects)
    with pytest.raises(GimpError, match=r"embeddings\.npz"):
        write_report(run)


def test_a_broken_line_of_metrics_is_named_by_number(make_run):
    run = make_run()
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"stage": "finetune", "epo')
    with pytest.raises(GimpError, match=r"metrics\.jsonl.*line 37"):
        write_report(run)


def test_a_prediction_outside_the_classes_is_named(make_run):
    run = make_run()
    text = (run / "predictions.csv").read_text(encoding="utf-8")
    (run / "predictions.csv").write_text(text.replace(",LUSC,", ",COAD,", 1), encoding="utf-8")
    with pytest.raises(GimpError, match=r"predictions\.csv.*COAD"):
        write_report(run)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(GimpError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
