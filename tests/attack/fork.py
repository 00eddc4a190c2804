"""Runs a command in a fork of this process, within limits, and says how it ended.

The parent has imported everything and runs nothing of it: a child starts in milliseconds. It has
one thread, and no OpenMP region ran in it, because a fork of a process with either can hang.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attack.no_start import fork_instead_of_starting

# What commands import only when they need it.
_LAZY = (
    "anndata", "h5py", "matplotlib.pyplot", "matplotlib.backends.backend_agg", "openslide",
    "pandas", "PIL.Image", "PIL.PngImagePlugin", "PIL.TiffImagePlugin", "PIL.JpegImagePlugin",
    "pyarrow.parquet", "safetensors.torch", "scipy.stats", "scipy.sparse", "sklearn.linear_model",
    "tifffile", "torch.utils.tensorboard", "torch._dynamo", "tqdm", "yaml", "zarr",
)  # fmt: skip
_PIECE, _LONGEST = 1 << 16, 1 << 22
CRASHED, UNPREPARED = 70, 71  # exit codes of a child: an exception, or its set-up failed


@dataclass(frozen=True)
class Limits:
    """What a command may use; ``memory`` is above what the parent has."""

    cpu_seconds: int = 60
    wall_seconds: float = 240.0
    memory: int = 1 << 30
    address_space: int | None = 4 << 30
    largest_file: int | None = 1 << 28


@dataclass
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code; minus the number of the signal that ended it.
        output: standard output and standard error together.
        seconds: by the clock.
        peak: bytes of memory, also what it shares with the parent: see ``idle_memory``.
        late: it did not end within the limit and was killed.
        notes: what the child reported, see ``Child``.
    """

    code: int
    output: str
    seconds: float
    peak: int
    late: bool
    notes: dict[str, Any] = field(default_factory=dict)


def import_everything() -> None:
    """Import the package and its libraries, without starting a thread."""
    import torch

    torch.set_num_threads(1)
    import gimp_fast

    for module in pkgutil.walk_packages(gimp_fast.__path__, "gimp_fast."):
        if (
            module.name.rpartition(".")[2] not in ("__main__", "_C")
            and "libgimp" not in module.name
        ):
            importlib.import_module(module.name)
    for name in _LAZY:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # children do not copy the pages of these objects
    threads = names_of_threads()
    if threads:
        raise RuntimeError(f"threads before the first fork: {', '.join(threads)}; expected none")


def names_of_threads() -> list[str]:
    """Threads beside this one, without that of pyarrow's allocator, which knows about forks."""
    tasks = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
    names = [(task / "comm").read_text(encoding="ascii").strip() for task in tasks]
    return [name for name in names if name != "jemalloc_bg_thd"]


def _status(name: str) -> str:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def run(
    action: Callable[[dict[str, Any]], int | None],
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    prepare: Callable[[dict[str, Any]], None] | None = None,
) -> Outcome:
    """Run ``action(notes)`` in a child; its result is the exit code.

    Args:
        action: may fill the notes, which come back if the child ends by itself.
        folder: the current folder of the child.
        environment: variables to set.
        limits: time and memory.
        prepare: runs in the child before the limits hold.
    """
    limits = limits or Limits()
    # Printed to a pipe: a limit on the size of files holds for anything else.
    output, printed = os.pipe()
    noted = os.memfd_create("noted")
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        _be_child(action, prepare, folder, environment or {}, limits, printed, noted)
    os.close(printed)
    pieces: list[bytes] = []
    late = not _listen(child, output, pieces, limits.wall_seconds)
    _kill_group(child)
    _, status, usage = os.wait4(child, 0)
    _kill_group(child)
    seconds = time.perf_counter() - began
    code = os.waitstatus_to_exitcode(status)
    late = late or code == -signal.SIGXCPU
    while piece := os.read(output, _PIECE):
        pieces.append(piece)
    os.close(output)
    notes = os.pread(noted, os.fstat(noted).st_size, 0)
    os.close(noted)
    return Outcome(
        code, b"".join(pieces)[:_LONGEST].decode("utf-8", "backslashreplace"), seconds,
        usage.ru_maxrss * 1024, late,
        json.loads(notes) if notes else {},
    )  # fmt: skip


def die_with_parent() -> None:
    """An interrupted attack leaves no processes."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@functools.cache
def idle_memory() -> int:
    """Bytes of a child that does nothing."""
    return run(lambda notes: 0, folder=Path("/")).peak


def _be_child(action, prepare, folder, environment, limits, printed, noted) -> None:
    code, notes = UNPREPARED, {}
    try:
        os.setsid()
        die_with_parent()
        _take_over(printed)
        os.chdir(folder)
        os.environ.update(environment)
        fork_instead_of_starting()
        if prepare is not None:
            prepare(notes)
            _note(noted, notes)
        _limit(limits)
        code = CRASHED
        code = action(notes) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            _note(noted, notes)
        finally:
            os._exit(code)


def _note(file: int, notes: dict[str, Any]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    text = json.dumps(notes).encode()
    os.ftruncate(file, 0)
    os.pwrite(file, text, 0)


def _take_over(printed: int) -> None:
    """Standard input is empty; standard output and error go to one file."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for stream in (1, 2):
        os.dup2(printed, stream)
    utf8 = {"encoding": "utf-8", "errors": "backslashreplace", "line_buffering": True}
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), **utf8, write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), **utf8, write_through=True)


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    if limits.address_space is not None:
        size = int(_status("VmSize")) * 1024 + limits.address_space
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    if limits.largest_file is not None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.largest_file, hard))


def _listen(child: int, output: int, pieces: list[bytes], seconds: float) -> bool:
    """Collect what a child prints; True if it ended in time."""
    handle, poll, deadline = os.pidfd_open(child), select.poll(), time.monotonic() + seconds
    poll.register(handle, select.POLLIN)
    poll.register(output, select.POLLIN)
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poll.poll(left * 1000))
            if ready.get(output, 0) & select.POLLIN:
                piece = os.read(output, _PIECE)
                if sum(map(len, pieces)) < _LONGEST:
                    pieces.append(piece)
            elif output in ready:  # all who could print have ended
                poll.unregister(output)
            elif handle in ready:
                return True
        return False
    finally:
        os.close(handle)


def _kill_group(leader: int) -> None:
    """End a child and all that it started."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
