"""A slide's file as it was when its cohort was prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gimp_fast.data.slides.file_state import file_state
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.errors import FaultError

# File -> its state when this process last found the content that was prepared.
_verified: dict[Path, str] = {}


def verified_files() -> dict[Path, str]:
    """The files that this process has found to hold what was prepared, for :func:`trust`."""
    return {path.absolute(): state for path, state in _verified.items()}


def trust(files: Mapping[Path, str]) -> None:
    """Believe what another process has found; a file that changed since then is read again."""
    _verified.update(files)


@dataclass(frozen=True)
class PreparedFile:
    """What tells whether a file still is the one that was prepared.

    Attributes:
        path: of the feature file.
        slide_id: for errors.
        checksum, coords_checksum: of its content, see ``SlideScan``; empty for any.
        file_state: size and time of the file, see ``file_state``; empty if they prove nothing.
    """

    path: Path
    slide_id: str
    checksum: str = ""
    coords_checksum: str = ""
    file_state: str = ""

    def check(self) -> None:
        """FaultError if the content was changed since ``prepare``.

        A file in its old state was read to its end by ``prepare``, in a process of its own, and
        is believed. Any other is read so again after each change, by each process or by one that
        it trusts.
        """
        found = file_state(self.path)
        if not found or found not in (self.file_state, _verified.get(self.path)):
            _verified[self.path] = self.verify()

    def verify(self) -> str:
        """Read the whole file and compare; returns the state it had.

        Raises:
            FaultError: the file cannot be read, or its content was changed.
        """
        scan = scan_slide(self.path)
        if scan.faults:
            raise FaultError(scan.faults, f"slide '{self.slide_id}'")
        pairs = {
            "features": (scan.checksum, self.checksum),
            "coordinates": (scan.coords_checksum, self.coords_checksum),
        }
        for name, (found, prepared) in pairs.items():
            if prepared and found != prepared:
                expected = "those that the cohort was prepared with; run `prepare` again"
                text = f"other {name} of slide '{self.slide_id}'"
                raise FaultError.of("changed-file", self.path, text, expected)
        return scan.file_state
