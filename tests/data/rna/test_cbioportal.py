"""cBioPortal's tables: symbols, Entrez ids, repeated rows."""

from __future__ import annotations

import numpy as np
import pytest
from builders.faults import faults_of
from builders.rna_files import (
    write_text,
)

from gimp_fast.data.rna.expression import open_expression
from gimp_fast.data.rna.samples import choose_samples
from gimp_fast.data.rna.source import ExpressionSource

CASES = ("TCGA-00-0001", "TCGA-00-0002")


def read(source: ExpressionSource, transform: str | None = None):
    chosen, _ = choose_samples(source.samples)
    return list(chosen), source.read(chosen.values(), transform)


def ids(expression) -> list[str]:
    return [row["gene_id"] for row in expression.genes]


def reasons(expression) -> dict[str, str]:
    return {row["gene_id"]: row["reason"] for row in expression.dropped_genes}


CBIOPORTAL = """Hugo_Symbol\tEntrez_Gene_Id\tTCGA-00-0001-01\tTCGA-00-0002-01\tTCGA-00-0001-11
TP53\t7157\t1\t2\t9
\t100\t3\t4\t9
MATR3\t9782\t5\t6\t9
MATR3\t55\t7\t8\t9
\t\t1\t1\t9
EGFR\t1956\t-1\t-2\t9
EGFR\t1956\t-1\t-2\t9
DEAD\t1\tNA\tNA\t9
"""


def test_cbioportal(tmp_path):
    file = write_text(tmp_path / "data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt", CBIOPORTAL)
    cases, expression = read(open_expression(file))
    assert cases == list(CASES)
    assert ids(expression) == ["TP53", "100", "MATR3|9782", "MATR3|55", "EGFR"]
    names = [row["gene_name"] for row in expression.genes]
    assert names == ["TP53", "", "MATR3", "MATR3", "EGFR"]
    np.testing.assert_array_equal(expression.values, [[1, 3, 5, 7, -1], [2, 4, 6, 8, -2]])
    assert reasons(expression) == {
        "": "neither symbol nor Entrez id: row 6",
        "EGFR": "repeats another row: row 8 is row 7",
        "DEAD": "no value in any sample",
    }
    assert expression.provenance["kind"] == "cbioportal"


@pytest.mark.parametrize(
    ("old", "new", "kind", "text"),
    [
        ("EGFR\t1956\t-1\t-2\t9\nD", "EGFR\t1956\t-1\t-3\t9\nD", "duplicate-gene", "rows 7 and 8"),
        ("TP53\t7157\t1\t2", "TP53\t7157\t1\tNA", "expression-not-finite", "1 of 5 genes"),
        ("MATR3\t55", "MATR3\t9782", "duplicate-gene", "rows 4 and 5"),
        ("\t100\t", "\tTP53\t", "duplicate-gene", "TP53"),
        ("0002-01\t", "0001-01\t", "duplicate-sample", "TCGA-00-0001-01"),
    ],
)
def test_bad_cbioportal(tmp_path, old, new, kind, text):
    assert old in CBIOPORTAL
    file = write_text(tmp_path / "t.txt", CBIOPORTAL.replace(old, new))
    ((found, message),) = faults_of(lambda: read(open_expression(file)))
    assert found == kind
    assert text in message
