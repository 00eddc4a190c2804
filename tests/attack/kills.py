"""Kills commands in the middle of their work, runs them again, and compares what they leave.

A kill comes at a change of a file: before it is opened for writing, renamed, flushed, removed.
Every such moment of a command is counted in an undisturbed run, and kills take turns among them;
others come at a random time. SIGKILL goes to all processes of the command at once.
"""

from __future__ import annotations

import csv
import math
import mmap
import os
import re
import shutil
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from attack.corpus import CASES, SETTINGS, SLIDE_WORDS
from attack.fork import Outcome
from attack.sandbox import FREE, Sandbox

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod")
_NEEDS_SPACE = ("os.rename", "os.mkdir", "os.link")
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_TIMES = re.compile(
    r'("(?:seconds|cpu_seconds|seconds_of_training|times)": )(?:\{[^}]*\}|[-\d.e]+)'
)
_PARTIAL = re.compile(r"^\..*\.(partial|lock)\b|^\.lock$")


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        name: of the scenario.
        argv: the command; its results are below ``{out}``.
        again: its words when it is run again.
        share: of the kills.
        makes_new: it refuses to replace results that are complete.
        skip: pattern of results that say when and how they were made, and differ between any runs.
    """

    name: str
    argv: tuple[str, ...]
    again: tuple[str, ...] = ()
    share: float = 1.0
    skip: str = r"$^"
    makes_new: bool = False

    @property
    def command(self) -> str:
        return self.argv[0]


def scenarios() -> list[Scenario]:
    prepare = ("prepare", "--labels", "{in}/tables/labels.csv", "--rna", "{in}/rna/star")
    prepare += ("--splits", "{in}/tables/split.csv", "--out", "{out}/cohort", "--slides")
    packed = ("{in}/features/trident", "--pack", "fp32")
    in_files = ("{in}/features/clam", "--order", "hilbert")
    run = "tensorboard/"
    train = ("train", "--data", "{in}/packed", "--out", "{out}/run", *SETTINGS)
    train += ("--set", "save_minutes=1e-9")  # after every step, however fast
    table = ("experiments", "table1", "--data", "{in}/packed", "--out", "{out}", *SETTINGS)
    table += (
        "--only",
        "logistic_regression_rna",
        "snn",
        "abmil",
        "--jobs",
        "1",
        "--resamples",
        "20",
    )
    predict = ("predict", "--run", "{in}/run", "--device", "cpu", "--bootstrap", "20")
    heatmap = ("heatmap", "--run", "{in}/run", "--data", "{in}/packed", "--cases", *CASES[9:11])
    heatmap += ("--slide-images", "{in}/pictures", "--device", "cpu", "--out", "{out}/maps")
    extract = ("extract", *SLIDE_WORDS, "--out", "{out}/features")
    return [
        Scenario("prepare/packed", (*prepare, *packed), makes_new=True),
        Scenario("prepare/in-files", (*prepare, *in_files), makes_new=True),
        Scenario("extract/patches", (*extract, "--patches-only")),
        Scenario("extract/features", (*extract, "--random-weights"), share=0.2),
        Scenario("train", train, ("--resume",), 2.0, run),
        Scenario("experiments", table, (), 1.0, rf"{run}|log\.txt"),
        Scenario("predict", (*predict, "--data", "{in}/packed", "--out", "{out}/p.csv")),
        Scenario("predict/export", (*predict, "--export", "{out}/model"), makes_new=True),
        Scenario("heatmap", heatmap),
    ]


class Moments:
    """Counts the changes of files, in a command and its forks, and kills them all at one of them.

    With ``error``, the number of an error, that change and all later ones fail instead.
    """

    def __init__(
        self,
        root: Path,
        at: int | None = None,
        error: int | None = None,
        *,
        after: float | None = None,
    ):
        self._shared = mmap.mmap(-1, 8)
        self._heard: dict[str, None] | None = None
        self._root, self._at, self._error, self._after = str(root), at, error, after

    @property
    def count(self) -> int:
        return struct.unpack("<q", self._shared[:8])[0]

    def watch(self, notes: dict[str, Any]) -> None:
        """Called in the child that will be the command."""
        flush = os.fsync

        def counted_flush(file: int) -> None:
            self._count()
            flush(file)

        os.fsync = counted_flush
        sys.addaudithook(self._hear)
        if self._after is not None:
            threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        time.sleep(self._after)
        os.killpg(0, signal.SIGKILL)

    def _hear(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = bool(flags & _WRITE) if isinstance(flags, int) else False
        else:
            known = _CHANGES if self._error is None else _NEEDS_SPACE
            changes, path = event in known, arguments[0] if arguments else ""
        if changes and not isinstance(path, int) and os.fsdecode(path).startswith(self._root):
            if self._heard is not None:
                self._heard[os.fsdecode(path)] = None
            self._count()

    def remember(self, notes: dict[str, Any]) -> None:
        """As ``watch``; ``notes["changed"]`` becomes a mapping of the names that were changed."""
        self._heard = notes["changed"] = {}
        self.watch(notes)

    def _count(self) -> None:
        count = self.count + 1
        self._shared[:8] = struct.pack("<q", count)
        if self._at is None or count < self._at:
            return
        if self._error is not None:
            raise OSError(self._error, os.strerror(self._error))
        os.killpg(0, signal.SIGKILL)


@dataclass(frozen=True)
class Kill:
    """What became of a command that was killed, and run again until it ended by itself."""

    scenario: Scenario
    index: int
    moments: tuple[str, ...]  # of its kills
    hits: int  # how many came before the command had ended
    problems: list[str]


class Killer:
    """Kills of one scenario, in a sandbox."""

    def __init__(self, sandbox: Sandbox, scenario: Scenario, seed: int):
        self.sandbox, self.scenario, self.seed = sandbox, scenario, seed
        self._quiet = sandbox.root / "quiet" / scenario.name.replace("/", "-")
        sandbox.empty_out()
        moments = Moments(sandbox.out)
        outcome = sandbox.run(scenario.argv, FREE, moments.watch)
        if outcome.code:
            raise RuntimeError(f"{scenario.name}: {outcome.code}\n{outcome.output}")
        self.count, self.seconds = moments.count, outcome.seconds
        shutil.copytree(sandbox.out, self._quiet, symlinks=True)

    def carry_out(self, index: int) -> Kill:
        """Kill it once or twice, run it to its end, and compare."""
        rng = Random(f"{self.seed}/{self.scenario.name}/{index}")
        self.sandbox.empty_out()
        argv, said, hits, problems = self.scenario.argv, [], 0, []
        before = self.sandbox.snapshot(self._free)
        for _ in range(rng.choice((1, 1, 2))):
            moments, text = self._moment(rng)
            outcome = self.sandbox.run(argv, FREE, moments.watch)
            said.append(text)
            hits += outcome.code == -signal.SIGKILL
            if outcome.code not in (*self._ends_again, -signal.SIGKILL):
                problems.append(f"killed: {_end_of(outcome)}")
            argv = (*self.scenario.argv, *self.scenario.again)
            if outcome.code == 0:
                self.sandbox.empty_out()
        outcome = self.sandbox.run(argv, FREE)
        differing = differences(self._quiet, self.sandbox.out, self.scenario.skip)
        problems += [f"other {name}" for name in differing]
        if outcome.code not in self._ends_again:
            problems.append(f"run again: {_end_of(outcome)}")
        if self.sandbox.snapshot(self._free) != before:
            problems.append("a file outside the output changed")
        return Kill(self.scenario, index, tuple(said), hits, problems)

    @property
    def _ends_again(self) -> tuple[int, ...]:
        """Exit codes; what is complete, and only at its last change, need not be made again."""
        return (0, 2) if self.scenario.makes_new else (0,)

    @property
    def _free(self) -> tuple[Path, ...]:
        return (self.sandbox.root / "quiet",)

    def _moment(self, rng: Random) -> tuple[Moments, str]:
        if rng.random() < 0.25:
            after = rng.uniform(0.05, 1.0) * self.seconds
            return Moments(self.sandbox.out, after=after), f"after {after:.3f} s"
        at = rng.randint(1, max(1, self.count))
        return Moments(self.sandbox.out, at), f"at change {at} of {self.count}"


def _end_of(outcome: Outcome) -> str:
    return f"ended with {outcome.code}: {outcome.output.rstrip()[-300:]}"


def differences(quiet: Path, killed: Path, skip: str) -> list[str]:
    """Results that differ; times and what a killed writer left under a hidden name do not count."""
    left_out = re.compile(skip)

    def names(folder: Path) -> set[str]:
        files = (file for file in folder.rglob("*") if file.is_file())
        return {str(file.relative_to(folder)) for file in files if not _PARTIAL.search(file.name)}

    all_names = names(quiet) | names(killed)
    return sorted(
        name
        for name in all_names
        if not left_out.search(name) and not _same(quiet / name, killed / name)
    )


def _same(a: Path, b: Path) -> bool:
    if not (a.is_file() and b.is_file()):
        return False
    if a.read_bytes() == b.read_bytes():
        return True
    return _READERS.get(a.suffix, lambda file: file.read_bytes())(a) == _READERS.get(
        b.suffix, lambda file: file.read_bytes()
    )(b)


def _json(file: Path) -> Any:
    return _TIMES.sub(r"\g<1>0", file.read_text(encoding="utf-8"))


def _page(file: Path) -> Any:
    """Without the time that each run took: the last cell of its row."""
    return re.sub(r"<td>[\d.]+</td></tr>|\d[\d.]* (s|min)\b", "", file.read_text("utf-8"))


def _arrays(file: Path) -> Any:
    with np.load(file, allow_pickle=False) as arrays:
        return {name: (arrays[name].dtype.str, arrays[name].tolist()) for name in arrays.files}


def _table(file: Path) -> Any:
    """Rows; of a list of slides, what is the same whether a slide was made now or earlier."""
    with file.open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    if rows and "status" in rows[0]:
        return [(row["slide_id"], row["file"], row["patches"]) for row in rows]
    return rows


_READERS: dict[str, Callable[[Path], Any]] = {
    ".json": _json, ".jsonl": _json, ".npz": _arrays, ".csv": _table, ".html": _page,
}  # fmt: skip


def shares(count: int) -> Iterator[tuple[Scenario, int]]:
    """(scenario, number) of this many kills or a few more."""
    all_of_them = scenarios()
    total = sum(scenario.share for scenario in all_of_them)
    for scenario in all_of_them:
        for index in range(math.ceil(count * scenario.share / total)):
            yield scenario, index
