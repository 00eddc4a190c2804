"""Attacks every file that a command reads, and says which laws were broken.

python tests/attack/run.py                                     # all of it, as `make attack`
python tests/attack/run.py --only mutation/prepare/labels.csv --index 17 --keep /tmp/kept
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

if os.environ.get("OMP_NUM_THREADS") != "1":  # a process with OpenMP's threads cannot be forked
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
# Not this folder: the names in it are common.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.remove(str(Path(__file__).resolve().parent))

from attack import conditions, findings, kills, names
from attack.engine import Attack
from attack.fork import die_with_parent, import_everything
from attack.sandbox import Sandbox, make_sandbox
from attack.targets import targets

SLOW = 10.0  # seconds of a command that are worth a line


@dataclass(frozen=True)
class Job:
    """One attack: ``name`` and ``index`` repeat it."""

    name: str
    index: int
    carry_out: Callable[[Workplace], findings.Row]


class Workplace:
    """A sandbox of one process, and what its attacks share."""

    def __init__(self, sandbox: Sandbox, seed: int, keep: Path | None):
        self.sandbox, self.seed, self.keep = sandbox, seed, keep
        self._made: dict[object, object] = {}

    def of(self, kind: type, subject: object):
        """An Attack of a target, or a Killer of a scenario, made once."""
        if subject not in self._made:
            self._made[subject] = kind(self.sandbox, subject, self.seed)
        return self._made[subject]


def mutation(target, index: int) -> Job:
    def carry_out(place: Workplace) -> findings.Row:
        verdict = place.of(Attack, target).carry_out(index, place.keep)
        facts = {"kind": target.kind, "file": verdict.file.name, "way": verdict.mutation}
        return findings.row(target.command, [verdict.outcome], verdict.breaches, **facts)

    return Job(f"mutation/{target.name}", index, carry_out)


def kill(scenario: kills.Scenario, index: int) -> Job:
    def carry_out(place: Workplace) -> findings.Row:
        killed = place.of(kills.Killer, scenario).carry_out(index)
        problems = [f"{scenario.name}: {problem}" for problem in killed.problems]
        facts = {"kind": "kill", "way": ", ".join(killed.moments), "hits": killed.hits}
        return findings.row(scenario.command, [], problems, **facts)

    return Job(f"kill/{scenario.name}", index, carry_out)


def condition(condition: conditions.Condition) -> Job:
    def carry_out(place: Workplace) -> findings.Row:
        outcomes, breaches = conditions.carry_out(place.sandbox, condition)
        facts = {"kind": "condition", "way": condition.name}
        return findings.row(condition.scenario.command, outcomes, breaches, **facts)

    return Job(f"condition/{condition.scenario.name}/{condition.name}", 0, carry_out)


def name(name: names.Name, index: int) -> Job:
    def carry_out(place: Workplace) -> findings.Row:
        outcomes, breaches = names.carry_out(place.sandbox, name)
        facts = {"kind": "name", "way": f"{name.thing} {name.text[:40]!r}"}
        return findings.row("all" if name.whole_way else "prepare", outcomes, breaches, **facts)

    return Job(f"name/{name.thing}", index, carry_out)


def plan(mutations: int, kill_count: int, others: bool) -> list[Job]:
    """Mutations, shared by weight between targets, kills, and with ``others`` all the rest."""
    chosen = targets()
    total = sum(target.weight for target in chosen)
    jobs = [
        mutation(target, index)
        for target in chosen
        for index in range(math.ceil(mutations * target.weight / total))
    ]
    jobs += [kill(scenario, index) for scenario, index in kills.shares(kill_count)]
    if others:
        jobs += [condition(each) for each in conditions.conditions()]
        jobs += [name(each, index) for index, each in enumerate(names.names())]
    return jobs


def sample(jobs: Sequence[Job], one_in: int, seed: int) -> list[Job]:
    """Every n-th attack, and two or more of each of the four kinds."""
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(job.name.partition("/")[0], []).append(job)
    steps = {kind: min(one_in, max(1, len(of_kind) // 2)) for kind, of_kind in kinds.items()}
    return [
        job for kind, all_of in kinds.items() for job in all_of[seed % steps[kind] :: steps[kind]]
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--mutations", type=int, default=10_500, help="how many")
    add("--kills", type=int, default=120, help="how many")
    add("--no-others", action="store_true", help="mutations and kills alone")
    add("--one-in", type=int, default=1, metavar="N", help="a sample of all these attacks")
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    add("--only", default="", help="attacks whose name begins with this")
    add("--index", type=int, help="only this one of each; with --keep for one mutation")
    add("--keep", type=Path, help="a folder for the damaged file, the results and the output")
    add("--json", type=Path, help="file for all that was found")
    add("--record", action="store_true", help="write benchmarks/results/attack.json")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    began = time.perf_counter()
    import_everything()
    jobs = plan(arguments.mutations, arguments.kills, not arguments.no_others)
    jobs = sample(jobs, arguments.one_in, arguments.seed)
    jobs = [job for job in jobs if job.name.startswith(arguments.only)]
    if arguments.index is not None:
        jobs = [job for job in jobs if job.index == arguments.index]
    with tempfile.TemporaryDirectory(prefix="gimp-fast-attack-") as folder:
        rows = share(jobs, arguments, Path(folder))
    seconds = time.perf_counter() - began
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    findings.print_found(rows, arguments.seed)
    print(f"{findings.counts(rows)}; {seconds:.0f} s")
    bad = any(row["breaches"] for row in rows)
    if arguments.record:
        findings.record(rows, arguments.seed, seconds)
    return int(bad)


def share(jobs: Sequence[Job], arguments: argparse.Namespace, folder: Path) -> list[findings.Row]:
    """Share the attacks between processes, each with a sandbox of its own."""
    processes, children = min(arguments.jobs, len(jobs)), []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            code = 1
            die_with_parent()
            try:
                work_through(jobs[number::processes], arguments, folder / str(number))
                code = 0
            except BaseException:  # noqa: BLE001 - the parent must hear of it
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise SystemExit(f"processes ended with {codes}")
    files = [folder / f"{number}.jsonl" for number in range(processes)]
    return [json.loads(line) for file in files for line in file.open(encoding="utf-8")]


def work_through(jobs: Iterable[Job], arguments: argparse.Namespace, folder: Path) -> None:
    """Carry out attacks, and write a row each."""
    place = Workplace(make_sandbox(folder), arguments.seed, arguments.keep)
    with folder.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        for done, job in enumerate(jobs):
            try:
                row = {"name": job.name, "index": job.index, **job.carry_out(place)}
            except Exception as error:
                raise RuntimeError(f"{job.name} {job.index} cannot be carried out") from error
            file.write(json.dumps(row) + "\n")
            file.flush()
            if row["seconds"] > SLOW and row["kind"] != "kill":
                print(f"{row['seconds']:.0f} s: {job.name} {job.index} {row['way']}", flush=True)
            if arguments.index is not None:
                print(row["output"])
            if done % 500 == 499:
                print(f"{done + 1}: {job.name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
