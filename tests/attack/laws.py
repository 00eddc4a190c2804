"""What no input may do to a command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attack.fork import CRASHED, Outcome, idle_memory
from attack.sandbox import SECRET, Snapshot, float_forms

MEMORY = 1 << 30
LONGEST_OUTPUT = 100_000
CODES = {"experiments": (0, 1, 2)}
RESULT, BAD_INPUT = (0,), (0, 2)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\\x(?:1b|07|08)\b")
_RAW_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WARNING = re.compile(r"^.*?:\d+: (\w*Warning): (.*)", re.MULTILINE)
_FRAME = re.compile(r'File "([^"]*)", line (\d+), in (\S+)')
_KIND = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)  # the last line of a traceback
_MARKUP = re.compile(r"<script>alert|<img src=x", re.IGNORECASE)


@dataclass(frozen=True)
class Breach:
    """A law that was broken; ``place`` groups breaches of one cause."""

    law: str
    place: str

    def __str__(self) -> str:
        return f"{self.law}: {self.place}"


def of_outcome(command: str, outcome: Outcome) -> Iterator[Breach]:
    """Laws on how a command ended and what it printed."""
    text = outcome.output
    if outcome.late:
        yield Breach("hang", command)
    elif outcome.code == CRASHED or "Traceback (most recent call last)" in text:
        yield Breach("traceback", _place(text))
    elif outcome.code not in CODES.get(command, BAD_INPUT):
        yield Breach("exit code", f"{command} ended with {outcome.code}")
    elif outcome.code == 2 and not re.search(r"error:|FAILED|fault", text):
        yield Breach("no message", command)
    memory = outcome.peak - idle_memory()
    if memory > MEMORY:
        yield Breach("memory", command)
    if _RAW_CONTROL.search(text):
        yield Breach("control character printed", _line_of(_RAW_CONTROL, text))
    if len(text) > LONGEST_OUTPUT:
        yield Breach("flood", command)
    for warning in _WARNING.finditer(text):
        yield Breach("library warning", f"{warning[1]}: {warning[2][:80]}")


def _line_of(pattern: re.Pattern, text: str) -> str:
    line = next(line for line in text.split("\n") if pattern.search(line))
    return re.sub(r"/\S+", "PATH", repr(line))[:60]


def _place(text: str) -> str:
    """The kind of an exception, and the last place in the package that it came through."""
    frames = [frame for frame in _FRAME.finditer(text) if "gimp_fast/" in frame[1]]
    kinds = [kind for kind in _KIND.findall(text) if kind not in ("error", "usage", "warning")]
    kind = kinds[-1] if kinds else "?"
    if not frames:
        return kind
    last = frames[-1]
    return f"{kind} in {last[1].split('gimp_fast/')[-1]} {last[3]}"


def of_files(before: Snapshot, after: Snapshot, root: Path) -> Iterator[Breach]:
    """Nothing outside the results may change."""
    for path in before.keys() | after.keys():
        if before.get(path) != after.get(path):
            way = "created" if path not in before else "removed" if path not in after else "changed"
            yield Breach("file outside the output", f"{way} {Path(path).relative_to(root)}")


def of_results(out: Path, printed: str) -> Iterator[Breach]:
    """No secret in a result, and no markup of a user that a browser would run."""
    forms = float_forms(SECRET)
    if SECRET[:16].decode() in printed:
        yield Breach("secret", "printed")
    for file in _files(out):
        data = file.read_bytes()
        if any(form in data for form in forms):
            yield Breach("secret", file.name)
        if file.suffix in (".html", ".svg") and _MARKUP.search(data.decode("utf-8", "replace")):
            yield Breach("markup", file.name)


def _files(folder: Path) -> Iterable[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
