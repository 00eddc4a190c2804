"""Splits of patients into train, val and test, read from other projects' files.

``read_splits`` knows these layouts; an entry is the id of a patient or of one of their slides.

- long: ``case_id,split``, one row per patient.
- CLAM: columns ``train,val,test`` of ids. TransMIL: the same, with columns of labels.
- MCAT, SurvPath: columns ``train,val``; these projects report results on ``val``.
- STAMP: ``splits.json`` with ``{"splits": [{"train_patients": […], "test_patients": […]}, …]}``.

Parts may have any name in ``PART_NAMES``, in upper or lower case.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gimp_fast.data.names import PARTS, PATIENT_COLUMNS
from gimp_fast.data.tables.labels import strip_extension
from gimp_fast.data.tables.new_splits import check_split
from gimp_fast.errors import FaultError, Faults, GimpError
from gimp_fast.files.json_file import parse_json
from gimp_fast.files.numbers import MISSING
from gimp_fast.files.paths import visible
from gimp_fast.files.table import Table, open_table
from gimp_fast.files.text import read_text

PART_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
VAL_SHARE = 0.25  # of the training patients, if a file has no validation part
STAMP_LAYOUT = '{"splits": [{"train_patients": [...], "test_patients": [...]}, ...]}'
_INDEX = re.compile(r"(Unnamed: \d+|index)?")  # names that pandas gives to an index


@dataclass(frozen=True)
class ReadSplit:
    """A split as this project uses it: case id -> ``train``, ``val`` or ``test``."""

    parts: dict[str, str]
    note: str = ""  # how it was made from the parts of the file, if it was changed


@dataclass(frozen=True)
class _Written:
    """A split as in its file: entries (id, part, place), and the parts that it declares."""

    where: str
    declared: tuple[str, ...]
    entries: list[tuple[str, str, str]]


def split_files(paths: Iterable[str | Path]) -> list[Path]:
    """The split files, with those of folders: csv, tsv, and STAMP's ``splits.json``.

    CLAM's ``_bool`` and ``_descriptor`` tables are left out.

    Raises:
        FaultError: a folder without split files, or two files with splits of the same name.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        inside = visible(path.iterdir()) if path.is_dir() else []
        found = [file for file in inside if _is_split_file(file)]
        if path.is_dir() and not found:
            found = "no csv in this folder"
            raise FaultError.of("missing-file", path, found, "csv files of splits")
        files += found or [path]
    # The splits of a json file are called <stem>_0, <stem>_1, …
    numbered = {file.stem for file in files if file.suffix.lower() == ".json"}
    names = Counter(file.stem for file in files)
    for file in files:
        head, _, number = file.stem.rpartition("_")
        if names[file.stem] > 1 or (head in numbered and number.isdigit()):
            found = f"two split files of this name, '{file.stem}'"
            raise FaultError.of("duplicate-split", str(file), found, "one")
    return files


def _is_split_file(file: Path) -> bool:
    if file.suffix.lower() not in (".csv", ".tsv"):
        return file.name == "splits.json"
    return not file.stem.endswith(("_bool", "_descriptor"))


def read_splits(
    path: str | Path,
    case_of_slide: dict[str, str],
    known: set[str],
    labels: dict[str, str],
    *,
    seed: int,
) -> dict[str, ReadSplit]:
    """The splits of one file.

    If a layout has no validation part, its second part is the test part, and a quarter of the
    training patients, drawn by label, becomes the validation part; ``note`` says so.

    Args:
        path: csv, or STAMP's json.
        case_of_slide: slide id -> case id, as a split may list slides.
        known: every patient that a split may name.
        labels: case id -> label of labelled patients.
        seed: of the draw, which depends only on ids, labels and seed.

    Returns:
        Name -> split; the name is that of the file, with a number for each split of a json file.

    Raises:
        FaultError: all faults of the file: unknown or repeated ids, a patient in two parts, an
            unknown or empty part, a missing column.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        written = {f"{path.stem}_{n}": split for n, split in enumerate(_read_json(path))}
    else:
        written = {path.stem: _read_table(open_table(path), known)}
    faults = Faults()
    splits: dict[str, ReadSplit] = {}
    for name, split in written.items():
        try:
            parts = _resolve(split, case_of_slide, known)
            splits[name] = _complete(parts, split, labels, seed)
            check_split(splits[name].parts, where=split.where)
        except FaultError as error:
            faults.items += error.faults
    faults.stop(path)
    return splits


def _read_table(table: Table, known: set[str]) -> _Written:
    where = str(table.path)
    case = next((name for name in PATIENT_COLUMNS if name in table.header), None)
    if case and "split" in table.header:
        rows = [(id, part, place) for place, id, part in table.rows(case, "split")]
        entries = [(id, PART_NAMES.get(part.lower(), part), place) for id, part, place in rows]
        # Without a part of another name, the layout has no validation part.
        has_val = any(part not in ("train", "test") for _, part, _ in entries)
        return _Written(where, PARTS if has_val else ("train", "test"), entries)
    columns = _part_columns(table)
    entries = [
        (id, part, f"{place} [{name}]")
        for part, name in columns.items()
        for place, id in table.rows(name)
        if id in known or id not in MISSING  # the padding of shorter columns
    ]
    return _Written(where, tuple(columns), entries)


def _part_columns(table: Table) -> dict[str, str]:
    """Part -> column, in the order of ``PARTS``; FaultError if that is ambiguous."""
    columns: dict[str, str] = {}
    faults = Faults()
    for name in table.header:
        part = PART_NAMES.get(name.lower())
        if part in columns:
            found = f"columns '{columns[part]}' and '{name}'"
            faults.add("duplicate-column", table.path, found, f"one column for {part}")
        elif part:
            columns[part] = name
    faults.stop(table.path)
    if "train" not in columns or len(columns) < 2:
        expected = "case_id, split; or train, val, test; or train, val"
        found = f"columns {table.describe_header()}"
        faults.add("missing-column", table.path, found, expected)
    elif len(columns) < 3:
        # A third part of an unknown name would be lost.
        expected_names = {name + end for name in columns.values() for end in ("", "_label")}
        start = 1 if _INDEX.fullmatch(table.header[0]) else 0
        others = [name for name in table.header[start:] if name not in expected_names]
        if others:
            found = f"column '{others[0]}' beside {', '.join(columns.values())}"
            faults.add("unknown-part", table.path, found, "parts only: " + ", ".join(PART_NAMES))
    faults.stop(table.path)
    return {part: columns[part] for part in PARTS if part in columns}


def _read_json(path: Path) -> list[_Written]:
    text = read_text(path, "a json file")
    try:
        content = parse_json(text, path, pairs=_without_repeats)
    except GimpError as error:
        found = str(error).removeprefix(f"{path}: ")
        raise FaultError.of("unreadable-file", path, found, STAMP_LAYOUT) from error
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, list) or not splits:
        raise FaultError.of("split-layout", str(path), "no list 'splits'", STAMP_LAYOUT)
    faults, written = Faults(), []
    keys = {"train_patients": "train", "test_patients": "test"}
    for n, split in enumerate(splits):
        where = f"{path} splits[{n}]"
        if not isinstance(split, dict) or set(split) != set(keys):
            found = f"keys {', '.join(split)}" if isinstance(split, dict) else "no object"
            faults.add("split-layout", where, found, STAMP_LAYOUT)
        elif not all(map(_is_list_of_text, split.values())):
            faults.add("split-layout", where, "something else than lists of text", STAMP_LAYOUT)
        else:
            entries = [
                (id.strip(), part, f"{where}.{key}[{row}]")
                for key, part in keys.items()
                for row, id in enumerate(split[key])
            ]
            written.append(_Written(where, ("train", "test"), entries))
    faults.stop(path)
    return written


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; ValueError for repeated keys, of which json would keep only the last."""
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"key '{repeated[0]}' twice in one object")
    return dict(pairs)


