"""Expression tables as users have them, through the command and into training."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from builders.prepare_inputs import CASES, GENES, Inputs

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.training import load_config, train
from gimp_fast.training.scaling import GeneScaler, check_gaps

TINY = ["model.dim=8", "model.heads=2", "model.num_landmarks=4", "model.head_hidden=8"]
TINY += ["genes.epochs=1", "pretrain.epochs=1", "pretrain.window=8", "finetune.epochs=1"]
TINY += ["bootstrap=20", "threads=1", "device=cpu"]
FILTERED = ["--genes", "--gene-sets"]


def run(capsys, argv) -> tuple[int, str]:
    """Exit code, and what the command printed."""
    code = prepare.main(argv)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def write_genes(inputs: Inputs, genes, values) -> None:
    inputs.write_rna(inputs.rna, CASES, genes, values)


def chosen(inputs: Inputs, option: str, *genes: str) -> list[str]:
    """Options that keep some genes."""
    text = "\n".join(genes) if option == "--genes" else "\t".join(["ONE", "x", *genes])
    file = inputs.folder / ("list.txt" if option == "--genes" else "sets.gmt")
    file.write_text(text + "\n", encoding="utf-8")
    return inputs.argv(option, file)


@pytest.mark.parametrize("option", FILTERED)
def test_only_genes_that_are_kept_are_checked(inputs, capsys, option):
    values = np.vstack([inputs.matrix, inputs.matrix[:2] + 1]).astype(object)
    values[1, 3] = "NA"
    write_genes(inputs, ("A", "B", "C", "D", "A", "E"), values)
    code, text = run(capsys, inputs.argv())
    assert code == 2
    assert "gene A in rows 2 and 6 with other values" in text
    assert "first gene B of" in text
    code, text = run(capsys, chosen(inputs, option, "C", "D"))
    assert code == 0, text
    assert open_cohort(inputs.out).gene_ids == ("C", "D")


def test_treatments_are_options_and_are_recorded(inputs, capsys):
    values = np.vstack([inputs.matrix, inputs.matrix[:1] + 1]).astype(object)
    values[1, 3] = "NA"
    write_genes(inputs, ("A", "B", "C", "D", "A"), values)
    argv = inputs.argv("--duplicate-genes", "mean", "--missing-values", "drop-gene")
    code, text = run(capsys, argv)
    assert code == 0, text
    assert "1 gene: duplicate gene averaged" in text
    assert "1 gene: missing value" in text
    dropped = (inputs.out / "dropped_genes.csv").read_text("utf-8")
    assert 'A,,"duplicate gene averaged: row 6, with row 2"' in dropped
    assert "B,,missing value: in 1 of 30 samples" in dropped
    expected = (inputs.matrix[0] + 0.5).astype(np.float32)
    np.testing.assert_allclose(open_cohort(inputs.out).expression(CASES)[:, 0], expected, rtol=1e-6)


def test_missing_values_that_are_kept_become_the_mean_of_the_training_patients(inputs, capsys):
    values = inputs.matrix.astype(object)
    values[1, ::4] = "NA"
    write_genes(inputs, GENES, values)
    code, text = run(capsys, inputs.argv("--missing-values", "keep"))
    assert code == 0, text
    assert "values kept: 8, genes with some: 1" in text
    cohort = open_cohort(inputs.out)
    train(load_config(overrides=TINY), cohort, inputs.folder / "run")
    tensors, _ = load_checkpoint(inputs.folder / "run" / "checkpoints" / "finetune.safetensors")
    of_training = cohort.expression(cohort.split("split_0")["train"])
    assert np.isnan(of_training).any()
    frame = pd.DataFrame(of_training.astype(np.float64))
    np.testing.assert_allclose(tensors["scaler.mean"], frame.mean(), rtol=1e-5)
    np.testing.assert_allclose(tensors["scaler.std"], frame.std(ddof=0), rtol=1e-5)
    scaled = GeneScaler(tensors["scaler.mean"].numpy(), tensors["scaler.std"].numpy())(of_training)
    assert (scaled[np.isnan(of_training)] == 0).all()
    none = load_config(overrides=[*TINY, "gene_scaling=none"])
    with pytest.raises(GimpError, match="gene_scaling=none would read as 0"):
        train(none, cohort, inputs.folder / "none")


def test_a_gene_that_no_training_patient_has(inputs):
    values = np.array([[1, np.nan], [2, np.nan]], np.float32)
    with pytest.raises(GimpError, match=r"no training patient has a value of B \(1 of 2 genes"):
        check_gaps(values, ["A", "B"], "z-score", "cohort, split_0")


def test_gaps_of_new_patients(inputs, capsys):
    assert prepare.main(inputs.argv("--transform", "as-given")) == 0
    values = inputs.matrix.astype(object)
    values[2, 5] = "NA"
    write_genes(inputs, GENES, values)
    for treatment, gone in (("drop-gene", True), ("keep", False)):
        out = inputs.folder / treatment
        options = ["--genes-of", inputs.out, "--missing-values", treatment]
        code, text = run(capsys, inputs.argv(*options, out=out))
        assert code == 0, text
        cohort = open_cohort(out)
        assert cohort.gene_ids == GENES
        assert cohort.missing_genes == ((GENES[2],) if gone else ())
        missing = np.isnan(cohort.expression(CASES))
        assert missing[5, 2]
        assert missing.sum() == (len(CASES) if gone else 1)
    code, text = run(capsys, inputs.argv("--genes-of", inputs.out, out=inputs.folder / "stop"))
    assert (code, "--missing-values drop-gene or keep" in text) == (2, True)


def test_a_signature_loses_the_genes_that_are_dropped(inputs, capsys):
    values = inputs.matrix.astype(object)
    values[1, 5] = "NA"
    write_genes(inputs, ("A", "B", "C", "D"), values)
    argv = chosen(inputs, "--gene-sets", "B", "C", "D")
    code, text = run(capsys, [*argv, "--missing-values", "drop-gene"])
    assert code == 0, text
    cohort = open_cohort(inputs.out)
    assert cohort.gene_ids == ("C", "D")
    assert cohort.gene_sets == {"ONE": (0, 1)}
    values[2, 6] = "NA"
    write_genes(inputs, ("A", "B", "C", "D"), values)
    argv = chosen(inputs, "--gene-sets", "B", "C")
    argv[argv.index("--out") + 1] = str(inputs.folder / "none")
    code, text = run(capsys, [*argv, "--missing-values", "drop-gene"])
    assert code == 2
    assert "no gene with a value for every sample" in text


def test_dates_of_a_spreadsheet_and_the_signatures_that_lose_genes(inputs, capsys):
    write_genes(inputs, ("TP53", "2-Sep", "10-Mar", "SEPT7"), inputs.matrix)
    argv = chosen(inputs, "--gene-sets", "TP53", "SEPTIN2", "MARCH10", "SEPTIN7", "1-Dec")
    report = inputs.folder / "report.json"
    code, text = run(capsys, [*argv, "--report", str(report)])
    assert code == 0, text
    assert f"caution   {inputs.rna}: 2 gene names look like dates" in text
    assert "'2-Sep' in row 3 (SEPTIN2, once SEPT2)" in text
    assert "'1-Dec' in signature ONE (DELEC1, once DEC1)" in text
    assert "gene set ONE loses SEPTIN2 (it may have become the date '2-Sep')" in text
    assert "SEPTIN7 (the table has its other name, SEPT7)" in text
    facts = json.loads((inputs.out / "cohort.json").read_text("utf-8"))["expression"]
    assert len(facts["cautions"]) == 3
    assert "look like dates" in report.read_text("utf-8")


def test_dates_in_a_gene_list_are_named_with_their_rows(inputs, capsys):
    write_genes(inputs, ("TP53", "EGFR", "KRAS", "SEPTIN2"), inputs.matrix)
    code, text = run(capsys, chosen(inputs, "--genes", "TP53", "# mine", "2-Sep"))
    assert code == 0, text
    assert "1 gene name looks like a date" in text
    assert "'2-Sep' in row 3 (SEPTIN2" in text


def with_types(inputs: Inputs, types: dict[int, tuple[str, ...]]) -> None:
    """One sample of each of these types for a patient; ``01A`` for the others."""
    names = [f"{c}-{t}" for n, c in enumerate(CASES) for t in types.get(n, ("01A",))]
    values = np.random.default_rng(0).random((2, len(names))).round(3)
    rows = [["gene", *names], *([g, *map(str, row)] for g, row in zip("AB", values, strict=True))]
    inputs.rna.write_text("\n".join(map("\t".join, rows)) + "\n", encoding="utf-8")


def test_patients_with_metastases_only(inputs, capsys):
    with_types(inputs, {0: ("06A", "01A"), 1: ("06A", "06B"), 2: ("06A",), 3: ("11A",)})
    code, text = run(capsys, inputs.argv())
    assert code == 2
    assert "2 patients, such as 'TCGA-BB-0001', with samples only of type 06 (metastasis)" in text
    assert "--sample-types 06 for 3 or --sample-types 01 06 for 29 of 30 patients" in text
    assert text.count("[missing-rna]") == 1  # the one who has normal tissue only
    assert "but a sample of type 11" in text
    with_types(inputs, {0: ("06A", "01A"), 1: ("06A", "06B"), 2: ("06A",)})
    code, text = run(capsys, inputs.argv("--sample-types", "01", "06"))
    assert code == 0, text
    assert len(open_cohort(inputs.out).case_ids) == 30


@pytest.mark.parametrize("labels", [True, False])
def test_a_table_of_metastases_only(inputs, capsys, labels):
    with_types(inputs, dict.fromkeys(range(30), ("06A",)))
    argv = inputs.argv()
    if not labels:
        place = argv.index("--labels")
        argv[place : place + 2] = ["--no-labels"]
    code, text = run(capsys, argv)
    assert code == 2
    assert "30 patients, such as 'TCGA-AA-0000', with samples only of type 06" in text
    assert "expected --sample-types 06 for 30 of 30 patients" in text
    assert run(capsys, [*argv, "--sample-types", "06"])[0] == 0


def test_a_cohort_of_rna_alone_with_metastases_only(inputs, capsys):
    with_types(inputs, dict.fromkeys(range(30), ("06A",)))
    argv = ["--no-labels", "--allow-missing-modality", "--rna", str(inputs.rna)]
    argv += ["--out", str(inputs.out)]
    code, text = run(capsys, argv)
    assert code == 2
    assert "expected --sample-types 06 for 30 of 30 patients [sample-types]" in text


def test_patients_who_are_kept_without_rna_are_mentioned(inputs, capsys):
    with_types(inputs, {2: ("06A",)})
    code, text = run(capsys, inputs.argv("--allow-missing-modality"))
    assert code == 0, text
    assert "caution   1 patient, such as 'TCGA-CC-0002', with samples only of type 06" in text
    assert "use --sample-types 06 for 1 or --sample-types 01 06 for 30 of 30 patients" in text


def test_what_a_cohort_hands_to_models_names_no_patient(inputs, capsys):
    text = inputs.rna.read_text("utf-8")
    for case in CASES:
        text = text.replace(f"{case}-01A", f"bam/{case}-01A.sorted.bam")
    inputs.rna.write_text(text, "utf-8")
    code, printed = run(capsys, inputs.argv())
    assert code == 0, printed
    assert f"renamed   30 samples of the RNA table: 'bam/{CASES[0]}-01A.sorted.bam' is" in printed
    assert "TCGA-" not in json.dumps(open_cohort(inputs.out).expression_facts)
