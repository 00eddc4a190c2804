"""Clusters of dask: who takes part, deaths of workers, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import time

import pytest
from builders.clusters import PACKAGE, kill, wait_until

from gimp_fast.errors import FaultError, GimpError, StoppedError
from gimp_fast.tasks import cluster as of_dask
from gimp_fast.tasks.cluster import ClusterEngine
from gimp_fast.tasks.engine import LostTaskError, as_completed
from gimp_fast.tasks.mapping import parallel_map

FUNCTIONS = """
import os, signal, time
from gimp_fast.errors import FaultError
from gimp_fast.tasks.engine import is_unwanted

def square(number):
    return number * number, os.getpid()

def fail(number):
    raise FaultError.of("kind", number, "b", "c")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def wait_for(file, note):
    with open(note, "a") as stream:
        stream.write(f"{os.getpid()}\\n")
    while not os.path.exists(file):
        if is_unwanted():
            with open(note, "a") as stream:
                stream.write("unwanted\\n")
            return
        time.sleep(0.02)
    return os.getpid()
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def functions(module_of, tmp_path):
    """The module, and the folders that workers import from."""
    return module_of("functions_on_cluster", FUNCTIONS), f"{PACKAGE}{os.pathsep}{tmp_path}"


def test_results_errors_and_deaths(functions, cluster, tmp_path):
    module, path = functions
    first, _ = (cluster.add_worker("--no-nanny", package=path) for _ in range(2))
    found = list(parallel_map(module.square, range(21), scheduler=str(cluster.file)))
    assert [number for number, _ in found] == [number**2 for number in range(21)]
    assert os.getpid() not in {process for _, process in found}

    def has_two_workers() -> bool:
        with ClusterEngine(cluster.address) as engine:
            return str(engine).startswith("cluster of 2 workers, 2 threads")

    wait_until(has_two_workers, "the second worker never came")
    with ClusterEngine(cluster.address) as engine:
        with pytest.raises(FaultError) as error:
            engine.submit(module.fail, 3).result()
        assert error.value.faults[0].where == "3"
        assert engine.submit(module.square, 3).result()[0] == 9
        wait_until(lambda: not engine._client.who_has(), "a result that was read is still kept")
        # A worker dies at its task, which another then takes.
        note, file = tmp_path / "note", tmp_path / "go"
        futures = [engine.submit(module.wait_for, str(file), str(note)) for _ in range(2)]
        wait_until(lambda: note.is_file() and len(note.read_text().split()) == 2, "no task began")
        kill(first)
        file.touch()
        assert len({future.result() for future in as_completed(futures)}) == 1
        assert len(note.read_text().split()) == 3  # what the dead worker had finished stays done
        # A task at which all die is lost, and ends nothing else.
        cluster.add_worker("--no-nanny", package=path)
        with pytest.raises(LostTaskError, match="2 workers died while they ran it"):
            engine.submit(module.die).result()


def test_tasks_of_a_command_that_leaves_are_unwanted(functions, cluster, tmp_path):
    module, path = functions
    cluster.add_worker("--resources", "GPU=1", package=path)
    note = tmp_path / "note"
    with ClusterEngine(cluster.address) as engine:
        assert re.search(r"1 worker, 1 GPU\b", str(engine))
        for _ in range(2):
            engine.submit(module.wait_for, str(tmp_path / "never"), str(note))
        wait_until(note.is_file, "no task began")
    wait_until(lambda: "unwanted" in note.read_text(), "the task went on")
    time.sleep(0.3)
    assert len(note.read_text().split()) == 2  # the second never began


def test_a_scheduler_that_ends_is_told(functions, cluster, tmp_path):
    module, path = functions
    cluster.add_worker("--no-nanny", package=path)
    note = tmp_path / "note"
    with ClusterEngine(cluster.address) as engine:
        future = engine.submit(module.wait_for, str(tmp_path / "never"), str(note))
        wait_until(note.is_file, "no task began")
        kill(cluster.scheduler)
        with pytest.raises(StoppedError, match="the scheduler is gone"):
            future.result(timeout=60)


def test_workers_with_other_code_or_other_files_are_refused(functions, cluster, tmp_path):
    module, path = functions
    other = tmp_path / "other"
    shutil.copytree(PACKAGE / "gimp_fast", other / "gimp_fast", symlinks=True,
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    if (PACKAGE / "kernels").is_dir():  # a checkout
        (other / "kernels").symlink_to(PACKAGE / "kernels")
    with (other / "gimp_fast" / "errors.py").open("a") as stream:
        stream.write("# changed\n")
    cluster.add_worker("--no-nanny", package=path)
    with ClusterEngine(cluster.address) as engine:
        # It comes when tasks are waiting already.
        paths = f"{other}{os.pathsep}{path.rpartition(os.pathsep)[2]}"
        cluster.add_worker("--no-nanny", package=paths)
        note = str(tmp_path / "note")
        futures = [engine.submit(module.wait_for, str(tmp_path / "never"), note) for _ in range(2)]
        late = next(as_completed(futures))
        with pytest.raises(GimpError, match=r"worker tcp://.*: found code of gimp_fast \w{12} "):
            late.result()
    with pytest.raises(
        GimpError, match=r"cannot take part.*\n  tcp://.*code of gimp_fast"
    ) as error:
        ClusterEngine(cluster.address)
    assert len(str(error.value).splitlines()) == 2  # the other worker is fine


def test_a_folder_that_a_worker_does_not_see(functions, cluster, tmp_path, monkeypatch):
    cluster.add_worker("--no-nanny", package=functions[1])
    monkeypatch.setattr(of_dask, "_existing", lambda path: path)  # as another machine may say
    with pytest.raises(GimpError, match=f"does not see {tmp_path}/none"):
        ClusterEngine(cluster.address, [tmp_path, tmp_path / "none"])


def test_a_scheduler_without_workers(cluster, monkeypatch, capsys):
    monkeypatch.setattr(of_dask, "WORKER_SECONDS", 0.5)
    with pytest.raises(GimpError, match="without workers; start some with `dask worker tcp://"):
        ClusterEngine(cluster.address)
    assert "waiting for the first worker" in capsys.readouterr().out
