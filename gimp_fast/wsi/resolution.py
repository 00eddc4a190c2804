"""Micrometres per pixel (mpp) of level 0: from the slide or from the user, never assumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.files.table import open_table
from gimp_fast.wsi.slide_files import slide_id_of, without_suffix

if TYPE_CHECKING:
    from gimp_fast.wsi.slide import SlideFacts

MPP_AT_1X = 10.0  # by convention 20x is 0.5 µm a pixel and 40x is 0.25
# Scanners give 0.1 to 1 µm. A record outside these limits is a mistake: in a wrong unit, ten times
# too small, or the 353 µm of a picture of 72 dpi. A person may know of a special microscope.
PLAUSIBLE_MPP = (0.1, 5.0)
POSSIBLE_MPP = (0.04, 20.0)
PLAUSIBLE_MAGNIFICATION = tuple(MPP_AT_1X / mpp for mpp in reversed(PLAUSIBLE_MPP))
_OF_SLIDE = "of the slide"
_SLIDE_COLUMNS = ("slide_id", "slide", "filename", "file", "wsi", "name")
_VALUE_COLUMNS = {"mpp": ("mpp",), "magnification": ("magnification", "objective_power")}


@dataclass(frozen=True)
class Override:
    """A resolution of level 0 that the user gives."""

    mpp: float  # micrometres per pixel
    source: str  # option or table row that gives it
    always: bool  # replaces a recorded value; otherwise used only where none is recorded


@dataclass(frozen=True)
class Overrides:
    """The resolutions that the user gives."""

    default: Override | None = None  # for slides that record none
    by_slide: Mapping[str, Override] = field(default_factory=dict)  # replaces what they record

    def of(self, path: Path) -> Override | None:
        return self.by_slide.get(slide_id_of(path), self.default)


def read_overrides(mpp: str | None, magnification: str | None) -> Overrides:
    """From ``--mpp-override`` and ``--magnification-override``: each a number, or a csv.

    A csv has a column of slides (``slide_id`` or ``filename``), and ``mpp`` or ``magnification``.

    Raises:
        GimpError: a value or a table is not as described.
    """
    default, by_slide = None, {}
    for name, text in (("magnification", magnification), ("mpp", mpp)):
        if text is None:
            continue
        flag = f"--{name}-override"
        if number(text) is not None:
            default = _override(name, text, flag, always=False)
        elif Path(text).is_file():
            by_slide |= _read_table(Path(text), name)
        else:
            raise GimpError(f"{flag}: found '{text}'; expected a number, or a csv that exists")
    return Overrides(default, by_slide)


def _override(name: str, text: str, where: str, *, always: bool) -> Override:
    value = number(text) or 0.0
    mpp = MPP_AT_1X / value if name == "magnification" and value > 0 else value
    low, high = POSSIBLE_MPP
    if not low <= mpp <= high:
        expected = f"a value that is {low:g} to {high:g} µm per pixel"
        raise GimpError(f"{where}: found {name} '{text}'; expected {expected}")
    return Override(mpp, f"{where} {text}", always)


def _read_table(path: Path, name: str) -> dict[str, Override]:
    table = open_table(path)
    table = replace(table, header=tuple(column.lower() for column in table.header))
    columns = table.one_of(*_SLIDE_COLUMNS), table.one_of(*_VALUE_COLUMNS[name])
    overrides = {
        without_suffix(Path(slide).name): _override(name, text, f"{path.name}:{row}", always=True)
        for row, (_, slide, text) in enumerate(table.rows(*columns), 2)
    }
    if not overrides:
        raise FaultError.of("empty-table", path, "no rows", f"a row per slide, with its {name}")
    return overrides


def level0_mpp(facts: SlideFacts, override: Override | None = None) -> tuple[float, str]:
    """(micrometres per pixel of level 0, where that comes from); FaultError if nobody gives it."""
    if override and override.always:
        return override.mpp, override.source
    if facts.mpp is not None:
        return facts.mpp, f"mpp {_OF_SLIDE}"
    if (power := facts.magnification) is not None:
        return MPP_AT_1X / power, f"magnification {power:g} {_OF_SLIDE}"
    if override:
        return override.mpp, override.source
    found = facts.remark or "neither micrometres per pixel nor a magnification"
    expected = (
        "one of them; give it with --mpp-override or --magnification-override, a number for all "
        "slides that record none or a csv of slides"
    )
    raise FaultError.of("resolution-unknown", facts.path, found, expected)


def is_of_slide(source: str) -> bool:
    """Whether ``level0_mpp`` took a resolution from the slide, by its second value."""
    return source.endswith(_OF_SLIDE)


def resolution_cautions(facts: SlideFacts, mpp: float, source: str) -> tuple[str, ...]:
    """What is odd about a resolution of level 0 that is used, in sentences without a full stop."""
    cautions = []
    low, high = PLAUSIBLE_MPP
    if not low <= mpp <= high:
        cautions.append(f"{mpp:g} µm per pixel ({source}) is unusual: scanners give 0.1 to 1")
    if facts.remark:
        cautions.append(f"the slide has {facts.remark}: not used, {source} is")
    power = facts.magnification
    if facts.mpp and power and not 1 / 3 < facts.mpp * power / MPP_AT_1X < 3:
        cautions.append(
            f"the slide records {facts.mpp:g} µm per pixel and a magnification of {power:g}, which "
            f"would be {MPP_AT_1X / power:g} µm; {source} is used"
        )
    return tuple(cautions)


def checked_resolution(
    mpp: tuple[float | None, float | None], magnification: float | None, remark: str = ""
) -> tuple[float | None, float | None, str]:
    """(mpp, magnification, remark) of a slide: implausible records become None and a remark.

    ``remark`` is about what was left out before.
    """
    remarks, mean = [remark] if remark else [], None
    if None not in mpp:
        across, down = mpp
        low, high = PLAUSIBLE_MPP
        if not low <= min(mpp) <= max(mpp) <= high:
            remarks.append(f"a recorded {across:g} × {down:g} µm per pixel, which is implausible")
        elif abs(across - down) > 0.05 * (across + down) / 2:
            remarks.append(f"recorded pixels that are not square, {across:g} × {down:g} µm")
        else:
            mean = (across + down) / 2
    low, high = PLAUSIBLE_MAGNIFICATION
    if magnification is not None and not low <= magnification <= high:
        remarks.append(f"a recorded magnification of {magnification:g}")
        magnification = None
    return mean, magnification, "; ".join(remarks)


def number(text: object) -> float | None:
    """A finite number from a header or a cell, or None; a decimal comma is accepted."""
    try:
        value = float(str(text).replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
