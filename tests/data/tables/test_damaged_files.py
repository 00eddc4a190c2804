"""Damaged tables: a FaultError, or ids that were written. Never another exception, or a hang.

``GIMP_FAST_FUZZ`` is the number of examples of each kind of damage and layout.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gimp_fast.data.names import PARTS, patient_of
from gimp_fast.data.tables.labels import read_labels, strip_extension
from gimp_fast.data.tables.new_splits import sites_from_table
from gimp_fast.data.tables.splits import read_splits
from gimp_fast.errors import Fault, FaultError

FUZZ = settings(
    max_examples=int(os.environ.get("GIMP_FAST_FUZZ", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CASES = [f"TCGA-{n:02d}-42{n:02d}" for n in range(12)]
LABELS = {case: "LUÄD" if n % 2 else "LUSC" for n, case in enumerate(CASES)}
SLIDES = {f"{case}-01Z-00-DX{k}.ab": case for case in CASES for k in "12"}
FOLDS = {"train": CASES[:6], "val": CASES[6:9], "test": CASES[9:]}


def lines(header: str, *rows: str) -> str:
    return "\n".join([header, *rows]) + "\n"


def columns(lists: dict[str, list[str]]) -> str:
    length = max(map(len, lists.values()))
    padded = [ids + [""] * (length - len(ids)) for ids in lists.values()]
    rows = (",".join([str(n), *row]) for n, row in enumerate(zip(*padded, strict=True)))
    return lines(",".join(["", *lists]), *rows)


CLAM = lines("case_id,slide_id,label", *(f"{c},{s}.svs,{LABELS[c]}" for s, c in SLIDES.items()))
QUOTED = '"' + CLAM.strip().replace(",", '";"').replace("\n", '"\r\n"') + '"\r\n'
CLINI = lines("PATIENT,AGE,label", *(f"{case},50,{label}" for case, label in LABELS.items()))
SLIDE_TABLE = lines("PATIENT,FILENAME", *(f"{case},a/{slide}.h5" for slide, case in SLIDES.items()))
TRANSMIL = columns(
    {
        name: values
        for part, cases in FOLDS.items()
        for name, values in {
            part: [slide for slide, case in SLIDES.items() if case in cases],
            f"{part}_label": ["0", "1.0"] * len(cases),
        }.items()
    }
)
TWO_PARTS = {"train": CASES[:9], "val": CASES[9:]}
STAMP = {"train_patients": CASES[:9], "test_patients": CASES[9:]}

LABEL_FILES = {
    "clam": {"labels.csv": CLAM},
    "quoted": {"labels.csv": QUOTED},
    "stamp-clini": {"labels.csv": CLINI, "slides.csv": SLIDE_TABLE},
    "stamp-slides": {"slides.csv": SLIDE_TABLE, "labels.csv": CLINI},
    "transmil": {"labels.csv": TRANSMIL},
}
SPLIT_FILES = {
    "long": lines("case_id,split", *(f"{c},{p}" for p, cases in FOLDS.items() for c in cases)),
    "clam": columns(FOLDS),
    "survpath": columns(TWO_PARTS),
    "transmil": TRANSMIL,
    "stamp": json.dumps({"splits": [STAMP, STAMP]}, indent=1),
}


def truncated(draw: st.DataObject, content: bytes) -> bytes:
    return content[: draw.draw(st.integers(0, len(content)))]


def flipped(draw: st.DataObject, content: bytes) -> bytes:
    place = draw.draw(st.integers(0, len(content) - 1))
    bits = draw.draw(st.integers(1, 255))
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


def recoded(draw: st.DataObject, content: bytes) -> bytes:
    names = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp437"]
    return content.decode().encode(draw.draw(st.sampled_from(names)), errors="replace")


def with_noise(draw: st.DataObject, content: bytes) -> bytes:
    """A run of NUL or random bytes where a disk failed."""
    place = draw.draw(st.integers(0, len(content) - 1))
    run = draw.draw(st.one_of(st.integers(1, 99).map(bytes), st.binary(min_size=1, max_size=9)))
    return content[:place] + run + content[place + len(run) :]


def ragged(draw: st.DataObject, content: bytes) -> bytes:
    """Rows that lost a cell, or got an empty one."""
    delimiter = b";" if b";" in content else b","
    rows = content.split(b"\n")
    for number in draw.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4)):
        cells = rows[number].split(delimiter)
        place = draw.draw(st.integers(0, len(cells) - 1))
        if draw.draw(st.booleans()):
            del cells[place]
        else:
            cells.insert(place, b"")
        rows[number] = delimiter.join(cells)
    return b"\n".join(rows)


DAMAGES = [truncated, flipped, recoded, with_noise, ragged]


def cells_of(text: str) -> set[str]:
    """Everything between separators, as it stands and as an id is made of it."""
    cells = {cell.strip() for cell in re.split(r'[,;\t\r\n"]', text)}
    cells |= {re.split(r"[/\\]", cell)[-1] for cell in cells}
    cells |= {strip_extension(cell) for cell in cells}
    return cells | {patient_of(cell) for cell in cells}


def check_ids(ids: set[str], before: str, after: bytes, damage: Callable) -> None:
    """All but the few ids at the damaged place are of the whole file, and those stand there."""
    strange = ids - cells_of(before)
    text = after.decode("utf-8-sig", errors="replace").replace('"', "")
    assert all(id.replace('"', "") in text for id in strange)
    assert len(strange) <= (0 if damage in (ragged, recoded) else 4)


def faults_of(read: Callable, *args, **options) -> tuple[object, tuple[Fault, ...]]:
    """The result or None, and the faults of a FaultError."""
    try:
        return read(*args, **options), ()
    except FaultError as error:
        return None, error.faults


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("layout", LABEL_FILES)
@FUZZ
@given(data=st.data())
def test_labels(tmp_path, layout, damage, data):
    (name, text), *others = LABEL_FILES[layout].items()
    after = damage(data, text.encode())
    (tmp_path / name).write_bytes(after)
    for other, content in others:
        (tmp_path / other).write_text(content, encoding="utf-8")
    slides = tmp_path / "slides.csv" if others else None
    read = read_labels(tmp_path / "labels.csv", slide_table=slides)
    rows = read.value
    assert rows or read.faults
    assert all(str(tmp_path) in place.where for place in (*rows, *read.faults))
    assert all(row.case_id for row in rows)
    ids = {row.case_id for row in rows} | {row.slide_id for row in rows if row.slide_id}
    # A changed byte may spoil a row and its neighbour, but may not swallow rows unseen.
    lost = (set(SLIDES) | set(CASES)) - ids
    assert damage is not flipped or read.faults or len(lost) <= 4
    ids -= {cell for _, content in others for cell in cells_of(content)}
    check_ids(ids, text, after, damage)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("layout", SPLIT_FILES)
@FUZZ
@given(data=st.data())
def test_splits(tmp_path, layout, damage, data):
    file = tmp_path / ("splits.json" if layout == "stamp" else "splits.csv")
    file.write_bytes(damage(data, SPLIT_FILES[layout].encode()))
    splits, faults = faults_of(read_splits, file, SLIDES, set(CASES), LABELS, seed=0)
    assert splits or faults
    assert all(str(file) in fault.where for fault in faults)
    for split in (splits or {}).values():
        assert set(split.parts) <= set(CASES)
        assert damage is not flipped or len(split.parts) >= len(CASES) - 2
        assert set(split.parts.values()) == set(PARTS)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@FUZZ
@given(data=st.data())
def test_sites(tmp_path, damage, data):
    file = tmp_path / "labels.csv"
    file.write_bytes(damage(data, CLINI.encode()))
    sites, _ = faults_of(sites_from_table, file, "AGE")
    check_ids(set(sites or ()), CLINI, file.read_bytes(), damage)


@pytest.mark.parametrize("header", [b"", b"case_id,slide_id,label\n", b",train,val,test\n", b"[{"])
@FUZZ
@given(content=st.binary(max_size=200))
def test_any_bytes(tmp_path, header, content):
    for name in ("any.csv", "any.json"):
        file = tmp_path / name
        file.write_bytes(header + content)
        labels = read_labels(file)
        assert labels.value or labels.faults
        splits, faults = faults_of(read_splits, file, SLIDES, set(CASES), LABELS, seed=0)
        assert faults
        assert not splits
