"""A folder with inputs, results, and traps: files that no command may read or change."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from attack import corpus
from attack.corpus import SETTINGS, SLIDE_WORDS, SLIDES
from attack.fork import Limits, Outcome, run

# As text, as float32 and as float16 it is unlike anything else in a result.
SECRET = b"4ANC4BNC" * 400
FREE = Limits(cpu_seconds=120, address_space=None, largest_file=None)
Snapshot = dict[str, tuple]


@dataclass(frozen=True)
class Sandbox:
    """``inputs`` is read by commands, ``out`` is written; nothing else may change."""

    root: Path

    @property
    def inputs(self) -> Path:
        return self.root / "in"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def secret(self) -> Path:
        return self.root / "secret.txt"

    @property
    def _free(self) -> tuple[Path, ...]:
        return self.root / "tmp", self.root / "home", self.root / "backup"

    @property
    def environment(self) -> dict[str, str]:
        home, temporary = str(self.root / "home"), str(self.root / "tmp")
        return {"HOME": home, "TMPDIR": temporary, "MPLCONFIGDIR": temporary, "COLUMNS": "100"}

    def words(self, argv: Sequence[str]) -> list[str]:
        """The words of a command, with the folders of this sandbox."""
        places = {"{in}": str(self.inputs), "{out}": str(self.out), "{root}": str(self.root)}
        for name, place in places.items():
            argv = [word.replace(name, place) for word in argv]
        return list(argv)

    def run(self, argv: Sequence[str], limits: Limits | None = None, prepare=None) -> Outcome:
        """Run a command of the package in a child."""
        words = self.words(argv)
        return run(
            lambda notes: call(words), folder=self.work, environment=self.environment,
            limits=limits, prepare=prepare,
        )  # fmt: skip

    def must(self, *argv: str) -> Outcome:
        """Run a command that must succeed."""
        outcome = self.run(argv, FREE)
        if outcome.code:
            raise RuntimeError(f"{' '.join(self.words(argv))}: {outcome.code}\n{outcome.output}")
        return outcome

    def empty_out(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def snapshot(self, without: Iterable[Path] = ()) -> Snapshot:
        """Path -> facts of every file outside the results."""
        left_out = {str(path) for path in (*without, self.out, *self._free)}
        return dict(_walk(str(self.root), left_out))


def call(words: Sequence[str]) -> int:
    """What ``gimp-fast`` does with its words."""
    from gimp_fast.cli import main

    return main(list(words))


def _walk(folder: str, left_out: set[str]):
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.path in left_out:
                continue
            facts = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                yield entry.path, (facts.st_mode,)
                yield from _walk(entry.path, left_out)
            else:
                yield entry.path, (facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_nlink)


def make_sandbox(root: Path) -> Sandbox:
    """Write inputs, cohorts, a run, an export and maps below ``root``, which must not exist."""
    sandbox = Sandbox(root)
    for folder in (sandbox.inputs, sandbox.out, sandbox.work, root / "home", root / "tmp"):
        folder.mkdir(parents=True)
    sandbox.secret.write_bytes(SECRET)
    importlib.import_module("zarr")  # before the fork
    written = run(lambda notes: corpus.write_inputs(sandbox.inputs), folder=root, limits=FREE)
    if written.code:
        raise RuntimeError(written.output)
    shutil.copy(sandbox.inputs / "features" / "clam" / f"{SLIDES[1]}.h5", root / "other.h5")
    _make_cohorts(sandbox)
    _make_runs(sandbox)
    extract = ("extract", *SLIDE_WORDS, "--patches-only", "--out")
    sandbox.must(*extract, "{in}/extracted")
    shutil.copytree(sandbox.inputs / "extracted" / "patches", sandbox.inputs / "patches")
    shutil.rmtree(root / "tmp")
    (root / "tmp").mkdir()
    return sandbox


def _make_cohorts(sandbox: Sandbox) -> None:
    base = ("prepare", "--rna", "{in}/rna/star", "--labels", "{in}/tables/labels.csv")
    base += ("--splits", "{in}/tables/split.csv")
    packed = ("--slides", "{in}/features/trident", "--pack", "fp32", "--out", "{in}/packed")
    sandbox.must(*base, *packed)
    kept = ("--slides", "{in}/features/clam", "--order", "hilbert", "--out", "{in}/cohort")
    sandbox.must(*base, *kept)


def _make_runs(sandbox: Sandbox) -> None:
    train = ("train", "--data", "{in}/packed", *SETTINGS)
    sandbox.must(*train, "--out", "{in}/run")
    sandbox.must(*train, "--out", "{in}/stopped", "--stages", "genes", "pretrain")
    sandbox.must("predict", "--run", "{in}/run", "--export", "{in}/export")
    maps = ("heatmap", "--run", "{in}/run", "--data", "{in}/packed", "--cases", corpus.CASES[9])
    sandbox.must(*maps, "--slide-images", "{in}/pictures", "--device", "cpu")


def float_forms(text: bytes) -> list[bytes]:
    """The bytes of a secret, and of its numbers in the types of a store."""
    values = np.frombuffer(text[:64], "<f4")
    return [text[:32], values.astype("<f2").tobytes()[:16], values.astype("<f8").tobytes()[:32]]


__all__ = ["SECRET", "SLIDES", "Sandbox", "float_forms", "make_sandbox"]
