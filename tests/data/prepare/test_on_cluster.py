"""Preparing on a cluster: the same cohort as in one process, though a worker dies."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders.clusters import contents, kill, wait_until
from builders.rna_files import gdc_folder

from gimp_fast.prepare import main
from gimp_fast.tasks.cluster import ClusterEngine

PATIENTS = 203
GENES = [f"ENSG{number:011d}.1" for number in range(40)]

pytestmark = pytest.mark.slow


@pytest.fixture
def raw(tmp_path) -> Path:
    """Expression of all patients, and slides of 30 of them."""
    rng, folder = np.random.default_rng(0), tmp_path / "raw"
    cases = [f"TCGA-00-{number:04d}" for number in range(PATIENTS)]
    values = {f"{case}-01A": list(rng.random(len(GENES)).round(2)) for case in cases}
    gdc_folder(folder / "rna", GENES, values)
    (folder / "slides").mkdir()
    lines = ["case_id,slide_id,label"]
    for number, case in enumerate(cases):
        slide = f"{case}-01Z" if number < 30 else ""
        lines.append(f"{case},{slide},{'XYZ'[number % 3]}")
        if slide:
            with h5py.File(folder / "slides" / f"{slide}.h5", "w") as file:
                file["features"] = rng.standard_normal((3 + number, 8)).astype(np.float32)
                file["coords"] = np.arange(2 * (3 + number)).reshape(-1, 2) * 256
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_worker_that_dies_changes_nothing(raw, tmp_path, cluster, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(raw)  # of which workers know nothing
    arguments = ["--slides", "slides", "--rna", "rna", "--labels", "labels.csv", "--pack"]
    arguments += ["--allow-missing-modality", "--name", "both"]
    assert main([*arguments, "--out", "../one", "--workers", "1"]) == 0

    victim = cluster.add_worker("--no-nanny", "--name", "victim")
    cluster.add_worker()
    submit, count = ClusterEngine.submit, []
    lost: list[int] = []

    def kill_in_the_middle() -> None:
        """Once tasks wait for the victim, which is stopped and so cannot finish them."""
        with distributed.Client(cluster.address, set_as_default=False) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            address = next(key for key, facts in workers.items() if facts["name"] == "victim")
            wait_until(lambda: client.processing([address])[address], "no task came to the victim")
            lost.append(len(client.processing([address])[address]))
        kill(victim)

    def submit_and_stop(engine, function, /, *values):
        count.append(function)
        if len(count) == 20:
            os.kill(victim.pid, signal.SIGSTOP)
            threading.Thread(target=kill_in_the_middle).start()
        return submit(engine, function, *values)

    wait_until(lambda: cluster.logs().count("Registered to") >= 2, "a worker never came")
    monkeypatch.setattr(ClusterEngine, "submit", submit_and_stop)
    assert main([*arguments, "--out", "../many", "--scheduler", str(cluster.file)]) == 0
    assert lost[0] > 0
    assert len(count) == -(-30 // 4) + -(-PATIENTS // 4)
    files = contents(tmp_path / "one")
    assert len(files) > 5
    assert contents(tmp_path / "many") == files

    assert main(["--verify", "../many", "--scheduler", str(cluster.file)]) == 0
