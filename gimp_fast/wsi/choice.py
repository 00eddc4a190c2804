"""Which slides, whose share, and what the user says of their resolution."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gimp_fast.errors import Faults, GimpError
from gimp_fast.wsi import SUFFIXES
from gimp_fast.wsi.grid import MPP_AT_1X, Override
from gimp_fast.wsi.slide import PLAUSIBLE_MPP, number

_SLIDE_COLUMNS = ("slide_id", "slide", "filename", "file", "wsi", "name")
_VALUE_COLUMNS = {"mpp": ("mpp",), "magnification": ("magnification", "objective_power")}


def slide_id_of(path: Path) -> str:
    """The name without its ending, as in CLAM's tables; ``.ome.tif`` is one ending."""
    name = _without_ending(path.name)
    return path.stem if name == path.name else name


def _without_ending(name: str) -> str:
    """Ids hold dots (TCGA's end in one and a UUID), so that only known endings are taken off."""
    for suffix in sorted((*SUFFIXES, ".ome.tif", ".ome.tiff"), key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def find_slides(
    given: Iterable[Path], patterns: Sequence[str] = (), recursive: bool = False
) -> list[Path]:
    """The slides in folders, and those named one by one, ordered by slide id.

    Args:
        given: folders and files.
        patterns: of names in folders, e.g. ``*-DX?.*``; default: every known ending.
        recursive: look into folders of folders too.

    Raises:
        GimpError: something does not exist, there is no slide, or two have one id.
    """
    found: dict[Path, None] = {}
    for place in given:
        if place.is_file():
            found[place] = None
        elif place.is_dir():
            found.update(dict.fromkeys(_in_folder(place, patterns, recursive)))
        else:
            raise GimpError(f"{place}: found no such folder or file; expected slides")
    if not found:
        where = ", ".join(map(str, given))
        names = " ".join(patterns) if patterns else " ".join(SUFFIXES)
        hint = "" if recursive else "; --recursive looks into folders of folders"
        raise GimpError(f"{where}: found no slide; expected files like {names}{hint}")
    by_id: dict[str, list[Path]] = {}
    for path in found:
        by_id.setdefault(slide_id_of(path), []).append(path)
    faults = Faults()
    for name, paths in by_id.items():
        if len(paths) > 1:
            files = ", ".join(map(str, paths))
            faults.add("duplicate-slide", name, files, "one file a slide: outputs would collide")
    faults.stop("the slides")
    return [by_id[name][0] for name in sorted(by_id)]


def _in_folder(folder: Path, patterns: Sequence[str], recursive: bool) -> list[Path]:
    look = folder.rglob if recursive else folder.glob
    if patterns:
        files = [path for pattern in patterns for path in look(pattern)]
    else:
        files = [path for path in look("*") if path.name.lower().endswith(SUFFIXES)]
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def share(slides: Sequence[Path], shard: str | None) -> list[Path]:
    """The slides of share ``i/n``, i from 1 to n; None for all. Neighbours go to different shares.

    Raises:
        GimpError: it is not of that form.
    """
    if shard is None:
        return list(slides)
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise GimpError(f"--shard: found '{shard}'; expected i/n with i from 1 to n, as in 3/8")
    return list(slides[int(index) - 1 :: int(count)])


@dataclass
class Overrides:
    """What the user says of resolutions.

    Attributes:
        default: for every slide that does not tell its own.
        by_slide: for the slides of a table, whatever they tell.
    """

    default: Override | None = None
    by_slide: dict[str, Override] = field(default_factory=dict)

    def of(self, path: Path) -> Override | None:
        return self.by_slide.get(slide_id_of(path), self.default)


def read_overrides(mpp: str | None, magnification: str | None) -> Overrides:
    """From ``--mpp-override`` and ``--magnification-override``: each a number, or a csv.

    A csv has a column of slides (``slide_id`` or ``filename``), and ``mpp`` or ``magnification``.

    Raises:
        GimpError: a value or a table is not as described.
    """
    overrides = Overrides()
    for name, given in (("magnification", magnification), ("mpp", mpp)):
        if given is None:
            continue
        option = f"--{name}-override"
        if number(given) is not None:
            overrides.default = _override(name, given, option, False)
        else:
            overrides.by_slide.update(_read_table(Path(given), name, option))
    return overrides


def _override(name: str, text: str, where: str, always: bool) -> Override:
    value = number(text)
    low, high = PLAUSIBLE_MPP
    mpp = 0.0
    if value is not None and value > 0:
        mpp = value if name == "mpp" else MPP_AT_1X / value
    if not low <= mpp <= high:
        raise GimpError(f"{where}: found {name} '{text}'; expected one of a microscope")
    return Override(mpp, f"{where} {text}", always)


def _read_table(path: Path, name: str, option: str) -> dict[str, Override]:
    if not path.is_file():
        raise GimpError(f"{option}: found '{path}'; expected a number, or a csv that exists")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GimpError(f"{path}: cannot be read ({error}); expected a csv") from error
    columns = {str(key).strip().lower(): key for key in rows[0]} if rows else {}
    slides = next((columns[key] for key in _SLIDE_COLUMNS if key in columns), None)
    values = next((columns[key] for key in _VALUE_COLUMNS[name] if key in columns), None)
    if slides is None or values is None:
        found = ", ".join(map(str, columns)) or "no rows"
        raise GimpError(f"{path}: found {found}; expected columns slide_id and {name}")
    table = {}
    for line, row in enumerate(rows, 2):
        slide = _without_ending(Path((row[slides] or "").strip()).name)
        table[slide] = _override(name, (row[values] or "").strip(), f"{path.name}:{line}", True)
    return table
