"""Commands in a poor place: a full or read-only disk, few files, little memory, a twin at work."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attack import laws
from attack.fork import Limits, Outcome
from attack.kills import Moments, Scenario, differences, scenarios
from attack.sandbox import FREE, Sandbox

Prepare = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Condition:
    """Where a command of a scenario runs.

    Attributes:
        name: of the condition.
        scenario: whose command runs.
        limits: what it may use.
        fails: (at which change of a file it begins, number of the error).
        open_files: how many it may have, beside those that it begins with.
        twins: how many run at once.
        links: at which names, ``temporary`` or ``final``, links to the user's secret lie.
    """

    name: str
    scenario: Scenario
    limits: Limits = FREE
    fails: tuple[int, int] | None = None
    open_files: int | None = None
    twins: int = 1
    links: str = ""


def conditions() -> Iterator[Condition]:
    for scenario in scenarios():
        if scenario.name == "extract/features":
            continue  # as extract/patches, and slow
        yield Condition("read-only output", scenario, fails=(1, errno.EROFS))
        yield Condition("no permission", scenario, fails=(1, errno.EACCES))
        for at in (2, 3, 5, 8, 13, 21, 34, 55, 89):
            yield Condition(f"full disk at change {at}", scenario, fails=(at, errno.ENOSPC))
        for at in (4, 17):
            yield Condition(f"input/output error at change {at}", scenario, fails=(at, errno.EIO))
        for size in (0, 10, 300, 3000, 20_000):
            yield Condition(f"files of {size} bytes", scenario, replace(FREE, largest_file=size))
        for files in (0, 1, 2, 4, 8, 16, 32):
            yield Condition(f"{files} open files", scenario, open_files=files)
        for size in (64, 128, 256):  # below that, OpenBLAS waits for memory for ever
            limits = replace(FREE, address_space=size << 20)
            yield Condition(f"{size} MB of memory", scenario, limits)
        yield Condition("two at once", scenario, twins=2)
        yield Condition("links at temporary names", scenario, links="temporary")
        yield Condition("links at final names", scenario, links="final")


def carry_out(sandbox: Sandbox, condition: Condition) -> tuple[list[Outcome], list[str]]:
    """How the command ended there, and which laws were broken; then it runs again, undisturbed."""
    scenario, quiet = condition.scenario, quiet_results(sandbox, condition.scenario)
    sandbox.empty_out()
    if condition.links:
        return _follow_no_links(sandbox, condition)
    before = sandbox.snapshot([sandbox.root / "quiet"])
    moments = Moments(sandbox.out, *(condition.fails or ()))
    outcomes = _together(sandbox, condition, moments)
    breaches = [
        str(breach)
        for outcome in outcomes
        for breach in laws.of_outcome(scenario.command, _allowed(outcome))
    ]
    after = sandbox.snapshot([sandbox.root / "quiet"])
    breaches += map(str, laws.of_files(before, after, sandbox.root))
    if 0 not in [outcome.code for outcome in outcomes]:
        again = sandbox.run((*scenario.argv, *scenario.again), FREE)
        if again.code:
            breaches.append(f"run again: {scenario.name} {again.output.rstrip()[-200:]}")
    if not breaches:
        differing = differences(quiet, sandbox.out, scenario.skip)
        breaches += [f"other result: {scenario.name} {name}" for name in differing]
    return outcomes, breaches


def _follow_no_links(sandbox: Sandbox, condition: Condition) -> tuple[list[Outcome], list[str]]:
    """Run a command again, with links to the secret where it wrote: the secret stays as it is."""
    scenario = condition.scenario
    outcome = sandbox.run(scenario.argv, FREE, Moments(sandbox.out).remember)
    for name in outcome.notes["changed"]:
        path = Path(name)
        if condition.links == "temporary" and path.parent.is_dir() and not path.exists():
            path.symlink_to(sandbox.secret)
        if condition.links == "final" and path.is_file():
            path.unlink()
            path.symlink_to(sandbox.secret)
    before = sandbox.snapshot([sandbox.root / "quiet"])
    outcome = sandbox.run((*scenario.argv, *scenario.again), FREE)
    breaches = [*laws.of_outcome(scenario.command, _allowed(outcome))]
    after = sandbox.snapshot([sandbox.root / "quiet"])
    breaches += laws.of_files(before, after, sandbox.root)
    breaches += laws.of_results(sandbox.out, outcome.output)
    return [outcome], [str(breach) for breach in breaches]


def _allowed(outcome: Outcome) -> Outcome:
    """A run that some rows failed of ends with 1, one that asks for a resume with 75."""
    return replace(outcome, code=2) if outcome.code in (1, 75) else outcome


def quiet_results(sandbox: Sandbox, scenario: Scenario) -> Path:
    """Results of the undisturbed command, made once."""
    folder = sandbox.root / "quiet" / scenario.name.replace("/", "-")
    if not folder.exists():
        sandbox.empty_out()
        sandbox.must(*scenario.argv)
        shutil.copytree(sandbox.out, folder, symlinks=True)
    return folder


def _together(sandbox: Sandbox, condition: Condition, moments: Moments) -> list[Outcome]:
    def prepare(notes: dict[str, Any]) -> None:
        moments.watch(notes)
        if condition.open_files is not None:
            allowed = max(map(int, os.listdir("/proc/self/fd"))) + 1 + condition.open_files
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))

    waiting = []
    for _ in range(condition.twins):
        said = os.memfd_create("outcome")
        child = os.fork()
        if child == 0:
            try:
                outcome = sandbox.run(condition.scenario.argv, condition.limits, prepare)
                os.pwrite(said, json.dumps(vars(outcome)).encode(), 0)
            finally:
                sys.stdout.flush()
                os._exit(0)
        waiting.append((child, said))
    outcomes = []
    for child, said in waiting:
        os.waitpid(child, 0)
        text = os.pread(said, os.fstat(said).st_size, 0)
        os.close(said)
        outcomes.append(Outcome(**json.loads(text)))
    return outcomes
