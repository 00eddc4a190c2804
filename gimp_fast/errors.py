"""What a user sees when their input is wrong. A leaf module: every layer may import it."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

SHOWN = 5  # faults of a kind that a message lists; it counts the others

# What libraries raise when they read a damaged file, besides exceptions of their own.
DAMAGE_ERRORS = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)
# As NumPy raises for its arrays, whose header it parses as Python code.
ARRAY_ERRORS = (*DAMAGE_ERRORS, SyntaxError, tokenize.TokenError)


class GimpError(Exception):
    """A fault of the input or of the request, reported in one message that names what and where.

    Commands print the message without a traceback and exit with code 2.
    """


class StoppedError(GimpError):
    """A run was asked to stop, has saved its state, and can be resumed.

    Commands print the message and exit with code 75, which Unix calls a temporary failure.
    """


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a cohort.

    ``kind`` is a short stable identifier, such as ``truncated-file``, by which faults are counted;
    ``where`` names the file, and the row, key or column in it.
    """

    kind: str
    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; expected {self.expected} [{self.kind}]"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class FaultError(GimpError):
    """One or more faults, reported together.

    The message has at most ``SHOWN`` faults of a kind, and counts the others; ``faults`` has all.
    ``note`` is a sentence below them, ``listed_in`` a file that lists all of them.
    """

    def __init__(
        self,
        faults: Iterable[Fault],
        subject: str = "input",
        note: str = "",
        listed_in: object = None,
    ):
        self.faults = tuple(faults)
        self.subject, self.note, self.listed_in = subject, note, listed_in
        if len(self.faults) == 1:
            message = str(self.faults[0])
        else:
            lines = "\n".join(f"  {line}" for line in first_of_each_kind(self.faults, listed_in))
            message = f"{len(self.faults)} faults in {subject}:\n{lines}"
            kinds = self.counts()
            if len(kinds) > 1:
                message += "\nby kind: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        super().__init__(f"{message}\n{note}" if note else message)

    @property
    def is_shortened(self) -> bool:
        """True if the message leaves faults out."""
        return any(count > SHOWN for count in self.counts().values())

    def full_text(self) -> str:
        """Every fault, one a line."""
        return "".join(f"{fault}\n" for fault in self.faults)

    @classmethod
    def of(cls, kind: str, where: object, found: str, expected: str) -> FaultError:
        """An error of one fault."""
        return cls([Fault(kind, str(where), found, expected)])

    def counts(self) -> dict[str, int]:
        """Kind -> how many faults of it, the commonest first."""
        return dict(Counter(fault.kind for fault in self.faults).most_common())

    def __reduce__(self) -> tuple:
        # An exception is rebuilt from its message by default; worker processes send it.
        return (type(self), (self.faults, self.subject, self.note, self.listed_in))


def first_of_each_kind(faults: Iterable[Fault], listed_in: object = None) -> list[str]:
    """A line for each of the first ``SHOWN`` faults of a kind, and a line that counts the others.

    Args:
        faults: in the order of the lines; those of a kind that is cut short stay together.
        listed_in: the file that lists all of them, for the line that counts.
    """
    by_kind: dict[str, list[Fault]] = {}
    for fault in faults:
        by_kind.setdefault(fault.kind, []).append(fault)
    lines = []
    for kind, found in by_kind.items():
        lines += map(str, found[:SHOWN])
        if len(found) > SHOWN:
            all_in = f", all in {listed_in}" if listed_in else ""
            lines.append(f"… and {len(found) - SHOWN} more [{kind}]{all_in}")
    return lines


@dataclass(frozen=True)
class Read(Generic[T]):
    """What a reader found, and what is wrong with it.

    The reader went on as far as it could: ``value`` may be used to look for further faults, and for
    anything else only if there are none.
    """

    value: T
    faults: tuple[Fault, ...] = ()


