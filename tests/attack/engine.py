"""Carries out one mutation: damages a file, runs the command, judges, and restores the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random

from attack import laws
from attack.fork import Limits, Outcome, run
from attack.laws import Breach
from attack.mutate_bytes import flip_bits
from attack.mutations import Context, OfFile, choose
from attack.sandbox import FREE, Sandbox
from attack.target import Target

LIMITS = Limits()


@dataclass(frozen=True)
class Verdict:
    """What a mutation did."""

    target: Target
    index: int
    file: Path
    mutation: str
    outcome: Outcome
    breaches: list[Breach] = field(default_factory=list)


class Attack:
    """Mutations of one target, in a sandbox."""

    def __init__(self, sandbox: Sandbox, target: Target, seed: int):
        self.sandbox, self.target, self.seed = sandbox, target, seed
        self._writes = [sandbox.inputs / folder for folder in target.writes]
        self._backup = sandbox.root / "backup"

    @cached_property
    def _expected(self) -> dict[str, bytes]:
        """Results of the undisturbed command."""
        self.sandbox.empty_out()
        with self._restoring():
            outcome = self.sandbox.run(self.target.argv, FREE)
            if outcome.code != self.target.code:
                raise RuntimeError(f"{self.target.name}: {outcome.code}\n{outcome.output}")
            return self._results()

    def _results(self) -> dict[str, bytes]:
        return {name: _bytes(Path(name)) for name in self.sandbox.words(self.target.same)}

    def carry_out(self, index: int, keep: Path | None = None) -> Verdict:
        """Run the command on a damaged file; with ``keep``, files stay in that folder."""
        sandbox, target = self.sandbox, self.target
        file, mutation, rng = choose(target, sandbox.inputs, self.seed, index)
        if target.same:
            self._expected  # noqa: B018 - made before a file is damaged
        context = Context(sandbox.secret, (sandbox.inputs / "tables/labels.csv").read_bytes())
        sandbox.empty_out()
        with self._restoring(), _restored(file):
            name = self._damage(file, mutation, rng, context)
            before = sandbox.snapshot(self._writes)
            outcome = sandbox.run(target.argv, LIMITS)
            breaches = [
                *laws.of_outcome(target.command, outcome),
                *laws.of_files(before, sandbox.snapshot(self._writes), sandbox.root),
                *laws.of_results(sandbox.out, outcome.output),
                *self._other_results(outcome),
            ]
            if keep is not None:
                _keep(keep, file, sandbox, outcome)
        self._remove_created(before)
        return Verdict(target, index, file, name, outcome, breaches)

    def _damage(self, file: Path, mutation: OfFile, rng: Random, context: Context) -> str:
        """Change the file in a child; the name of what was done."""
        data = file.read_bytes()
        damage = run(
            lambda notes: mutation(file, rng, context), folder=self.sandbox.work, limits=FREE
        )
        if damage.code == 0:
            return mutation.__name__
        # A change of its structure that this file does not allow.
        file.unlink(missing_ok=True)
        file.write_bytes(flip_bits(data, rng, context.other))
        reason = damage.output.rstrip().splitlines()[-1][:100]
        return f"flip_bits instead of {mutation.__name__}: {reason}"

    def _other_results(self, outcome: Outcome) -> Iterator[Breach]:
        if outcome.code == 0 and self.target.same and self._results() != self._expected:
            yield Breach("other result of a checked file", self.target.name)

    def _restoring(self) -> _Folders:
        return _Folders(self._writes, self._backup)

    def _remove_created(self, before: dict) -> None:
        """What a command wrote elsewhere must not be blamed on the next one."""
        for path in self.sandbox.snapshot(self._writes).keys() - before.keys():
            entry = Path(path)
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


class _Folders:
    """Folders that a command may write, as they were when the block ends."""

    def __init__(self, folders: list[Path], backup: Path):
        self._folders, self._backup = folders, backup

    def __enter__(self) -> None:
        for number, folder in enumerate(self._folders):
            shutil.copytree(folder, self._backup / str(number), symlinks=True)

    def __exit__(self, *error: object) -> None:
        for number, folder in enumerate(self._folders):
            shutil.rmtree(folder)
            (self._backup / str(number)).rename(folder)
        shutil.rmtree(self._backup, ignore_errors=True)


class _restored:
    """A file as it was when the block ends."""

    def __init__(self, file: Path):
        self._file = file

    def __enter__(self) -> None:
        self._data, self._facts = self._file.read_bytes(), self._file.stat()

    def __exit__(self, *error: object) -> None:
        file = self._file
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self._data)
        file.chmod(self._facts.st_mode & 0o7777)
        os.utime(file, ns=(self._facts.st_atime_ns, self._facts.st_mtime_ns))


def _bytes(file: Path) -> bytes:
    """A result; of predictions without warnings, which depend on facts without a checksum."""
    if not file.is_file():
        return b""
    lines = file.read_bytes().split(b"\n")
    warned = file.suffix == ".csv" and lines[0].endswith(b",warnings")
    return b"\n".join(line.rpartition(b",")[0] if warned else line for line in lines)


def _keep(folder: Path, file: Path, sandbox: Sandbox, outcome: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if file.exists():
        shutil.copy2(file, folder / f"damaged-{file.name}")
    shutil.copytree(sandbox.out, folder / "out", dirs_exist_ok=True, symlinks=True)
    (folder / "printed.txt").write_text(outcome.output, encoding="utf-8", errors="backslashreplace")
