"""AnnData files read back what was written; damaged ones are a fault, not a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders.faults import faults_of
from builders.rna_files import (
    write_h5ad,
)

from gimp_fast.data.rna.expression import open_expression
from gimp_fast.data.rna.samples import choose_samples
from gimp_fast.data.rna.source import ExpressionSource
from gimp_fast.files import isolated

ENSEMBL = ("ENSG00000000003.15", "ENSG00000000005.6", "ENSG00000000419.13")
CASES = ("TCGA-00-0001", "TCGA-00-0002")
BARCODES = tuple(f"{case}-01A" for case in CASES)
VALUES = np.array([[1.5, -2.0, 0.25], [3.0, 4.5, -0.125]], np.float32)  # samples × genes


def read(source: ExpressionSource, transform: str | None = None):
    chosen, _ = choose_samples(source.samples)
    return list(chosen), source.read(chosen.values(), transform)


def ids(expression) -> list[str]:
    return [row["gene_id"] for row in expression.genes]


def anndata_file(file: Path, obs=None, var=None, x=VALUES, obs_names=BARCODES, **layers) -> Path:
    return write_h5ad(file, x, obs_names, ENSEMBL, obs=obs, var=var, layers=layers)


def sparse(kind: str, values=VALUES):
    import scipy.sparse

    return getattr(scipy.sparse, f"{kind}_matrix")(values)


@pytest.mark.parametrize("storage", ["dense", "float64", "int32", "csr", "csc"])
def test_h5ad(tmp_path, storage):
    dense = np.array([[1, 0, 7], [0, 0, 3]], np.float32)
    x = {"dense": dense, "float64": dense.astype("f8"), "int32": dense.astype("i4")}.get(storage)
    x = sparse(storage, dense) if x is None else x
    source = open_expression(anndata_file(tmp_path / "t.h5ad", x=x))
    cases, expression = read(source)
    assert (cases, ids(expression)) == (list(CASES), list(ENSEMBL))
    np.testing.assert_array_equal(expression.values, dense)
    assert expression.values.dtype == np.float32
    one, same = source.samples[1], source.samples[1]
    np.testing.assert_array_equal(source.read([one, same]).values, dense[[1, 1]])


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_h5ad_layer(tmp_path, kind):
    layer = VALUES * 2 if kind == "dense" else sparse(kind, VALUES * 2)
    source = open_expression(anndata_file(tmp_path / "t.h5ad", scaled=layer), layer="scaled")
    _, expression = read(source)
    np.testing.assert_array_equal(expression.values, VALUES * 2)
    assert expression.provenance["layer"] == "scaled"


def test_h5ad_columns(tmp_path):
    obs = {"case_id": ["P2", "P1"], "n": [1, 2]}
    var = {
        "gene_ids": ["G1", "G2", "G3"],
        "gene_symbols": ["A", "B", "C"],
        "feature_types": ["Gene Expression"] * 3,
    }
    source = open_expression(anndata_file(tmp_path / "t.h5ad", obs, var, obs_names=("s1", "s2")))
    cases, expression = read(source)
    assert cases == ["P1", "P2"]
    assert [sample.barcode for sample in source.samples] == ["s1", "s2"]
    assert expression.genes[0] == {"gene_id": "G1", "gene_name": "A", "gene_type": ""}
    np.testing.assert_array_equal(expression.values, VALUES[::-1])


def test_h5ad_biotypes(tmp_path):
    var = {"gene_type": ["protein_coding", "lncRNA", "protein_coding"]}
    _, expression = read(open_expression(anndata_file(tmp_path / "t.h5ad", None, var)))
    assert [row["gene_type"] for row in expression.genes] == var["gene_type"]


def test_bad_h5ad(tmp_path):
    import h5py

    def broken(change):
        file = anndata_file(tmp_path / "t.h5ad", x=sparse("csr", np.abs(VALUES)))
        with h5py.File(file, "r+") as h5:
            change(h5)
        return [kind for kind, _ in faults_of(lambda: read(open_expression(file)))]

    def replace(name, values):
        def change(h5):
            attributes = dict(h5[name].attrs)
            del h5[name]
            h5[name] = values
            h5[name].attrs.update(attributes)

        return change

    assert broken(lambda h5: h5.pop("X")) == ["no-layer"]
    assert broken(lambda h5: h5.pop("obs")) == ["unreadable-file"]
    assert broken(replace("X/data", np.ones(6, ">f4"))) == ["expression-dtype"]
    assert broken(replace("X/data", np.ones(6, bool))) == ["expression-dtype"]
    assert broken(replace("X/indices", np.full(6, 7))) == ["unreadable-file"]
    assert broken(replace("X/indices", np.zeros(6, int))) == ["unreadable-file"]
    assert broken(replace("X/indptr", np.array([0, 6, 3]))) == ["unreadable-file"]
    assert broken(replace("X/data", np.ones(5, "f4"))) == ["unreadable-file"]
    assert broken(replace("X/data", np.full(6, np.nan, "f4"))) == ["expression-not-finite"]
    assert broken(lambda h5: h5["X"].attrs.modify("shape", [2, 4])) == ["table-shape"]
    assert broken(replace("obs/_index", ["a", "a"])) == ["duplicate-sample"]
    assert broken(replace("var/_index", ["a", "a", "b"])) == ["duplicate-gene"]
    file = anndata_file(tmp_path / "t.h5ad")
    missing = faults_of(lambda: open_expression(file, layer="counts"))
    assert [kind for kind, _ in missing] == ["no-layer"]
    turned = faults_of(lambda: open_expression(file, orientation="genes-in-rows"))
    assert [kind for kind, _ in turned] == ["orientation"]


@pytest.mark.parametrize("place", ["X", "obs", "var/_index", "obs/barcode", "layers", "X/data"])
@pytest.mark.parametrize("soft", [False, True], ids=["external", "soft"])
def test_tables_of_another_file_are_not_read(tmp_path, place, soft):
    import h5py

    obs, x = {"barcode": list(BARCODES)}, sparse("csr", VALUES)
    files = [tmp_path / "t.h5ad", tmp_path / "other.h5ad"]
    for file in files:
        anndata_file(file, obs, None, x, a=VALUES)
    with h5py.File(files[0], "r+") as h5:
        del h5[place]
        h5["door"] = h5py.ExternalLink("other.h5ad", "/")
        link = h5py.SoftLink(f"/door/{place}") if soft else h5py.ExternalLink("other.h5ad", place)
        h5[place] = link
    layer = "a" if place == "layers" else None
    faults = faults_of(lambda: read(open_expression(files[0], layer=layer)))
    assert [kind for kind, _ in faults] == ["outside-file"]


def test_links_inside_an_h5ad_are_followed(tmp_path):
    import h5py

    file = anndata_file(tmp_path / "t.h5ad")
    with h5py.File(file, "r+") as h5:
        h5.move("X", "matrix")
        h5["X"] = h5py.SoftLink("/matrix")
    _, expression = read(open_expression(file))
    np.testing.assert_array_equal(expression.values, VALUES)


def test_a_file_that_hangs_hdf5_is_a_fault(tmp_path, monkeypatch):
    file = anndata_file(tmp_path / "t.h5ad")
    read(open_expression(file))
    content = bytearray(file.read_bytes())
    # The length of the first text in the collection of texts: the next one seems to lie in the
    # empty end of the collection and to be 0 bytes long, and so HDF5 never gets past it.
    length = content.index(b"GCOL") + 24
    content[length : length + 8] = (3600).to_bytes(8, "little")
    file.write_bytes(content)
    monkeypatch.setattr(isolated, "SECONDS", 1.0)
    ((kind, _),) = faults_of(lambda: open_expression(file))
    assert kind == "unreadable-file"


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from gimp_fast.data.rna.expression import open_expression
from gimp_fast.errors import FaultError
try:
    open_expression(sys.argv[2])
except FaultError as error:
    print(error)
"""


@pytest.mark.parametrize(("library", "file"), [("pyarrow", "t.parquet"), ("anndata", "t.h5ad")])
def test_a_missing_library_is_named(tmp_path, library, file):
    if library == "pyarrow":
        pd.DataFrame({"case_id": ["P"], "A": [1]}).to_parquet(tmp_path / file)
    else:
        anndata_file(tmp_path / file)
    argv = [sys.executable, "-c", WITHOUT, library, str(tmp_path / file)]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert f"{library}, from `pip install 'gimp-fast[formats]'`" in printed
    assert "[missing-library]" in printed


def test_importing_loads_no_library_of_formats():
    code = (
        "import sys, gimp_fast.data.rna.expression, gimp_fast.data.rna.genes;"
        "print([m for m in ('pyarrow', 'anndata', 'scipy', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
