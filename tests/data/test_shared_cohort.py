"""A cohort folder that somebody else made: it opens no file that is not a slide of it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders.prepare_inputs import CASES, Inputs

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.data.cohort_files import SPLIT_COLUMNS, TABLES, fingerprint, read_rows_of
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.errors import FaultError, GimpError


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Inputs:
    made = Inputs(tmp_path_factory.mktemp("shared") / "in")
    assert prepare.main(made.argv()) == 0
    assert prepare.main(made.argv("--pack", "fp32", out=made.folder / "packed")) == 0
    assert prepare.main(made.argv("--order", "row", out=made.folder / "ordered")) == 0
    return made


@pytest.fixture
def cohort(inputs, tmp_path) -> Path:
    return Path(shutil.copytree(inputs.out, tmp_path / "cohort"))


def edit_rows(cohort: Path, **values: str) -> None:
    """Change the first slide in the table, and what tells that it was changed."""
    file = cohort / "slides.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[0] |= values
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, tuple(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    seal(cohort)


def edit_facts(cohort: Path, **facts: object) -> None:
    file = cohort / "cohort.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    for name, value in facts.items():
        if name.startswith("expression_"):
            manifest["expression"][name.removeprefix("expression_")] = value
        else:
            manifest[name] = value
    file.write_text(json.dumps(manifest), encoding="utf-8")


def seal(cohort: Path) -> None:
    manifest = json.loads((cohort / "cohort.json").read_text(encoding="utf-8"))
    tables = {name: read_rows_of(cohort / name, columns) for name, columns in TABLES.items()}
    splits = {
        file.stem: read_rows_of(file, SPLIT_COLUMNS) for file in (cohort / "splits").glob("*.csv")
    }
    edit_facts(cohort, fingerprint=fingerprint(tables, splits, manifest))


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../x.h5", "slides/../../x.h5", "/data/../etc/x.h5", "", "..",
     "a\\..\\..\\b", "/proc/self/mem", "/dev/zero", "/a/._x.h5", "/a/x.txt"],
)  # fmt: skip
def test_paths_that_are_no_slide_of_the_cohort(cohort, path):
    edit_rows(cohort, path=path)
    with pytest.raises(GimpError, match=rf"slides\.csv \(slide '{CASES[0]}-01Z'\)"):
        open_cohort(cohort)


def test_another_file_of_this_computer_is_not_read_as_a_slide(cohort, tmp_path):
    private = tmp_path / "private.h5"
    with h5py.File(private, "w") as h5:
        h5["features"] = np.ones((5, 4), np.float32)
    edit_rows(cohort, path=str(private), file_state="")
    with pytest.raises(FaultError, match="changed-file"):
        open_cohort(cohort).bag(CASES[0]).read()


def test_slides_may_lie_in_the_cohort(inputs, cohort):
    shutil.copytree(inputs.slides, cohort / "features")
    edit_rows(cohort, path=f"features/{CASES[0]}-01Z.h5")
    expected = open_cohort(inputs.out).bag(CASES[0]).read()
    np.testing.assert_array_equal(open_cohort(cohort).bag(CASES[0]).read(), expected)


@pytest.mark.parametrize("patches", ["0", "-5", "x", "1e9", "9" * 5000])
def test_lengths_that_are_none(cohort, patches):
    edit_rows(cohort, num_patches=patches)
    with pytest.raises(GimpError, match=r"slides\.csv|not a valid cohort"):
        open_cohort(cohort)


FACTS = {
    "name": 5,
    "synthetic": "no",
    "classes": ["A", 3],
    "feature_dim": 4.0,
    "encoder": ["x"],
    "mpp": "0.5",
    "patch_size": -1,
    "patch_order": "spiral",
    "store": {"dtype": 1},
    "expression": [],
    "expression_transform": None,
    "expression_gene_sets": {"a": "b"},
    "expression_missing_genes": {"a": 1},
    "split_notes": [],
    "fingerprint": None,
}


@pytest.mark.parametrize("fact", FACTS)
def test_facts_of_another_kind(cohort, fact):
    edit_facts(cohort, **{fact: FACTS[fact]})
    name = fact.replace("expression_", "expression.")
    with pytest.raises(GimpError, match=rf"not a valid cohort \(found '{name}'"):
        open_cohort(cohort)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "\0", '"\ud800"', "{}", "null", "NaN"],
    ids=["deep-list", "deep-object", "long-number", "nul", "surrogate", "empty", "null", "nan"],
)
def test_a_cohort_json_that_is_none(cohort, text):
    (cohort / "cohort.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(GimpError, match=r"cohort\.json"):
        open_cohort(cohort)


def test_what_an_archive_of_another_system_adds(cohort):
    (cohort / "splits" / "._split_0.csv").write_bytes(b"\0\5\x16\7")
    assert open_cohort(cohort).split_names == ("split_0",)


def test_a_patch_order_beyond_the_rows(inputs, tmp_path):
    from gimp_fast.data.cohort_files import checksum

    cohort = Path(shutil.copytree(inputs.folder / "ordered", tmp_path / "cohort"))
    order = np.load(cohort / "patch_order.npy")
    for changed in (order[:-1], order.astype(np.int64), np.full_like(order, 999)):
        np.save(cohort / "patch_order.npy", changed)
        edit_facts(cohort, patch_order_checksum=checksum(changed))
        with pytest.raises(GimpError, match=r"patch_order\.npy"):
            open_cohort(cohort)


def test_a_store_without_a_slide_of_the_cohort(inputs, tmp_path):
    cohort = Path(shutil.copytree(inputs.folder / "packed", tmp_path / "cohort"))
    edit_rows(cohort, slide_id="another")
    with pytest.raises(GimpError, match="no slide 'another'"):
        open_cohort(cohort)


def rewrite_header(file: Path, change) -> None:
    """Another header of the same length, with a right checksum."""
    import xxhash

    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = change(header)
    text = (text if isinstance(text, str) else json.dumps(header)).encode().ljust(length)
    content[8 : 8 + length] = text[:length]
    digest = xxhash.xxh3_64_intdigest(bytes(content[: 8 + length]))
    content[8 + length : 16 + length] = digest.to_bytes(8, "little")
    file.write_bytes(content)


SLIDE = f"features/{CASES[0]}-01Z"
HEADERS = {
    "deep": lambda h: "[" * 4000,
    "no-blocks": lambda h: h["__metadata__"].update(block_rows="0"),
    "endless-dim": lambda h: h["__metadata__"].update(feature_dim="9" * 300),
    "unknown-type": lambda h: h["__metadata__"].update(dtype="int4"),
    "huge": lambda h: h["block_checksums"].update(shape=[10**13]),
    "negative": lambda h: h[SLIDE].update(shape=[-5, -4]),
    "backwards": lambda h: h[SLIDE].update(data_offsets=[10**6, 0]),
    "before": lambda h: h[SLIDE].update(data_offsets=[-80, 0]),
    "other-dim": lambda h: h[SLIDE].update(shape=[4, 5]),
    "text": lambda h: h.update({SLIDE: "x"}),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_store_with_a_header_that_does_not_fit(inputs, tmp_path, case):
    file = Path(shutil.copy(inputs.folder / "packed" / "store.safetensors", tmp_path))
    rewrite_header(file, lambda header: None)
    FeatureStore(file)
    rewrite_header(file, HEADERS[case])
    with pytest.raises(FaultError, match="unreadable-file"):
        FeatureStore(file)
