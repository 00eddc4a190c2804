"""Rows of attacks: what is printed of them, and the record of a whole run."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attack.fork import Outcome

from gimp_fast import processor

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "attack.json"
Row = dict[str, Any]


def row(command: str, outcomes: Sequence[Outcome], breaches: Iterable[object], **facts) -> Row:
    """One attack; what was printed is kept if it broke a law."""
    broken = [str(breach) for breach in breaches]
    printed = "\n".join(outcome.output for outcome in outcomes)
    return {
        "command": command,
        **facts,
        "codes": [outcome.code for outcome in outcomes],
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 3),
        "peak": max((outcome.peak for outcome in outcomes), default=0),
        "breaches": broken,
        "output": printed[-3000:],
    }


def print_found(rows: Sequence[Row], seed: int) -> None:
    """Each breach once, with how to repeat one case of it."""
    by_breach: dict[str, list[Row]] = {}
    for found in rows:
        for breach in found["breaches"]:
            by_breach.setdefault(breach, []).append(found)
    for breach, cases in sorted(by_breach.items(), key=lambda item: -len(item[1])):
        case = cases[0]
        print(f"\n{breach} ({len(cases)} times, e.g. {case['way']} of {case.get('file', '')})")
        words = f"--seed {seed} --only '{case['name']}' --index {case['index']} --keep kept"
        print(f"  python tests/attack/run.py {words}")
        for line in case["output"].rstrip().splitlines()[-3:]:
            print(f"  | {line[:200]!r}")
    replaced = Counter(found["way"] for found in rows if " instead of " in found["way"])
    for text, count in replaced.most_common():
        print(f"{count} × {text}")


def counts(rows: Sequence[Row]) -> str:
    """How many attacks of each kind there were, in words."""
    bad = sum(bool(found["breaches"]) for found in rows)
    kinds = Counter(found["name"].partition("/")[0] for found in rows)
    return f"{', '.join(f'{kinds[k]} {k}s' for k in kinds)}; {bad} broke a law"


def record(rows: Sequence[Row], seed: int, seconds: float) -> None:
    """Write what was tried."""
    of = {kind: [r for r in rows if r["name"].startswith(kind)] for kind in KINDS}
    mutations = of["mutation"]
    facts = {
        "mutations": len(mutations),
        "kills": sum(found["hits"] for found in of["kill"]),
        "conditions": len(of["condition"]),
        "names": len(of["name"]),
        "broke_a_law": sorted({r["name"] for r in rows if r["breaches"]}),
        "seed": seed,
        "seconds": round(seconds),
        "processor": processor.name(),
        "python": platform.python_version(),
        "mutations_by_command": dict(Counter(found["command"] for found in mutations)),
        "mutations_by_kind": dict(Counter(found["kind"] for found in mutations)),
        "mutations_by_file": dict(Counter(found["name"][9:] for found in mutations)),
        "refused_mutations": sum(2 in found["codes"] for found in mutations),
        "kills_by_command": dict(
            sum((Counter({r["command"]: r["hits"]}) for r in of["kill"]), Counter())
        ),
        "conditions_by_command": dict(Counter(found["command"] for found in of["condition"])),
    }
    RESULTS.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


KINDS = ("mutation", "kill", "condition", "name")