def _resolve(split: _Written, case_of_slide: dict[str, str], known: set[str]) -> dict[str, str]:
    """Case id -> part; FaultError with all faults of the entries."""
    faults = Faults()
    parts: dict[str, str] = {}
    seen: dict[str, str] = {}
    unknown: dict[str, list[str]] = defaultdict(list)
    strange: dict[str, list[str]] = defaultdict(list)
    for entry, part, where in split.entries:
        slide = strip_extension(entry)
        owner = case_of_slide.get(slide)
        case = entry if entry in known else owner
        if part not in PARTS:
            strange[part].append(f"'{entry}' in {where}")
        elif case is None:
            unknown[part].append(f"'{entry}' in {where}")
        elif owner not in (None, case):
            found = f"'{entry}', a patient and a slide of patient '{owner}'"
            faults.add("ambiguous-id", where, found, "an id of one of them")
        elif parts.get(case, part) != part:
            found = f"patient '{case}' in {parts[case]} and in {part}"
            faults.add("split-leak", where, found, "each patient in one part")
        elif seen.get(slide) == part:
            faults.add("duplicate-patient", where, f"'{entry}' twice in {part}", "each id once")
        else:
            parts[case] = part
            seen[slide] = part
    for part, ids in strange.items():
        found = f"part '{part}' for {len(ids)} ids, first {ids[0]}"
        faults.add("unknown-part", split.where, found, ", ".join(PART_NAMES))
    for part, ids in unknown.items():
        found = f"{len(ids)} ids that the labels do not have, first {ids[0]}"
        faults.add("unknown-patient", f"{split.where} [{part}]", found, "ids of the labels")
    empty = [part for part in split.declared if part not in parts.values()]
    if empty and not faults.items:
        found, expected = (f"patients in {', '.join(names)}" for names in (empty, split.declared))
        faults.add("empty-part", split.where, f"no {found}", expected)
    faults.stop(split.where)
    return parts


def _complete(
    parts: dict[str, str], split: _Written, labels: dict[str, str], seed: int
) -> ReadSplit:
    """The split with a validation part, drawn from the training patients if it has none."""
    if split.declared == PARTS:
        return ReadSplit(parts)
    second = split.declared[1]
    by_class: dict[str, list[str]] = defaultdict(list)
    for case, part in sorted(parts.items()):
        if part == "train" and case in labels:
            by_class[labels[case]].append(case)
    generator = np.random.default_rng(seed)
    drawn: set[str] = set()
    for _, cases in sorted(by_class.items()):
        # A class with a single patient stays in train; any other is in both parts.
        count = max(1, round(VAL_SHARE * len(cases))) if len(cases) > 1 else 0
        drawn.update(cases[i] for i in generator.permutation(len(cases))[:count])
    if not drawn:
        found, expected = "fewer than two training patients of every class", "two or more"
        raise FaultError.of("too-few-patients", split.where, found, expected)
    chosen = {
        case: "val" if case in drawn else "test" if part == second else "train"
        for case, part in parts.items()
    }
    total = sum(map(len, by_class.values()))
    note = f"validation: {len(drawn)} of {total} training patients, drawn by label with seed {seed}"
    if second == "val":
        note = f"test: the file's validation part, as it has no test part; {note}"
    single = [label for label, cases in sorted(by_class.items()) if len(cases) == 1]
    if single:
        note += f"; no patient of {', '.join(single)} for validation, as train has one"
    return ReadSplit(chosen, note)
