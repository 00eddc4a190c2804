"""The audits' cautions are printed by the command, of genes that the cohort keeps or not."""

from __future__ import annotations

import numpy as np
import pytest
from builders.prepare_inputs import CASES, Inputs

from gimp_fast import prepare

GENES = tuple(f"G{n:03d}" for n in range(41))


@pytest.fixture
def values():
    """(genes, patients)."""
    return np.random.default_rng(0).normal(7, 2, (len(GENES), len(CASES)))


def checked(inputs, capsys, *extra) -> list[str]:
    assert prepare.main(inputs.argv("--check", *extra)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not inputs.out.exists()
    found = [line.removeprefix("caution: ") for line in lines if line.startswith("caution: ")]
    return [text for text in found if not text.startswith("hospital and class")]


def test_copies_and_swaps_are_found_with_sex_genes_that_are_not_kept(inputs, values, capsys):
    values[:, 3] = values[:, 0]
    men = np.arange(len(CASES)) % 3 == 0
    of_sex = np.stack([np.where(men, 1, 9), np.where(men, 8, 0)]) + values[:2] / 100
    rows = [
        f"{case},{case}-01Z,{'XY'[n % 2]},{'male' if men[n] != (n == 4) else 'female'}"
        for n, case in enumerate(CASES)
    ]
    inputs.labels.write_text("\n".join(["case_id,slide_id,label,Gender", *rows]) + "\n", "utf-8")
    Inputs.write_rna(inputs.rna, CASES, (*GENES, "XIST", "DDX3Y"), np.vstack([values, of_sex]))
    kept = inputs.folder / "kept.txt"
    kept.write_text("\n".join(GENES) + "\n", encoding="utf-8")
    copies, swaps = checked(inputs, capsys, "--genes", kept)
    assert copies.startswith(
        f"1 pair of patients with the same expression: {CASES[0]} and {CASES[3]}"
    )
    said = "sex genes (XIST, DDX3Y) contradict the clinical table for 1 of 30 patients: "
    assert swaps.startswith(f"{said}{CASES[4]} (male).")


def test_sources_that_were_scaled_apart(inputs, values, capsys):
    second = inputs.folder / "second.tsv"
    for file, places in ((inputs.rna, slice(0, 15)), (second, slice(15, 30))):
        part = values[:, places] + (10 if file == second else 0)
        scaled = (part - part.mean(1, keepdims=True)) / part.std(1, keepdims=True)
        Inputs.write_rna(file, CASES[places], GENES, scaled)
    argv = ["--rna", str(inputs.rna), str(second)]
    (text,) = checked(inputs, capsys, *argv)
    assert text.startswith("each of the 2 sources of expression holds z-scores of its own patients")
    Inputs.write_rna(second, CASES[15:], GENES, values[:, 15:] + 10)
    Inputs.write_rna(inputs.rna, CASES[:15], GENES, values[:, :15])
    (text,) = checked(inputs, capsys, *argv)
    assert text.startswith("source, '")
    assert "100% of the genes are" in text
