"""Damaged expression files: a fault, or what was written; never a traceback, never other genes.

Compressed text carries a checksum, so a damaged ``.gz`` gives exactly what was written or a fault.
Plain text, Parquet and HDF5 do not: there a flipped bit may be another number, but only as many
values as were written, and finite ones. ``GIMP_FAST_FUZZ`` sets the number of examples.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders.rna_files import (
    SHEET,
    star,
    table,
    write_h5ad,
    write_text,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gimp_fast.data.rna.expression import open_expression
from gimp_fast.errors import FaultError
from gimp_fast.files import isolated

EXAMPLES = int(os.environ.get("GIMP_FAST_FUZZ", "30"))


fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


GENES = ("ENSG00000000003.15", "ENSG00000000005.6", "ENSG00000000419.13", "ENSG00000000457.14")


SAMPLES = ("TCGA-00-0001-01A", "TCGA-00-0002-01A", "TCGA-00-0003-01A")


VALUES = np.array(
    [[1.5, 2.25, 0.125, 10], [3, 4.5, 12.5, 0], [0.75, 31, 2, 6.5]], np.float32
)  # samples × genes


def gdc(file: Path, end: str, content: Callable[[np.ndarray], str]) -> Path:
    """A download whose first file is damaged later; returns it."""
    rows = [f"{SHEET}\n"]
    for number, (sample, values) in enumerate(zip(SAMPLES, VALUES, strict=True)):
        name = f"f{number}{end}"
        write_text(file.parent / name, content(values))
        rows.append(f"u\t{name}\tx\t{sample[:12]}\t{sample}\tPrimary Tumor\n")
    write_text(file.parent / "gdc_sample_sheet.tsv", "".join(rows))
    return file.parent / f"f0{end}"


def two_columns(values) -> str:
    lines = [f"{gene}\t{value:g}" for gene, value in zip(GENES, values, strict=True)]
    return "\n".join([*lines, "__no_feature\t9"]) + "\n"


def plain(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_text(folder / name, content)
        return folder / name

    return write


def mcat() -> str:
    columns = ["case_id", "slide_id", "site", *(f"{gene}_rnaseq" for gene in GENES)]
    rows = [",".join(columns)]
    for sample, values in zip(SAMPLES, VALUES, strict=True):
        cells = [sample[:12], f"{sample[:12]}-01Z-00-DX1.svs", "00", *(f"{v:g}" for v in values)]
        rows.append(",".join(cells))
    return "\n".join(rows) + "\n"


def cbioportal() -> str:
    text = table("Hugo_Symbol", GENES, SAMPLES, VALUES.T, "\t").splitlines()
    cells = [line.split("\t", 1) for line in text]
    entrez = ["Entrez_Gene_Id", *map(str, range(len(GENES)))]
    return "\n".join(f"{a}\t{e}\t{b}" for (a, b), e in zip(cells, entrez, strict=True)) + "\n"


def parquet(folder: Path, options: dict) -> Path:
    frame = pd.DataFrame(VALUES, list(SAMPLES), list(GENES))
    frame.to_parquet(folder / "t.parquet", row_group_size=2, **options)
    return folder / "t.parquet"


def h5ad(folder: Path, kind: str) -> Path:
    import scipy.sparse

    columns = {"obs": {"case_id": [s[:12] for s in SAMPLES]}, "var": {"gene_name": list("ABCD")}}
    x = VALUES if kind == "dense" else getattr(scipy.sparse, f"{kind}_matrix")(VALUES)
    compression = "gzip" if kind == "csc" else None
    return write_h5ad(folder / "t.h5ad", x, SAMPLES, GENES, compression=compression, **columns)


STAR_END, OLD_END = ".rna_seq.augmented_star_gene_counts.tsv", ".FPKM.txt"


BY_GENES = table("Ensembl_ID", GENES, SAMPLES, VALUES.T, "\t")


BY_SAMPLES = table("case_id", SAMPLES, GENES, VALUES, ",")


FORMATS: dict[str, Callable[[Path], Path]] = {
    "star": lambda folder: gdc(folder / "x", STAR_END, partial(star, GENES)),
    "star-gz": lambda folder: gdc(folder / "x", f"{STAR_END}.gz", partial(star, GENES)),
    "two-columns": lambda folder: gdc(folder / "x", OLD_END, two_columns),
    "two-columns-gz": lambda folder: gdc(folder / "x", f"{OLD_END}.gz", two_columns),
    "matrix-tsv": plain("t.tsv", BY_GENES),
    "matrix-tsv-gz": plain("t.tsv.gz", BY_GENES),
    "matrix-csv": plain("t.csv", BY_GENES.replace("\t", ",")),
    "samples-csv": plain("t.csv", BY_SAMPLES),
    "samples-csv-gz": plain("t.csv.gz", BY_SAMPLES),
    "cbioportal": plain("t.txt", cbioportal()),
    "mcat": plain("t.csv", mcat()),
    "parquet": lambda folder: parquet(folder, {}),
    "parquet-checksums": lambda folder: parquet(
        folder, {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    ),
    "h5ad-dense": lambda folder: h5ad(folder, "dense"),
    "h5ad-csr": lambda folder: h5ad(folder, "csr"),
    "h5ad-csc-gz": lambda folder: h5ad(folder, "csc"),
}


GDC = ("star", "star-gz", "two-columns", "two-columns-gz")


class Case:
    """One format's pristine files, and reading them after damage."""

    def __init__(self, folder: Path, name: str):
        self.name, self.file = name, FORMATS[name](folder)
        self.path = folder if name in GDC else self.file
        self.pristine = self.file.read_bytes()
        self.samples = [s[:12] for s in SAMPLES] if name == "mcat" else list(SAMPLES)

    def read(self, content: bytes):
        """(sample ids, Expression) of the file with this content."""
        self.file.write_bytes(content)
        source = open_expression(self.path, workers=1)
        return [s.barcode for s in source.samples], source.read(source.samples, "as given")

    def try_read(self, content: bytes):
        """The same, or None for a fault that names the file or its folder."""
        try:
            return self.read(content)
        except FaultError as error:
            unnamed = [f for f in error.faults if str(self.file.parent) not in f.where]
        assert not unnamed
        return None


