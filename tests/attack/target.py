"""A file under attack.

In the words of a command, ``{in}`` is the folder of inputs and ``{out}`` that of results.
"""

from __future__ import annotations

from dataclasses import dataclass

FAST = ("--bootstrap", "20", "--device", "cpu")


@dataclass(frozen=True)
class Target:
    """A file under attack.

    Attributes:
        name: ``command/what``.
        argv: the command and its options.
        files: patterns below the folder of inputs; a mutation takes one of the files.
        kind: format of the file, which chooses the mutations.
        same: results that may not differ from those of the undisturbed command if it succeeds,
            because a checksum protects the file.
        weight: share of the mutations.
        code: exit code of the undisturbed command.
        writes: folders of the inputs that the command may write.
    """

    name: str
    argv: tuple[str, ...]
    files: tuple[str, ...]
    kind: str
    same: tuple[str, ...] = ()
    weight: float = 1.0
    writes: tuple[str, ...] = ()
    code: int = 0

    @property
    def command(self) -> str:
        return self.argv[0]
