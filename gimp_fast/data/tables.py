"""Labels and splits from csv files. Ids are text throughout: zero-padded numbers survive."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gimp_fast.data.cohort import PARTS, Rows
from gimp_fast.errors import Fault, FaultError

LABEL_COLUMNS = ("case_id", "slide_id", "label")
SLIDE_EXTENSIONS = (".svs", ".h5", ".pt", ".tiff", ".tif", ".ndpi", ".mrxs", ".scn", ".bif")
NO_LABEL = ("", "NA", "N/A", "NaN", "nan")


@dataclass(frozen=True)
class LabelRow:
    """One slide of one patient; ``slide_id`` is empty for a patient without slides."""

    case_id: str
    slide_id: str
    label: str
    where: str


def read_csv(path: Path) -> tuple[list[str], Rows]:
    """Header and rows as stripped text; cells that a short row lacks are empty.

    Raises:
        FaultError: missing or unreadable, or a row longer than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [line for line in csv.reader(stream) if any(cell.strip() for cell in line)]
    except FileNotFoundError as error:
        raise FaultError([Fault("missing-file", str(path), "no such file", "a csv")]) from error
    except (OSError, ValueError, csv.Error) as error:
        found = " ".join(str(error).split())
        raise FaultError([Fault("unreadable-file", str(path), found, "a UTF-8 csv")]) from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) > len(header):
            found = f"{len(line)} cells"
            fault = Fault("row-length", f"{path} row {number}", found, f"{len(header)} cells")
            raise FaultError([fault])
        cells = [cell.strip() for cell in line] + [""] * (len(header) - len(line))
        rows.append(dict(zip(header, cells, strict=True)))
    return header, rows


def strip_extension(slide_id: str) -> str:
    """``slide_id`` without a known slide or feature file ending."""
    for extension in SLIDE_EXTENSIONS:
        if slide_id.lower().endswith(extension):
            return slide_id[: -len(extension)]
    return slide_id


def read_labels(path: str | Path) -> tuple[list[LabelRow], list[Fault]]:
    """Read a CLAM dataset csv: case_id, slide_id, label.

    Returns:
        The rows, and every fault in them: duplicate slides, blank ids, patients of two labels.

    Raises:
        FaultError: the file cannot be read or lacks a column.
    """
    path = Path(path)
    header, cells = read_csv(path)
    missing = [name for name in LABEL_COLUMNS if name not in header]
    if missing:
        found = f"no column {', '.join(missing)} among {', '.join(header) or 'none'}"
        raise FaultError([Fault("missing-column", str(path), found, ", ".join(LABEL_COLUMNS))])
    rows, faults, labels, slides = [], [], {}, {}
    for number, row in enumerate(cells, start=2):
        where = f"{path} row {number}"
        case, slide = row["case_id"], strip_extension(row["slide_id"])
        label = "" if row["label"] in NO_LABEL else row["label"]
        if not case:
            faults.append(Fault("missing-id", where, "an empty case_id", "a patient's id"))
            continue
        if slide and slide in slides:
            found = f"slide_id '{slide}' again (first in row {slides[slide]})"
            faults.append(Fault("duplicate-slide", where, found, "each slide once"))
            continue
        slides.setdefault(slide, number)
        if label and labels.setdefault(case, label) != label:
            found = f"label '{label}' for patient '{case}'"
            faults.append(Fault("label-conflict", where, found, f"'{labels[case]}' as before"))
        rows.append(LabelRow(case, slide, label, where))
    if not cells:
        faults.append(Fault("no-rows", str(path), "a table without rows", "one row a slide"))
    return rows, faults


