"""The day with a GPU: its commands are valid, and a process that hangs costs its own time only."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# Starts a process that would outlive it, writes a result and half of another, and waits.
HANGS = """
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[-1], "cpu-first.json").write_text(str(child.pid))
pathlib.Path(sys.argv[-1], "cpu-second.json").write_text('{"rows"')
print("begins", flush=True)
child.wait()
"""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function that runs parts of Python code and returns the code and the written results."""
    import gpu_day
    from _gpu_plan import Command, Part

    def day(*parts: list[str], budget: float = 60) -> tuple[int, dict]:
        plan = [
            Part(
                number,
                "codes",
                tuple(Command(f"code-{i}", ("-c", code)) for i, code in enumerate(codes)),
            )
            for number, codes in enumerate(parts, start=1)
        ]
        monkeypatch.setattr(gpu_day, "plan", lambda dry_run: plan)
        options = ("--dry-run", "--budget", str(budget))
        folders = ("--results", str(tmp_path), "--logs", str(tmp_path / "logs"))
        code = gpu_day.main([*options, *folders])
        return code, json.loads((tmp_path / "cpu-gpu_day.json").read_text())["parts"]

    monkeypatch.setattr(gpu_day, "SHORTEST_S", 0.5)
    return day


def test_a_process_that_hangs_is_stopped_and_the_next_part_runs(run, capsys):
    code, parts = run([HANGS, "print(1)"], ["print('well')"], budget=5)
    first, second = parts["1"]["processes"]
    assert (first["outcome"], first["last_line"]) == ("stopped", "begins")
    assert first["results"]["cpu-second"] is None
    assert not is_running(first["results"]["cpu-first"])
    assert second["outcome"] == "left out"
    assert parts["2"]["processes"][0]["last_line"] == "well"
    assert code == 0
    printed = capsys.readouterr().out
    assert ": code-0 stopped, code-1 left out\npart 2, codes, " in printed


def is_running(process: int) -> bool:
    """False also of one that has ended and that nobody has asked for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_a_failure_is_told_with_its_last_line_and_the_rest_runs(run, capsys):
    code, parts = run(["raise SystemExit('a reason')", "print(2)"])
    assert [row["outcome"] for row in parts["1"]["processes"]] == ["failed", "done"]
    assert code == 1
    assert "code-0 failed, code-1 done (a reason; " in capsys.readouterr().out


@pytest.mark.parametrize("dry_run", [False, True], ids=["gpu", "dry-run"])
def test_every_script_takes_the_options_of_the_plan(dry_run, monkeypatch):
    from _gpu_plan import plan

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    commands = [command for part in plan(dry_run) for command in part.commands if command.writes]
    for command in commands:
        script, *options = command.arguments
        parsed = parse(script, [*options, "--results", "a-folder"], monkeypatch)
        assert parsed.device == ("cpu" if dry_run else "cuda")
        assert parsed.results == Path("a-folder")
    assert {command.arguments[0] for command in commands} >= {
        f"benchmarks/{stem}.py"
        for stem in ("nystrom_attention", "training", "masked_l1", "_gpu_tuning")
    }


class Parsed(Exception):
    """Ends a script that has no function to parse its options."""


def parse(script: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """The options of a script, which is not run."""
    path = BENCHMARKS.parent / script
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if hasattr(module, "parse"):
        return module.parse(options)
    found = []

    def parse_args(parser, arguments=None):
        found.append(parser.parse_known_args(arguments)[0])
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [script, *options])
        with pytest.raises(Parsed):
            module.main()
    return found[0]


def test_without_a_gpu_it_names_the_dry_run(monkeypatch, capsys):
    from gpu_day import main

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "no CUDA GPU is visible to torch; --dry-run needs none" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_passes_on_the_parts_and_the_dry_run(tmp_path):
    done = subprocess.run(
        ["make", "-n", "gpu-day", "PARTS=2 3", "DRY=1", f"VENV={tmp_path}"],
        cwd=BENCHMARKS.parent, capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    printed = " ".join(done.stdout.replace("\\\n", " ").split())
    assert f"{tmp_path}/bin/python benchmarks/gpu_day.py --parts 2 3 --dry-run" in printed


@pytest.mark.slow
def test_a_dry_run_writes_the_results_of_its_parts(tmp_path, capsys):
    from gpu_day import main

    folders = ("--results", str(tmp_path), "--logs", str(tmp_path / "logs"))
    assert main(["--dry-run", "--parts", "1", "2", "4", *folders]) == 0, capsys.readouterr().out
    parts = json.loads((tmp_path / "cpu-gpu_day.json").read_text())["parts"]
    assert set(parts) == {"1", "2", "4"}
    outcomes = {row["outcome"] for part in parts.values() for row in part["processes"]}
    assert outcomes == {"done"}
    (operator,) = parts["2"]["processes"]
    rows = operator["results"]["cpu-nystrom_attention_op"]["results"]["bf16-batch1"]["rows"]
    assert [row["mode"] for row in rows] == ["forward", "forward + backward"]
    (configurations,) = parts["4"]["processes"]
    rows = configurations["results"]["cpu-tuning"]["rows"]
    assert {row["family"] for row in rows} >= {"product", "rows", "reduce_bwd"}
    assert all(row["table"] != row["other"] for row in rows)