@pytest.fixture(autouse=True)
def _no_patience(request, monkeypatch) -> None:
    """HDF5 loops forever over some damaged files; the default is a minute."""
    if request.function is not test_undamaged:  # it waits for imports, on a busy machine for long
        monkeypatch.setattr(isolated, "SECONDS", 5.0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Callable[[str], Case]:
    made: dict[str, Case] = {}

    def make(name: str) -> Case:
        if name not in made:
            made[name] = Case(tmp_path_factory.mktemp(name), name)
        return made[name]

    return make


def check_sound(ids: list[str], expression) -> None:
    """Whatever was read has the shape it says, and finite float32."""
    assert expression.values.dtype == np.float32
    assert expression.values.shape == (len(ids), len(expression.genes))
    assert np.isfinite(expression.values).all()
    gene_ids = [row["gene_id"] for row in expression.genes]
    assert all(gene_ids)
    assert len(set(gene_ids)) == len(gene_ids)


def check_exact(case: Case, ids: list[str], expression) -> None:
    assert ids == case.samples
    assert [row["gene_id"] for row in expression.genes] == list(GENES)
    np.testing.assert_array_equal(expression.values, VALUES)


@pytest.mark.parametrize("name", FORMATS)
def test_undamaged(cases, name):
    case = cases(name)
    check_exact(case, *case.read(case.pristine))


@pytest.mark.parametrize("name", FORMATS)
@fuzzed
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated(cases, name, share):
    case = cases(name)
    size = int(share * len(case.pristine))
    result = case.try_read(case.pristine[:size])
    if result is None:
        return
    ids, expression = result
    check_sound(ids, expression)
    # Text that ends where a line ends is a shorter table; it must be a prefix of the whole.
    assert case.file.suffix in (".tsv", ".csv", ".txt")
    assert case.pristine[:size].endswith(b"\n")
    if name in GDC:  # only rows that are no genes may lack
        check_exact(case, ids, expression)
    kept = expression.values
    np.testing.assert_array_equal(kept, VALUES[: kept.shape[0], : kept.shape[1]])


@pytest.mark.parametrize("name", FORMATS)
@fuzzed
@given(
    places=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=3
    )
)
def test_flipped_bits(cases, name, places):
    case = cases(name)
    damaged = bytearray(case.pristine)
    for share, bit in places:
        damaged[int(share * len(damaged))] ^= 1 << bit
    result = case.try_read(bytes(damaged))
    if result is None:
        return
    ids, expression = result
    if case.file.suffix == ".gz":
        check_exact(case, ids, expression)
        return
    check_sound(ids, expression)
    if name.startswith(("parquet", "h5ad")):
        # compressed pages and dictionaries stand for many values
        assert expression.values.shape == VALUES.shape
        return
    if separators(damaged) < separators(case.pristine) or damaged.startswith(b"#"):
        return  # a header as R writes it moves all names by one; one that became a comment is gone
    assert count_changes(case, ids, expression) <= len(places)


