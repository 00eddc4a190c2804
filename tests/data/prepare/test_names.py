"""Names that a terminal would obey, or that no table can show."""

from __future__ import annotations

import csv

import pytest
from builders.prepare_inputs import CASES, GENES, Inputs

from gimp_fast import prepare
from gimp_fast.data import open_cohort


def labelled(inputs: Inputs, classes: tuple[str, str]) -> None:
    with inputs.labels.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["case_id", "slide_id", "label"])
        table.writerows([c, f"{c}-01Z", classes[n // 6 % 2]] for n, c in enumerate(CASES))


def test_a_long_class_is_one_fault(inputs, capsys):
    labelled(inputs, ("x" * 10_000, "Y"))
    assert prepare.main(inputs.argv()) == 2
    message = capsys.readouterr().err
    assert message.count("[bad-name]") == 1
    assert "a class name of 10000 characters, 'xxxx" in message
    assert len(message) < 3000
    assert not inputs.out.exists()


@pytest.mark.parametrize("name", ["\x1b[31mred", "\u202egpj"], ids=["escape", "reordered"])
def test_names_that_a_terminal_would_obey_are_told(inputs, capsys, name):
    genes = (*GENES[:-1], name)
    inputs.write_rna(inputs.rna, CASES, genes, inputs.matrix)
    assert prepare.main(inputs.argv("--name", name)) == 2
    message = capsys.readouterr().err
    shown = name.encode("unicode_escape").decode("ascii")
    assert f"cohort '{shown}' with control characters" in message
    assert f"gene '{shown}' with control characters" in message
    assert name[0] not in message


def test_splits_and_signatures_that_a_terminal_would_obey_are_told(inputs, capsys):
    split, sets = inputs.folder / "\x1b[31m.csv", inputs.folder / "sets.gmt"
    parts = ["train", "train", "train", "val", "test"] * 6
    rows = [f"{case},{part}" for case, part in zip(CASES, parts, strict=True)]
    split.write_text("\n".join(["case_id,split", *rows]) + "\n", encoding="utf-8")
    sets.write_text(f"\x07A\tx\t{GENES[0].split('.')[0]}\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--splits", split, "--gene-sets", sets)) == 2
    message = capsys.readouterr().err
    assert r"split '\x1b[31m' with control characters" in message
    assert r"signature '\x07A' with control characters" in message


def test_a_class_that_a_terminal_would_obey_is_told(inputs, capsys):
    labelled(inputs, ("\x1b[31mred", "Y"))
    assert prepare.main(inputs.argv()) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_markup_and_formulas_are_names_and_come_back(inputs, capsys):
    classes = ("<script>alert(1)</script>", "=cmd|' /C calc'!A0")
    labelled(inputs, classes)
    assert prepare.main(inputs.argv()) == 0
    assert open_cohort(inputs.out).classes == tuple(sorted(classes))
    for file in inputs.out.rglob("*.csv"):
        with file.open(encoding="utf-8", newline="") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
        assert not any(cell.startswith("=") for cell in cells)


def test_an_error_is_shown_without_what_a_terminal_obeys(inputs, capsys):
    argv = inputs.argv("--genes", "\x1b[2Jno-such-file")
    assert prepare.main(argv) == 2
    message = capsys.readouterr().err
    assert "\x1b" not in message
    assert r"\x1b[2Jno-such-file" in message