def split_files(paths: Iterable[str | Path]) -> list[Path]:
    """The split csv files of files and folders; CLAM's ``_bool`` and ``_descriptor`` left out."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = [
                file
                for file in sorted(path.glob("*.csv"))
                if not file.stem.endswith(("_bool", "_descriptor"))
            ]
            if not found:
                fault = Fault("missing-file", str(path), "no csv in this folder", "split csv files")
                raise FaultError([fault])
            files += found
        else:
            files.append(path)
    repeated = [name for name, count in Counter(f.stem for f in files).items() if count > 1]
    if repeated:
        fault = Fault("duplicate-split", repeated[0], "two split files of this name", "one")
        raise FaultError([fault])
    return files


def read_split(path: Path, case_of_slide: dict[str, str], known: set[str]) -> dict[str, str]:
    """Read one split: long form (case_id, split) or CLAM's (train, val, test columns).

    Args:
        path: the csv.
        case_of_slide: slide id -> case id, as CLAM splits may list slides.
        known: every patient that the split may name.

    Returns:
        case id -> ``train``, ``val`` or ``test``.

    Raises:
        FaultError: all faults of the file: unknown or repeated ids, a patient in two parts, an
            unknown or empty part, a missing column.
    """
    entries, faults = _split_entries(path)
    parts: dict[str, str] = {}
    seen: dict[str, str] = {}
    unknown: dict[str, list[str]] = {}
    for entry, part in entries:
        slide = strip_extension(entry)
        case = entry if entry in known else case_of_slide.get(slide)
        if part not in PARTS:
            found = f"part '{part}' for '{entry}'"
            faults.append(Fault("unknown-part", str(path), found, ", ".join(PARTS)))
        elif case is None:
            unknown.setdefault(part, []).append(entry)
        elif parts.get(case, part) != part:
            found = f"patient '{case}' in {parts[case]} and in {part}"
            faults.append(Fault("split-leak", str(path), found, "each patient in one part"))
        elif seen.get(slide) == part:
            found = f"'{entry}' twice in {part}"
            faults.append(Fault("duplicate-patient", str(path), found, "each id once"))
        else:
            parts[case] = part
            seen[slide] = part
    for part, ids in unknown.items():
        found = f"{len(ids)} ids that the labels do not have, first '{ids[0]}'"
        faults.append(Fault("unknown-patient", f"{path} [{part}]", found, "ids of the labels"))
    empty = [part for part in PARTS if part not in parts.values()]
    if empty and not faults:
        found = f"no patient in {', '.join(empty)}"
        faults.append(Fault("empty-part", str(path), found, "patients in train, val and test"))
    if faults:
        raise FaultError(faults, str(path))
    return parts


def _split_entries(path: Path) -> tuple[list[tuple[str, str]], list[Fault]]:
    header, rows = read_csv(path)
    if "split" in header and "case_id" in header:
        return [(row["case_id"], row["split"]) for row in rows], []
    missing = [part for part in PARTS if part not in header]
    if missing:
        found = f"columns {', '.join(header) or 'none'}"
        expected = "case_id, split or train, val, test"
        raise FaultError([Fault("missing-column", str(path), found, expected)])
    return [(row[part], part) for part in PARTS for row in rows if row[part] not in NO_LABEL], []


def make_split(labels: dict[str, str], seed: int) -> dict[str, str]:
    """Split patients 60/20/20, stratified by label.

    Args:
        labels: case id -> label.
        seed: the split is a function of the ids, the labels and this.

    Raises:
        FaultError: a class has too few patients to be in every part.
    """
    from sklearn.model_selection import train_test_split

    label, count = min(Counter(labels.values()).items(), key=lambda item: (item[1], item[0]))
    fault = Fault(
        "too-few-patients",
        "a new split",
        f"{count} patients of class '{label}'",
        "enough for train, val and test; or give --splits",
    )
    if count < 3:
        raise FaultError([fault])
    cases = sorted(labels)
    try:
        rest, test = train_test_split(
            cases, test_size=0.2, random_state=seed, stratify=[labels[c] for c in cases]
        )
        train, val = train_test_split(
            rest, test_size=0.25, random_state=seed, stratify=[labels[c] for c in rest]
        )
    except ValueError as error:
        raise FaultError([fault]) from error
    chosen = {"train": train, "val": val, "test": test}
    return {case: part for part in PARTS for case in chosen[part]}