def separators(content: bytes) -> int:
    """How many there are in the first line."""
    return sum(bytes(content).split(b"\n")[0].count(mark) for mark in (b",", b"\t", b";"))


def count_changes(case: Case, ids: list[str], expression) -> int:
    """Names that are not there any more, and values that differ under those that are."""
    if case.name == "mcat" and "slide_id" not in expression.provenance["ignored_columns"]:
        return 0  # its id column has lost its name, and the slides are the ids
    gene_ids = [row["gene_id"] for row in expression.genes]
    samples = [n for n, sample in enumerate(case.samples) if sample in ids]
    genes = [n for n, gene in enumerate(GENES) if gene in gene_ids]
    rows = [ids.index(case.samples[n]) for n in samples]
    columns = [gene_ids.index(GENES[n]) for n in genes]
    differs = expression.values[np.ix_(rows, columns)] != VALUES[np.ix_(samples, genes)]
    lost = len(SAMPLES) - len(samples) + len(GENES) - len(genes)
    return lost + int(differs.sum())


@pytest.mark.parametrize("name", FORMATS)
@fuzzed
@given(content=st.binary(max_size=300), start=st.integers(0, 40))
def test_any_bytes(cases, name, content, start):
    case = cases(name)
    result = case.try_read(case.pristine[:start] + content)
    if result is not None:
        check_sound(*result)


TEXTS = tuple(name for name in FORMATS if not name.startswith(("parquet", "h5ad")))


ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@fuzzed
@given(place=st.floats(0, 1), letter=st.sampled_from(["", "é", "ß", "\0", "\r", "\x1a"]))
def test_other_encodings(cases, name, encoding, place, letter):
    case = cases(name)
    packed = case.file.suffix == ".gz"
    text = (gzip.decompress(case.pristine) if packed else case.pristine).decode()
    at = int(place * len(text))
    content = (text[:at] + letter + text[at:]).encode(encoding)
    result = case.try_read(gzip.compress(content) if packed else content)
    if result is None:
        return
    ids, expression = result
    check_sound(ids, expression)
    assert encoding not in ("utf-16-le", "utf-16-be")  # nothing says how to read them
    assert count_changes(case, ids, expression) <= len(letter)


DTYPES = ("<f2", "<f4", "<f8", ">f4", "i1", "<u8", ">i4", "?", "<c8", "S3", "<f4")


@fuzzed
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from([(3, 4), (4, 3), (3, 5), (12,), (3, 4, 1), (0, 4), (), (3, 0)]),
    chunked=st.booleans(),
)
def test_any_h5ad_matrix(cases, dtype, shape, chunked):
    import h5py

    case = cases("h5ad-dense")
    case.file.write_bytes(case.pristine)
    values = np.resize(np.arange(12), shape).astype(dtype)
    with h5py.File(case.file, "r+") as h5:
        attributes = dict(h5["X"].attrs)
        del h5["X"]
        chunks = True if chunked and shape and values.size else None
        h5.create_dataset("X", data=values, chunks=chunks).attrs.update(attributes)
    result = case.try_read(case.file.read_bytes())
    good = shape == (3, 4) and dtype in ("<f2", "<f4", "<f8", "i1", "<u8")
    assert (result is not None) == good
    if result is not None:
        np.testing.assert_array_equal(result[1].values, np.arange(12).reshape(3, 4))


def damage(content: bytes, share: float, bit: int, cut: bool) -> bytes:
    at = int(share * len(content))
    if cut:
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


DAMAGE = {
    "share": st.floats(0, 1, exclude_max=True),
    "bit": st.integers(0, 7),
    "cut": st.booleans(),
}


@fuzzed
@given(**DAMAGE)
def test_sample_sheets(cases, share, bit, cut):
    case = cases("star")
    case.file.write_bytes(case.pristine)
    sheet = case.path / "gdc_sample_sheet.tsv"
    pristine = sheet.read_bytes()
    sheet.write_bytes(damage(pristine, share, bit, cut))
    try:
        source = open_expression(case.path)
        expression = source.read(source.samples, "as given")
    except FaultError:
        return
    finally:
        sheet.write_bytes(pristine)
    assert 1 <= len(source.samples) <= len(SAMPLES)
    for sample, values in zip(source.samples, expression.values, strict=True):
        number = int(sample.path.name[1])
        np.testing.assert_array_equal(values, VALUES[number])
        assert sample.case_id
        assert sample.barcode
    # a flip changes one name; a sheet that is cut at a line end lists fewer samples
    known = [s.barcode in SAMPLES for s in source.samples]
    assert sum(known) >= len(known) - 1
