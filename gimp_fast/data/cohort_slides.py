"""The slides of a cohort, from its table: where their rows are, and whether they are believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gimp_fast.data.bag import FileRows, SlideEntry, StoreRows
from gimp_fast.data.cohort_files import ORDER, STORE, Rows, checksum, load_array
from gimp_fast.data.slides import endings, is_slide
from gimp_fast.data.slides.prepared import PreparedFile
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.errors import FaultError, GimpError
from gimp_fast.files.paths import OUTSIDE, path_inside


def open_store(folder: Path, manifest: dict) -> FeatureStore | None:
    """The packed features of a cohort; None if they stay in their files.

    Raises:
        GimpError: the store is damaged, or that of another cohort.
    """
    facts = manifest["store"]
    if facts is None:
        return None
    store = FeatureStore(folder / STORE)
    if store.index_checksum != facts["index_checksum"]:
        raise GimpError(
            f"{store.path}: found the store of another cohort (index {store.index_checksum}); "
            f"expected {facts['index_checksum']}. Run `prepare` again."
        )
    return store


def slides_by_case(
    folder: Path, table: Rows, manifest: dict, store: FeatureStore | None
) -> dict[str, tuple[SlideEntry, ...]]:
    """case_id -> its slides, by slide id.

    Raises:
        GimpError: a row that names no feature file, or does not fit the store or the patch order.
    """
    slides: dict[str, list[SlideEntry]] = {}
    lengths = [_length(folder, row) for row in table]
    orders = _orders(folder, manifest, lengths if store is None else [])
    for row, length in zip(table, lengths, strict=True):
        slide_id, shape = row["slide_id"], (length, manifest["feature_dim"])
        path = _path(folder, row, packed=store is not None)
        if store is None:
            rows = FileRows(path, shape, next(orders), prepared_file(folder, row, path))
        else:
            store.check_slide(slide_id, shape)
            rows = StoreRows(store, slide_id)
        entry = SlideEntry(slide_id, path, length, rows)
        slides.setdefault(row["case_id"], []).append(entry)
    return {
        case: tuple(sorted(entries, key=lambda entry: entry.slide_id))
        for case, entries in slides.items()
    }


def prepared_file(folder: Path, row: dict[str, str], path: Path) -> PreparedFile:
    """What the table says of a slide's file. Cohorts of earlier versions say less."""
    # A file that lies in the cohort may have come with it, and its time from an archive.
    state = "" if path.is_relative_to(folder) else row.get("file_state", "")
    known = (row["checksum"], row.get("coords_checksum", ""), state)
    return PreparedFile(path, row["slide_id"], *known)


def _length(folder: Path, row: dict[str, str]) -> int:
    length = int(row["num_patches"])
    if length < 1:
        where = f"{folder / 'slides.csv'} (slide '{row['slide_id']}')"
        raise GimpError(f"{where}: found {length} patches; expected 1 or more")
    return length


def _path(folder: Path, row: dict[str, str], packed: bool) -> Path:
    """The feature file of a row: a full path as ``prepare`` writes it, or one in the cohort."""
    text, where = row["path"], f"{folder / 'slides.csv'} (slide '{row['slide_id']}')"
    path = Path(text)
    if not path.is_absolute():
        return path_inside(folder, text, where)
    if ".." in path.parts or "\0" in text:
        raise FaultError.of(OUTSIDE, where, f"{text!r:.100}", "a full path without '..'")
    if not packed and not is_slide(path):
        expected = f"a feature file ({', '.join(endings())}); run `prepare` again"
        expected += ", or name the code of your own format as --plugin"
        raise FaultError.of("unknown-format", where, f"{text!r:.100}", expected)
    return path


def _orders(folder: Path, manifest: dict, lengths: list[int]) -> Iterator[np.ndarray | None]:
    """The order of each slide's rows, from one array for all; None for that of the file."""
    if manifest["patch_order"] == "file" or not lengths:
        yield from [None] * len(lengths)
        return
    order = load_array(folder / ORDER)
    if checksum(order) != manifest["patch_order_checksum"]:
        raise GimpError(f"{folder / ORDER}: does not match its checksum in cohort.json")
    ends = np.cumsum(lengths)
    if order.shape != (ends[-1],) or order.dtype != np.uint32:
        raise GimpError(
            f"{folder / ORDER}: found {order.dtype} {order.shape}; expected uint32 ({ends[-1]},)"
        )
    for length, end in zip(lengths, ends, strict=True):
        rows = order[end - length : end]
        if rows.max() >= length:
            found = f"row {rows.max()} of a slide of {length}"
            raise GimpError(f"{folder / ORDER}: found {found}; expected rows that it has")
        yield rows
