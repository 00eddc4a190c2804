"""The benchmark scripts run from end to end, at sizes too small to measure anything."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.browser import executable

from gimp_fast import processor

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the tests lie without the benchmarks"),
]


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that calls the main function of a script and returns what it printed.

    It runs in this process, as starting another takes longer than the script itself. The processes
    whose memory is measured are forked from one that has loaded torch.
    """
    pytest.importorskip("nystrom_attention")
    monkeypatch.syspath_prepend(BENCHMARKS)
    context = get_context("forkserver")
    context.set_forkserver_preload(["gimp_fast.models", "gimp_fast.ops", "nystrom_attention"])
    common = importlib.import_module("_common")
    monkeypatch.setattr(common, "get_context", lambda _: context)

    def call(script: str, *options: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
        # One script has the name of a package that it measures.
        name = Path(script).stem
        name = f"{name}_script" if name == "nystrom_attention" else name
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / script)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert not module.main()
        return capsys.readouterr().out

    modules, threads = set(sys.modules), torch.get_num_threads()
    yield call
    torch.set_num_threads(threads)
    for name in {*sys.modules} - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == BENCHMARKS:
            del sys.modules[name]


def test_every_benchmark_takes_the_options_of_make_bench(run, capsys):
    others = {*BENCHMARKS.glob("gpu_*.py"), *BENCHMARKS.glob("survival_*.py")}
    others.add(BENCHMARKS / "missing_modality.py")
    scripts = sorted({*BENCHMARKS.glob("[a-z]*.py")} - others)
    assert len(scripts) >= 8
    for script in scripts:
        with pytest.raises(SystemExit, match="0"):
            run(script.name, "--help")
        options = capsys.readouterr().out
        assert all(name in options for name in ("--device {cpu,cuda}", "--no-write", "--results"))


PEERS = ("gimp_fast", "nystrom-attention", "two SDPA calls + pinv", "exact SDPA")


def test_nystrom_attention_writes_its_results_and_a_picture(run, tmp_path):
    run("nystrom_attention.py", "--smoke", "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-nystrom_attention.json").read_text())
    picture = tmp_path / "cpu-nystrom_attention-fp32-batch1.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    part = results["results"]["fp32-batch1"]
    assert set(part["errors"]) == set(PEERS)
    timed = {(row["mode"], row["peer"]) for row in part["rows"]}
    skipped = {(row["mode"], row["peer"]) for row in part["skipped"]}
    modes = ("forward", "forward + backward")
    assert timed | skipped == {(mode, peer) for mode in modes for peer in PEERS}
    assert skipped == {(mode, "exact SDPA") for mode in modes}
    for row in part["rows"]:
        assert row["median_ms"] > 0
        assert row["floor_ms"] > 0
        assert row["peak_mib"] >= 0
    assert all("--max-exact is 30" in row["reason"] for row in part["skipped"])


def test_nystrom_attention_runs_at_the_level_of_the_operator_in_bf16(run):
    options = ("--smoke", "--level", "op", "--dtype", "bf16", "--batch", "2", "--no-write")
    printed = run("nystrom_attention.py", *options)
    assert "op, bf16, batch 2" in printed
    assert all(peer in printed for peer in PEERS)
    assert "wrote" not in printed


def test_nystrom_attention_writes_a_grid_of_ratios_for_each_vendor(run, tmp_path):
    printed = run("nystrom_attention.py", "--grid", "--smoke", "--results", tmp_path)
    vendor = processor.vendor() or "unknown-vendor"
    results = json.loads((tmp_path / f"cpu-{vendor}-nystrom_attention_grid.json").read_text())
    assert results["device"] == processor.name()
    assert results["vendor"] == processor.vendor()
    assert results["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert results["products"]["library"] in ("torch", "onednn")
    peers = {"gimp_fast, backend=torch", *PEERS}
    assert set(results["errors"]["64"]) == peers
    cells = {(row["dim"], row["n"], row["threads"], row["mode"]) for row in results["rows"]}
    modes = ("forward", "forward + backward")
    assert cells == {(64, n, t, mode) for n in (20, 40) for t in (1, 2) for mode in modes}
    for row in results["rows"]:
        assert set(row["peers"]) == peers
        times = {name: peer["median_ms"] for name, peer in row["peers"].items()}
        assert row["peers"]["gimp_fast"]["ratio"] == pytest.approx(
            times["nystrom-attention"] / times["gimp_fast"]
        )
    ratios = [row["peers"]["gimp_fast"]["ratio"] for row in results["rows"]]
    assert results["smallest_ratio"]["gimp_fast"]["ratio"] == min(ratios)
    assert f"smallest ratio of gimp_fast: {min(ratios):.2f}×" in printed
    assert {mode: set(found) for mode, found in results["peak_mib"].items()} == {
        mode: peers for mode in modes
    }


def test_needed_rows_writes_ratios_of_equal_results(run, tmp_path):
    run("needed_rows.py", "--smoke", "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-needed_rows.json").read_text())["results"]
    assert [(row["n"], row["rows"]) for row in results] == [(30, "cls"), (30, "masked")]
    for row in results:
        times = {name: found["median_ms"] for name, found in row["times"].items()}
        assert row["ratio"] == pytest.approx(times["whole layers"] / times["needed rows"])
        assert row["error"] <= 5e-3