@dataclass
class Faults:
    """Faults that are collected, to be reported together."""

    items: list[Fault] = field(default_factory=list)

    def add(self, kind: str, where: object, found: str, expected: str) -> None:
        self.items.append(Fault(kind, str(where), found, expected))

    @contextlib.contextmanager
    def collect(self) -> Iterator[None]:
        """Add the faults of a FaultError, which ends the block."""
        try:
            yield
        except FaultError as error:
            self.items += error.faults

    def take(self, read: Read[T]) -> T:
        """The value of a read, whose faults are added."""
        self.items += read.faults
        return read.value

    def read(self, value: T) -> Read[T]:
        """A value with the faults so far."""
        return Read(value, tuple(self.items))

    def stop(self, subject: object) -> None:
        """FaultError if there are any."""
        if self.items:
            raise FaultError(self.items, str(subject))


# What torch, HDF5 and the system say, in the words of their messages.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|bad_alloc"
    r"|unable to allocate|failed to allocate|errno = 12\b"
    r"|failed to map segment|can't start new thread",
    re.IGNORECASE,
)
_FULL_DISK = re.compile(
    r"no space left|disk quota exceeded|file too large|errno = (28|122|27)\b|file write failed"
    r"|PytorchStreamWriter failed",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """True if memory ran out, of the processor or of a GPU, whatever library says so."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    may_say_so = isinstance(error, (RuntimeError, ImportError, SystemError))
    return may_say_so and bool(_NO_MEMORY.search(str(error)))


def is_full_disk(error: BaseException) -> bool:
    """True if an error of a library means that a disk is full, or a file as large as it may be."""
    return bool(_FULL_DISK.search(str(error)))


def cause_of(error: BaseException) -> str:
    """The system's words for what went wrong with a file; else the error's message on one line."""
    number = error.errno if isinstance(error, OSError) else None
    # As HDF5, and safetensors, write it; NumPy only says how much it wrote.
    if number is None and (found := re.search(r"(?:errno =|os error) (\d+)", str(error))):
        number = int(found[1])
    if number is None and re.search(r"\d+ requested and \d+ written", str(error)):
        number = errno.ENOSPC
    return os.strerror(number) if number else one_line(error)


# Spelling is compared on this many characters: the time grows with the square of their number.
_LONGEST_NAME = 100
_MOST_LISTED = 30  # of the choices in a message; hundreds of them would hide what is wrong


def nearest(name: object, choices: Iterable[object], most: int = 1) -> list[str]:
    """The choices that a misspelt name may have meant, the nearest first; often none.

    Case, dashes and underscores do not count. One call compares with every choice, which takes
    about 0.1 s for 10,000 of them: ask for the first few wrong names of a long list only.
    """
    by_key: dict[str, str] = {}
    for choice in choices:
        by_key.setdefault(_spelling(choice), str(choice))
    found = difflib.get_close_matches(_spelling(name), by_key, n=most, cutoff=0.6)
    return [by_key[key] for key in found]


def _spelling(name: object) -> str:
    return str(name)[:_LONGEST_NAME].lower().replace("_", "-").strip("- ")


def did_you_mean(name: object, choices: Iterable[object]) -> str:
    """``"; did you mean 'small'?"``, to end a message with; empty if no choice is near."""
    found = nearest(name, choices)
    return f"; did you mean '{found[0]}'?" if found else ""


def one_of(name: object, choices: Iterable[object]) -> str:
    """What was expected instead of a name: ``"one of a, b, c; did you mean 'b'?"``."""
    names = list(map(str, choices))
    if not names:
        return "nothing: there are no names to choose from"
    listed = ", ".join(names[:_MOST_LISTED])
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    start = "one of " if len(names) > 1 else ""
    return f"{start}{listed}{more}{did_you_mean(name, names)}"


def one_line(error: BaseException) -> str:
    """The message of another library's exception, on one line and of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number of things in words: ``1 slide``, ``2 slides``, ``1,200 patches``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def missing_library(name: str, path: object, error: ImportError) -> FaultError:
    """The fault of a file whose format needs an optional library that cannot be imported."""
    expected = f"{name}, from `pip install 'gimp-fast[formats]'`"
    return FaultError.of("missing-library", path, f"{name} cannot be imported ({error})", expected)
