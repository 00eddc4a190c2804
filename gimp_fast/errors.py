"""What a user sees when their input is wrong. A leaf module: every layer may import it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass


class GimpError(Exception):
    """A fault of the input or of the request, told in one message that names what and where.

    Commands print the message without a traceback and exit with code 2.
    """


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a cohort.

    Attributes:
        kind: short stable identifier, e.g. ``"truncated-file"``; faults are counted by it.
        where: the file, and the row, key or column in it.
        found: what is there.
        expected: what should be there.
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
    """One or more faults, reported together."""

    def __init__(self, faults: Iterable[Fault], subject: str = "input"):
        self.faults = tuple(faults)
        self.subject = subject
        if len(self.faults) == 1:
            message = str(self.faults[0])
        else:
            lines = "\n".join(f"  {fault}" for fault in self.faults)
            message = f"{len(self.faults)} faults in {subject}:\n{lines}"
            kinds = self.counts()
            if len(kinds) > 1:
                message += "\nby kind: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        super().__init__(message)

    def counts(self) -> dict[str, int]:
        """Kind -> how many faults of it, the commonest first."""
        return dict(Counter(fault.kind for fault in self.faults).most_common())

    def __reduce__(self) -> tuple:
        # An exception is rebuilt from its message unless told otherwise; worker processes send it.
        return (type(self), (self.faults, self.subject))
