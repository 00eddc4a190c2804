"""Runs tasks on a cluster of dask.distributed, which the user starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from gimp_fast.errors import GimpError, StoppedError, counted, one_line
from gimp_fast.files.json_file import read_json_object
from gimp_fast.tasks.engine import LostTaskError, call_until, pass_on
from gimp_fast.tasks.identity import Identity, asked_plugins, code_digest, identity

Result = TypeVar("Result")
HELP = (
    "run on a cluster of dask instead: address of its scheduler (tcp://host:8786) or the file that "
    "`dask scheduler --scheduler-file FILE` writes; all machines need the same files and the same "
    "version of gimp_fast"
)
METAVAR = "ADDRESS_OR_FILE"
CONNECT_SECONDS = 8.0
WORKER_SECONDS = 300.0  # in which the first worker must have come
GPU = "GPU"  # the resource of `dask worker --resources GPU=1`
_GO_ON = "what is done is kept: the same command goes on"


class ClusterEngine:
    """Runs tasks on the workers of a scheduler of dask.

    A worker that dies gives its tasks to others. A worker with a resource GPU runs as many tasks at
    a time as it has GPUs, any other as many as it has threads.

    Args:
        scheduler: its address, or its file.
        paths: files and folders that all workers must see; those that are still to be made count
            by the folder that will hold them.

    Raises:
        GimpError: dask is not installed; no scheduler or worker answers; a worker has other code,
            or does not see a path.
    """

    def __init__(self, scheduler: str, paths: Iterable[Path] = ()):
        distributed = _distributed()
        # Each worker that ends would be a line of its own; what it means for a task is told here.
        logging.getLogger("distributed.client").setLevel(logging.ERROR)
        self._scheduler, self._plugins = scheduler, asked_plugins()
        self._futures: set[Any] = set()
        self._mine = identity(self._plugins)
        self._client = _connect(distributed, scheduler)
        try:
            workers = self._workers()
            self._check(workers, sorted({str(_existing(path)) for path in paths}))
            gpus = any(GPU in worker["resources"] for worker in workers.values())
            self._resources = {GPU: 1} if gpus else None
            self._description = self._describe(workers)
        except BaseException:
            self._client.close()
            raise

    def submit(self, function: Callable[..., Result], /, *arguments: Any) -> Future[Result]:
        # Pickled here, so that the scheduler, which reads what it passes on, needs not import it.
        work = pickle.dumps((function, arguments))
        inner = self._client.submit(
            run_on_worker, self._mine, self._plugins, work, pure=False, resources=self._resources
        )
        self._futures.add(inner)
        outer: Future[Result] = Future()
        inner.add_done_callback(partial(self._pass_on, outer))
        return outer

    def _pass_on(self, outer: Future[Any], inner: Any) -> None:
        try:
            pass_on(inner.result, outer, self._in_our_words)
        finally:
            # Else dask would keep the result on its worker, and do the task again if that dies.
            self._futures.discard(inner)
            inner.release()

    def __enter__(self) -> ClusterEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError, TimeoutError):  # the scheduler may be what ended
            self._client.cancel(list(self._futures))
        self._client.close()

    def _workers(self) -> Mapping[str, Any]:
        """Address -> facts of each worker, once there is one."""
        deadline, said = time.monotonic() + WORKER_SECONDS, False
        while not (workers := self._client.scheduler_info(n_workers=-1)["workers"]):
            if time.monotonic() > deadline:
                raise GimpError(
                    f"{self._scheduler}: found a scheduler without workers; start some with `dask "
                    f"worker {self._client.scheduler.address}`"
                )
            if not said:
                print("waiting for the first worker", flush=True)
            said = True
            time.sleep(0.2)
        return workers

    def _check(self, workers: Mapping[str, Any], paths: list[str]) -> None:
        """GimpError that lists all workers with other code, or without these paths."""
        facts = self._client.run(
            facts_of_worker, self._plugins, paths, workers=list(workers), on_error="return"
        )
        faults = self._faults_of_scheduler()
        for address, found in facts.items():
            if isinstance(found, BaseException):
                faults.append(f"{address}: {one_line(found)}")
                continue
            other, unseen = found
            faults += [f"{address}: {text}" for text in self._mine.differences(other)]
            faults += [f"{address}: does not see {path}" for path in unseen]
        if faults:
            lines = "".join(f"\n  {line}" for line in faults)
            raise GimpError(
                f"{self._scheduler}: found processes that cannot take part; expected the same code "
                f"and the same files as here:{lines}"
            )

    def _faults_of_scheduler(self) -> list[str]:
        """It reads what it passes on, and so needs the package too."""
        try:
            code = self._client.run_on_scheduler(code_digest)
        except Exception as error:  # noqa: BLE001  whatever happens there is raised here
            return [f"the scheduler: {one_line(error)}"]
        if code == self._mine.code:
            return []
        return [f"the scheduler: code of gimp_fast {code[:12]} (here {self._mine.code[:12]})"]

    def __str__(self) -> str:
        return self._description

    def _describe(self, workers: Mapping[str, Any]) -> str:
        threads = sum(worker["nthreads"] for worker in workers.values())
        gpus = int(sum(worker["resources"].get(GPU, 0) for worker in workers.values()))
        slots = counted(gpus, "GPU") if gpus else counted(threads, "thread")
        dashboard = ""
        if "dashboard" in self._client.scheduler_info()["services"]:
            dashboard = f"; dashboard: {self._client.dashboard_link}"
        return f"cluster of {counted(len(workers), 'worker')}, {slots}{dashboard}"

    def _in_our_words(self, error: BaseException) -> GimpError | None:
        if isinstance(error, (CancelledError, asyncio.CancelledError)):
            return StoppedError(f"{self._scheduler}: the scheduler is gone; {_GO_ON}")
        if type(error).__name__ == "KilledWorker":
            died = error.allowed_failures + 1
            return LostTaskError(
                f"{died} workers died while they ran it, the last at {error.last_worker.address}; "
                "memory may have run out: start workers with fewer --nthreads"
            )
        return None


def run_on_worker(
    expected: Identity,
    asked: Sequence[str],
    work: bytes,
) -> Any:
    """The result of a task, in a worker; GimpError if this came later and has other code.

    Args:
        expected: the identity of the command.
        asked: plugins of the command.
        work: a function and its arguments, pickled.
    """
    from distributed import get_worker

    worker = get_worker()
    if found := expected.differences(identity(asked)):
        raise GimpError(
            f"worker {worker.address}: found {', '.join(found)}; expected the same code as where "
            f"the command runs; {_GO_ON}"
        )
    key = worker.get_current_task()

    def is_dropped() -> bool:
        """Whether the command is gone, or was stopped."""
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    return call_until(is_dropped, *pickle.loads(work))


def facts_of_worker(asked: Sequence[str], paths: Sequence[str]) -> tuple[Identity, list[str]]:
    """The identity of a worker, and which of these paths it does not see."""
    return identity(asked), [path for path in paths if not os.path.exists(path)]


def _existing(path: Path) -> Path:
    """The path, or the nearest folder on the way to it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _distributed() -> ModuleType:
    try:
        import distributed
    except ImportError as error:
        raise GimpError(
            f"--scheduler: needs dask.distributed ({error}); expected `pip install "
            "'gimp-fast[cluster]'`"
        ) from error
    return distributed


def _connect(distributed: ModuleType, scheduler: str) -> Any:
    address = scheduler
    if "://" not in scheduler:
        if not Path(scheduler).is_file():
            raise GimpError(
                f"--scheduler {scheduler}: found no such file; expected an address, as "
                "tcp://host:8786, or a file of `dask scheduler --scheduler-file FILE`"
            )
        address = str(read_json_object(Path(scheduler)).get("address"))
    # Until it gives up, dask would write a line for each try.
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        found = f"no scheduler answers at {address} ({one_line(error)})"
        raise GimpError(
            f"--scheduler {scheduler}: {found}; start one with `dask scheduler`"
        ) from error
    finally:
        logger.setLevel(before)