@pytest.mark.parametrize("wrong", [("--threads", "1"), ("--grid", "--level", "op")])
def test_options_of_the_grid_stand_apart(run, wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("nystrom_attention.py", *wrong)
    assert "--grid" in capsys.readouterr().err


def test_masked_l1_writes_the_part_of_the_floor_of_every_peer(run, tmp_path):
    run("masked_l1.py", "--shape", "2", "40", "24", "--repeats", "2", "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-masked_l1.json").read_text())["results"]
    assert set(results) == {"float32", "bfloat16"}
    for rows in results.values():
        assert len(rows) == 4
        assert all(row["floor_ms"] > 0 and row["copy_gb_per_s"] > 0 for row in rows.values())
        # The floor is of the work, not of the peer.
        assert len({row["floor_ms"] for row in rows.values()}) == 1


def test_masked_reconstruction_writes_every_pair_of_dtypes(run, tmp_path):
    small = ("--rows", "6", "9", "--channels", "24", "--dim", "8", "--repeats", "2")
    run("masked_reconstruction.py", *small, "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-masked_reconstruction.json").read_text())["results"]
    assert len(results) == 6
    for rows in results.values():
        assert len(rows) == 4
        assert sum("peak_mib" in row for row in rows.values()) == 3


def test_training_writes_its_results_and_a_picture(run, tmp_path):
    run("training.py", "--smoke", "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-training.json").read_text())
    assert (tmp_path / "cpu-training-fp32.png").read_bytes().startswith(b"\x89PNG")
    part = results["results"]["fp32"]
    assert set(part["differences"]) == {"pretrain", "finetune"}
    assert part["skipped"] == []
    cases = {(row["mode"], row["n"], row["peer"]) for row in part["rows"]}
    expected = [("pretrain", 120), ("finetune", 90), ("finetune", 115)]
    assert cases == {(*case, peer) for case in expected for peer in ("gimp_fast", "plain")}
    for row in part["rows"]:
        assert row["median_ms"] > 0
        assert row["samples_per_s"] == pytest.approx(row["batch"] * row["steps_per_s"])
        assert row["utilisation"] > 0
        assert ("predicted_mib" in row) == (row["peer"] == "gimp_fast")


def test_training_runs_in_bf16_with_checkpointed_layers(run):
    options = ("--smoke", "--dtype", "bf16", "--checkpoint-layers", "--no-write")
    printed = run("training.py", *options)
    assert "bf16 on cpu" in printed
    assert "wrote" not in printed


def test_reading_writes_every_reader_and_the_index(run, tmp_path):
    small = ("--slides", "2", "--patches", "90", "--channels", "8", "--window", "40")
    small += ("--reads", "2", "--rounds", "1", "--index-slides", "5")
    run("data.py", *small, "--folder", tmp_path, "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-data.json").read_text())
    assert {"numpy.memmap copy", "store fp16", "TRIDENT h5"} <= set(results["windows"])
    for row in results["windows"].values():
        assert row["cold"]["gb_per_s"] > 0
        assert row["warm"]["windows_per_s"] > 0
    assert results["index"]["slides"] == 5


def test_extract_is_timed_and_its_memory_measured(run, tmp_path):
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    small = ("--patches", "20", "--sizes", "30", "--repeats", "1", "--batch", "1")
    run("extract.py", *small, "--folder", tmp_path, "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-extract.json").read_text())
    assert len(results["reading"]) >= 3
    for row in results["reading"]:
        assert set(row["patches_per_s"]) > {"plain loop", "gimp_fast, 1 threads"}
        assert all(rate["median"] > 0 for rate in row["patches_per_s"].values())
    assert results["memory"][0]["patches"] == 30
    assert results["memory"][0]["peak_mib"] > 0
    assert set(results["encoding"]["patches_per_s"]) == {"fp32", "bf16"}


def test_prepare_is_timed_as_a_command(run, tmp_path):
    run("prepare.py", "--files", "20", "--genes", "50", "--folder", tmp_path, "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-prepare.json").read_text())
    assert results["files"] == 20
    assert results["seconds"] > 0
    assert results["peak_mib"] > 10


def test_mil_sets_are_cross_validated_beside_published_figures(run, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("Musk1", "Elephant"):
        np.savez(
            tmp_path / f"{name}.npz",
            features=rng.normal(size=(60, 5)).astype(np.float32),
            offsets=np.arange(0, 61, 3),
            label=np.repeat([1, 0], 10).astype(np.uint8),
        )
    small = ("--models", "dsmil", "clam_mb", "--epochs", "1", "--seeds", "2")
    printed = run("mil_sets.py", "--data", tmp_path, "--results", tmp_path, *small)
    assert "0.932 ± 0.023" in printed
    results = json.loads((tmp_path / "cpu-mil_sets.json").read_text())
    assert results["protocol"]["epochs"] == 1
    for models in results["results"].values():
        for row in models.values():
            assert len(row["runs"]) == 2
            assert 0 <= row["last"]["mean"] <= row["best"]["mean"] <= 1


def test_heatmap_writes_its_results(tmp_path):
    """As a script: the processes whose memory is measured import it again."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "heatmap.py", "--smoke", "--results", tmp_path],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "cpu-heatmap.json").read_text())
    assert [row["patches"] for row in results["results"]] == [50, 400]
    for row in results["results"]:
        assert row["command_s"] > row["attribute_s"] > 0
        assert row["peak_mib"] > 0
    assert "400 patches" in done.stdout


def test_the_viewer_writes_its_results(run, tmp_path):
    if executable() is None:
        pytest.skip("needs a browser")
    printed = run("viewer.py", "--smoke", "--results", tmp_path)
    results = json.loads((tmp_path / "cpu-viewer.json").read_text())["results"]
    assert [(row["patches"], row["page"]) for row in results] == [
        (200, "served"), (200, "one file")
    ]  # fmt: skip
    assert all(row["overlay_ms"] > 0 and row["threshold_ms"] > 0 for row in results)
    assert "200 patches, served" in printed
