"""What each command says if there is no cluster: one message, within seconds, and exit code 2."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from builders.slides import write_slide

from gimp_fast.experiments import main as experiments
from gimp_fast.extract import main as extract
from gimp_fast.prepare import main as prepare
from gimp_fast.tasks import cluster


@pytest.fixture(params=["experiments", "extract", "prepare", "verify"])
def call(request, cohort_folder, tmp_path, monkeypatch):
    """A command that would do something, as a function of further arguments; and its folder."""
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)  # nobody will answer
    out = tmp_path / "out"
    if request.param == "extract":
        pytest.importorskip("tifffile")
        pytest.importorskip("openslide")
        slide = write_slide(tmp_path / "slides")
        main, arguments = extract, ["--slides", slide, "--random-weights", "--out", out]
    elif request.param == "verify":
        main, arguments = prepare, ["--verify", cohort_folder]
    elif request.param == "prepare":
        slides = cohort_folder.parent / "slides"
        main, arguments = prepare, ["--slides", slides, "--no-labels", "--out", out]
        arguments.append("--allow-missing-modality")
    else:
        main, arguments = experiments, ["table1", "--data", cohort_folder, "--out", out]
        arguments += ["--preset", "small"]

    def call(*more: object) -> int:
        code = main([*map(str, arguments), *map(str, more)])
        assert not out.exists()
        return code

    return call


def error_of(capsys) -> str:
    """The last line, before which a step may have been announced."""
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: --scheduler")
    return error


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_no_scheduler_answers(call, capsys):
    address = f"tcp://127.0.0.1:{free_port()}"
    assert call("--scheduler", address) == 2
    assert f"--scheduler {address}: no scheduler answers" in error_of(capsys)


def test_no_such_file(call, tmp_path, capsys):
    assert call("--scheduler", tmp_path / "none.json") == 2
    assert "found no such file; expected an address" in error_of(capsys)


def test_the_file_of_a_scheduler_that_is_gone(call, tmp_path, capsys):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": f"tcp://127.0.0.1:{free_port()}"}))
    assert call("--scheduler", file) == 2
    assert f"--scheduler {file}: no scheduler answers at tcp://127.0.0.1" in error_of(capsys)


def test_dask_is_not_installed(call, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert call("--scheduler", "tcp://127.0.0.1:1") == 2
    assert "expected `pip install 'gimp-fast[cluster]'`" in error_of(capsys)


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:no", "tcp://", "carrier-pigeon://x:1"])
def test_no_address(text, cohort_folder, capsys):
    assert prepare(["--verify", str(cohort_folder), "--scheduler", text]) == 2
    assert f"--scheduler {text}: no scheduler answers" in error_of(capsys)


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"address": 3}'])
def test_no_file_of_a_scheduler(text, cohort_folder, tmp_path, capsys):
    file = tmp_path / "scheduler.json"
    file.write_text(text)
    assert prepare(["--verify", str(cohort_folder), "--scheduler", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_jobs_are_of_this_machine(cohort_folder, tmp_path, capsys):
    arguments = ["table1", "--data", str(cohort_folder), "--out", str(tmp_path / "out")]
    assert experiments([*arguments, "--jobs", "3", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "--jobs are runs of this machine" in capsys.readouterr().err
