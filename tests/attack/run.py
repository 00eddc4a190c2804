"""Attacks every file that a command reads, and says which laws were broken.

python tests/attack/run.py                                     # all of it, as `make attack`
python tests/attack/run.py --target prepare/labels.csv --index 17 --keep /tmp/kept
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

if os.environ.get("OMP_NUM_THREADS") != "1":  # a process with OpenMP's threads cannot be forked
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attack.engine import Attack, Verdict
from attack.fork import import_everything
from attack.sandbox import make_sandbox
from attack.targets import Target, targets

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "attack.json"

SLOW = 10.0  # seconds of a command that are worth a line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--mutations", type=int, default=10_500, help="how many in all")
    add("--kills", type=int, default=120, help="how many kills")
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    add("--target", help="only targets with this in their name")
    add("--index", type=int, help="only this mutation of each target")
    add("--keep", type=Path, help="with --index: a folder for the damaged file and the results")
    add("--json", type=Path, help="file for all that was found")
    add("--record", action="store_true", help=f"write {RESULTS.name}, if nothing was found")
    arguments = parser.parse_args()
    began = time.perf_counter()
    import_everything()
    chosen = [t for t in targets() if arguments.target is None or arguments.target in t.name]
    with tempfile.TemporaryDirectory(prefix="gimp-fast-attack-") as folder:
        rows = attack(chosen, arguments, Path(folder))
    found = [row for row in rows if row["breaches"]]
    print_found(found, arguments.seed)
    seconds = time.perf_counter() - began
    for text, count in Counter(
        r["mutation"] for r in rows if " instead of " in r["mutation"]
    ).most_common():
        print(f"{count} × {text}")
    print(
        f"{len(rows)} mutations of {len(chosen)} targets, {len(found)} broke a law, {seconds:.0f} s"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if arguments.record and not found:
        record(rows, arguments.seed, seconds)
    return 1 if found else 0


def attack(chosen: Sequence[Target], arguments: argparse.Namespace, folder: Path) -> list[dict]:
    """Share the mutations between processes; their verdicts as rows."""
    if arguments.index is not None:
        work = [(target, arguments.index) for target in chosen]
    else:
        work = plan(chosen, arguments.mutations)
    jobs = min(arguments.jobs, len(work))
    children = []
    for job in range(jobs):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                carry_out(work[job::jobs], arguments, folder / f"{job}")
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
    files = [folder / f"{job}.jsonl" for job in range(jobs)]
    return [json.loads(line) for file in files for line in file.open(encoding="utf-8")]


def plan(chosen: Sequence[Target], mutations: int) -> list[tuple[Target, int]]:
    """(target, number) of this many mutations, shared by weight; each target has one or more."""
    total = sum(target.weight for target in chosen)
    counts = {target: max(1, round(mutations * target.weight / total)) for target in chosen}
    return [(target, index) for target in chosen for index in range(counts[target])]


def carry_out(work: list[tuple[Target, int]], arguments: argparse.Namespace, place: Path) -> None:
    """Carry out mutations in a sandbox of this process, and write a row each."""
    sandbox = make_sandbox(place)
    attacks: dict[Target, Attack] = {}
    with place.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        for done, (target, index) in enumerate(work):
            one = attacks.setdefault(target, Attack(sandbox, target, arguments.seed))
            verdict = one.carry_out(index, arguments.keep)
            file.write(json.dumps(row_of(verdict)) + "\n")
            if verdict.outcome.seconds > SLOW:
                print(
                    f"{verdict.outcome.seconds:.0f} s: {target.name} {index} {verdict.mutation}",
                    flush=True,
                )
            if arguments.index is not None:
                print(verdict.outcome.output)
            if done % 500 == 499:
                print(f"{done + 1}/{len(work)} {target.name}", flush=True)


def row_of(verdict: Verdict) -> dict:
    return {
        "target": verdict.target.name,
        "index": verdict.index,
        "command": verdict.target.command,
        "kind": verdict.target.kind,
        "file": verdict.file.name,
        "mutation": verdict.mutation,
        "code": verdict.outcome.code,
        "seconds": round(verdict.outcome.seconds, 3),
        "peak": verdict.outcome.peak,
        "breaches": [str(breach) for breach in verdict.breaches],
        "output": verdict.outcome.output[-3000:] if verdict.breaches else "",
    }


def print_found(found: Sequence[dict], seed: int) -> None:
    """Each breach once, with how to repeat one case of it."""
    by_breach: dict[str, list[dict]] = {}
    for row in found:
        for breach in row["breaches"]:
            by_breach.setdefault(breach, []).append(row)
    for breach, rows in sorted(by_breach.items(), key=lambda item: -len(item[1])):
        row = rows[0]
        print(f"\n{breach} ({len(rows)} times, e.g. {row['mutation']} of {row['file']})")
        print(f"  {repeat(row, seed)}")
        for line in row["output"].rstrip().splitlines()[-3:]:
            print(f"  | {line[:200]!r}")


def repeat(row: dict, seed: int) -> str:
    """The command that repeats one mutation."""
    words = f"--seed {seed} --target {row['target']} --index {row['index']} --keep kept"
    return f"python tests/attack/run.py {words}"


def record(rows: Sequence[dict], seed: int, seconds: float) -> None:
    """Write what was tried, for the record."""
    facts = {
        "mutations": len(rows),
        "seed": seed,
        "seconds": round(seconds),
        "processor": processor(),
        "python": platform.python_version(),
        "by_command": dict(Counter(row["command"] for row in rows)),
        "by_kind": dict(Counter(row["kind"] for row in rows)),
        "by_target": dict(Counter(row["target"] for row in rows)),
    }
    RESULTS.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def processor() -> str:
    names = (line for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    return next(names, "").partition(":")[2].strip() or platform.processor()


def _lines(file: str) -> Iterator[str]:
    yield from Path(file).read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    sys.exit(main())
