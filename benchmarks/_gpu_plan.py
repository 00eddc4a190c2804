"""What ``gpu_day.py`` runs: parts in order of worth, and the commands of each.

A dry run has the same parts and scripts, at sizes that a CPU does in seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from _nystrom_peers import PEERS

# The memory of an RTX 3090.
CAP_GB = "24"


@dataclass(frozen=True)
class Command:
    """One process of a part.

    Attributes:
        arguments: of Python, from the root of the repository.
        writes: whether it takes ``--results``.
    """

    name: str
    arguments: tuple[str, ...]
    writes: bool = True


@dataclass(frozen=True)
class Part:
    number: int
    title: str
    commands: tuple[Command, ...]


def plan(dry_run: bool) -> list[Part]:
    titles = ("tests", "operator beside its peers", "training", "configurations", "other layers")
    commands = dry_commands() if dry_run else gpu_commands()
    return [
        Part(number, title, tuple(found))
        for number, (title, found) in enumerate(zip(titles, commands, strict=True), start=1)
    ]


def script(name: str, file: str, *options: str) -> Command:
    return Command(name, (f"benchmarks/{file}", *options))


def tests(name: str, markers: str, *options: str) -> Command:
    return Command(
        name, ("-P", "-m", "pytest", "-p", "no:cacheprovider", "-m", markers, *options), False
    )


def gpu_commands() -> Iterator[list[Command]]:
    cuda = ("--device", "cuda")
    bf16 = (*cuda, "--dtype", "bf16")
    # A verbose test run says what has passed before it is stopped; several workers, as most of the
    # time is the compiler's.
    workers = ("-v", "-n", str(min(8, os.cpu_count() or 1)), "--dist", "worksteal")
    yield [
        tests("gpu", "gpu", *workers),
        tests("triton", "triton and not gpu", *workers),
        Command("sanitizer", ("tests/kernels/sanitize.py",), False),
    ]
    layer = ("nystrom_attention.py", *bf16, "--budget", "3")
    operator = (*layer, "--level", "op")
    # The compiler of torch takes longer than all others together.
    eager = [name for name, peer in PEERS.items() if not peer.compiled]
    compiled = [name for name, peer in PEERS.items() if peer.compiled]
    yield [
        # Its kernels are compiled first; those that are done stay, even if this is stopped.
        script("gimp_fast", *operator, "--batch", "1", "--n", "6000", "--peers", "gimp_fast"),
        script("8x6000", *operator, "--batch", "8", "--n", "6000", "--peers", *eager),
        script("1x148569", *operator, "--batch", "1", "--n", "148569", "--peers", *eager),
        script("1x6000", *operator, "--batch", "1", "--n", "6000", "--peers", *eager),
        script("compiled", *operator, "--batch", "8", "--n", "6000", "--peers", *compiled),
    ]
    capped = ("training.py", *bf16, "--cap-gb", CAP_GB, "--budget", "3", "--batch", "16")
    yield [
        script(name, *capped, "--n", "148569", "--largest-batch", "--peers", name)
        for name in ("gimp_fast", "plain")
    ]
    yield [script("configurations", "_gpu_tuning.py", *cuda)]
    yield [
        script("masked_l1", "masked_l1.py", *cuda),
        script("masked_reconstruction", "masked_reconstruction.py", *cuda),
        script("layer", *layer, "--batch", "8", "--n", "6000", "--peers", *eager),
    ]


def dry_commands() -> Iterator[list[Command]]:
    tiny = ("--smoke", "--dtype", "bf16", "--peers", "gimp_fast")
    yield [tests("gpu", "gpu or triton", "--collect-only", "-q", "tests/kernels")]
    yield [script("operator", "nystrom_attention.py", "--level", "op", *tiny)]
    yield [script("gimp_fast", "training.py", *tiny)]
    yield [script("configurations", "_gpu_tuning.py", "--smoke")]
    yield [script("masked_l1", "masked_l1.py", "--shape", "2", "40", "24", "--repeats", "2")]


def command_line(command: Command, results: str) -> list[str]:
    options = ["--results", results] if command.writes else []
    return [sys.executable, *command.arguments, *options]
