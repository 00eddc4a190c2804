"""Slide files: which ones to process, and their ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gimp_fast.data.names import IMAGE_SUFFIXES
from gimp_fast.errors import Faults, GimpError
from gimp_fast.files.paths import is_hidden

SUFFIXES = IMAGE_SUFFIXES
"""Endings of the names of slides, in lower case."""


def slide_id_of(path: Path) -> str:
    """The file name without its extension, as in CLAM's tables; ``.ome.tif`` counts as one."""
    name = without_suffix(path.name)
    return path.stem if name == path.name else name


def without_suffix(name: str) -> str:
    """The name without a known extension. Ids contain dots: TCGA's end in one and a UUID."""
    for suffix in (".ome.tif", ".ome.tiff", *SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def find_slides(
    places: Iterable[Path], patterns: Sequence[str] = (), recursive: bool = False
) -> list[Path]:
    """The slides in folders, and those named one by one, sorted by slide id.

    ``patterns`` are file names to take from folders, e.g. ``*-DX?.*``; default: every known
    extension.

    Raises:
        GimpError: a place does not exist, there is no slide, or two slides have the same id.
    """
    places = list(places)
    slides: set[Path] = set()
    for place in places:
        if place.is_dir():
            slides |= _in_folder(place, patterns, recursive)
        elif place.is_file():
            slides.add(place)
        else:
            raise GimpError(f"{place}: found no such folder or file; expected slides")
    if not slides:
        names = " ".join(patterns or SUFFIXES)
        hint = "" if recursive else "; --recursive searches subfolders"
        where = ", ".join(map(str, places))
        raise GimpError(f"{where}: found no slide; expected files like {names}{hint}")
    by_id: dict[str, list[Path]] = {}
    for path in sorted(slides):
        by_id.setdefault(slide_id_of(path), []).append(path)
    faults = Faults()
    for slide_id, paths in by_id.items():
        if len(paths) > 1:
            files = ", ".join(map(str, paths))
            expected = "one file per slide id: their outputs would overwrite each other"
            faults.add("duplicate-slide", slide_id, files, expected)
    faults.stop("the slides")
    return [by_id[slide_id][0] for slide_id in sorted(by_id)]


def _in_folder(folder: Path, patterns: Sequence[str], recursive: bool) -> set[Path]:
    search = folder.rglob if recursive else folder.glob
    return {
        path
        for pattern in patterns or ["*"]
        for path in search(pattern)
        if path.is_file()
        and not in_hidden_place(path, folder)
        and (patterns or path.name.lower().endswith(SUFFIXES))
    }


def in_hidden_place(path: Path, folder: Path) -> bool:
    """Whether a file below a folder, or a folder on the way to it, is hidden."""
    return any(is_hidden(Path(part)) for part in path.relative_to(folder).parts)


def share(slides: Sequence[Path], shard: str | None) -> list[Path]:
    """The slides of part ``i/n``, i from 1 to n; None for all. Neighbours go to different parts."""
    if shard is None:
        return list(slides)
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise GimpError(f"--shard: found '{shard}'; expected i/n with i from 1 to n, as in 3/8")
    return list(slides[int(index) - 1 :: int(count)])
