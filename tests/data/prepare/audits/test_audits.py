"""Each audit finds a planted fault, names it with its numbers, and is silent without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gimp_fast.data.prepare.audits.expression import expression_cautions
from gimp_fast.data.prepare.audits.profiles import Audited, profiles
from gimp_fast.data.prepare.audits.sex import SEX_GENES, sex_genes_of, sexes_of
from gimp_fast.data.rna.values import Expression, gene_row

N, G = 97, 151


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def sound(rng) -> Audited:
    """Patients of two classes that differ, with correlated genes and hospitals of no effect."""
    cases = tuple(f"P{n:03d}" for n in range(N))
    labels = np.array(["A", "B"])[np.arange(N) % 2]
    values = rng.normal(7, 2, G) + rng.normal(size=(N, 5)) @ rng.normal(size=(5, G))
    values += rng.normal(size=(N, G)) + (labels == "B")[:, None] * rng.normal(0, 0.7, G)
    parts = np.array(["train", "train", "val", "test"])[np.arange(N) // 2 % 4]
    return Audited(
        cases,
        values.astype(np.float32),
        {"class": of(cases, labels), "part of split 's'": of(cases, parts)},
        sites=of(cases, [f"H{n // 3 % 7}" for n in range(N)]),
    )


def of(cases, names) -> dict[str, str]:
    return dict(zip(cases, map(str, names), strict=True))


def standard(values, groups=None):
    """z-scores of all patients, or within groups."""
    frame = pd.DataFrame(values).groupby(np.zeros(len(values)) if groups is None else groups)
    return frame.transform(lambda x: (x - x.mean()) / x.std()).to_numpy(np.float32)


def names(audited, grouping):
    return np.array([audited.groups[grouping][case] for case in audited.cases])


def test_a_sound_cohort_is_not_cautioned_of(sound):
    assert expression_cautions(sound) == []
    assert expression_cautions(replace(sound, values=standard(sound.values))) == []
    assert expression_cautions(replace(sound, values=np.exp2(sound.values))) == []


@pytest.mark.parametrize(
    ("grouping", "said"),
    [("class", "scaled within each class"), ("part of split 's'", "scaled within each part")],
)
def test_z_scores_within_groups(sound, grouping, said):
    groups = names(sound, grouping)
    (text,) = expression_cautions(replace(sound, values=standard(sound.values, groups)))
    assert text.startswith(f"{grouping}: expression differs less between groups")
    assert said in text
    assert "0.00% of the variance" in text


def test_z_scores_of_which_some_patients_were_left_out_since(sound, rng):
    values, kept = standard(sound.values, names(sound, "class")), rng.permutation(N)[:85]
    cases = tuple(sound.cases[row] for row in kept)
    (text,) = expression_cautions(replace(sound, cases=cases, values=values[kept]))
    assert "scaled within each class" in text


def test_groups_without_a_difference_are_not_called_scaled(sound, rng):
    labels = of(sound.cases, rng.permutation(names(sound, "class")))
    assert expression_cautions(replace(sound, groups={"class": labels})) == []


def test_a_class_in_another_unit(sound):
    values = sound.values.copy()
    values[names(sound, "class") == "A"] += 3
    (text,) = expression_cautions(replace(sound, values=values))
    assert text.startswith("class, 'A': ")
    assert "of the genes are higher than in the others" in text
    assert "--harmonise rank" in text


def test_sources_of_z_scores_of_their_own(sound):
    sources = np.array(["luad.csv", "lusc.csv"])[(names(sound, "class") == "B").astype(int)]
    values = standard(sound.values, sources)
    audited = replace(sound, values=values, groups={}, sources=of(sound.cases, sources))
    (text,) = expression_cautions(audited)
    assert text.startswith("each of the 2 sources of expression holds z-scores of its own")
    assert expression_cautions(replace(audited, values=sound.values)) == []
    # Scaled together: the sources still differ, as two diseases do.
    apart = sound.values + 3 * (sources == "luad.csv")[:, None] * np.sign(np.arange(G) % 2 - 0.5)
    assert expression_cautions(replace(audited, values=standard(apart))) == []


def test_patients_with_the_same_expression(sound):
    values = sound.values.copy()
    values[[11, 60]] = values[[4, 8]]
    (text,) = expression_cautions(replace(sound, values=values))
    assert text.startswith("2 pairs of patients with the same expression: P004 and P011; P008 and")


def test_profiles_that_are_nearly_the_same(sound, rng):
    values = sound.values.copy()
    values[11] = values[4] + rng.normal(0, 0.1, G)
    (text,) = expression_cautions(replace(sound, values=values))
    assert text.startswith("1 pair of patients with nearly the same expression: P004 and P011.")
    assert "They correlate with 0.9" in text or "They correlate with 1.00" in text


def test_missing_genes_are_no_likeness(sound):
    values = sound.values.copy()
    values[:, ::3] = np.nan
    values[::2, 1] = np.nan
    assert expression_cautions(replace(sound, values=values)) == []
    assert np.isfinite(profiles(values)).all()


def test_hospitals_that_shape_expression(sound, rng):
    sites = np.array([sound.sites[case] for case in sound.cases])
    shifts = {site: rng.normal(0, 2, G) for site in sorted(set(sites))}
    values = sound.values + np.stack([shifts[site] for site in sites]).astype(np.float32)
    (text,) = expression_cautions(replace(sound, values=values))
    assert text.startswith("expression goes with the hospital (7 of them): it explains ")
    assert "by chance (p = 0.005)" in text
    assert "within classes" in text
    assert expression_cautions(replace(sound, values=values, sites={})) == []


def test_hospitals_of_a_single_class_are_compared_within_it(sound):
    """What the class explains is no effect of the hospital."""
    labels = names(sound, "class")
    values = sound.values + (labels == "B")[:, None] * np.float32(4) * np.sign(
        np.random.default_rng(3).normal(size=G).astype(np.float32)
    )
    sites = of(sound.cases, [f"{label}{n % 5}" for n, label in enumerate(labels)])
    assert expression_cautions(replace(sound, values=values, sites=sites)) == []


@pytest.fixture
def sexed(sound, rng) -> Audited:
    """Women and men with sex genes in counts; some tumours have lost Y, or silenced XIST."""
    men = np.arange(N) % 3 == 0
    genes = {
        "XIST": np.where(men, rng.poisson(2, N), rng.poisson(3000, N)),
        "DDX3Y": np.where(men, rng.poisson(900, N), rng.poisson(1, N)),
        "UTY": np.where(men, rng.poisson(200, N), 0),
    }
    genes["DDX3Y"][[0, 3]] = genes["UTY"][[0, 3]] = 0
    genes["XIST"][[1, 2]] = 1
    sexes = of(sound.cases, np.where(men, "male", "female"))
    return replace(
        sound, sex_genes={k: v.astype(np.float32) for k, v in genes.items()}, sexes=sexes
    )


def test_swapped_samples_are_named(sexed):
    assert expression_cautions(sexed) == []
    sexes = sexed.sexes | {"P006": "female", "P007": "male"}
    (text,) = expression_cautions(replace(sexed, sexes=sexes))
    assert text.startswith("sex genes (XIST, DDX3Y, UTY) contradict the clinical table for 2 of 97")
    assert "P006 (female), P007 (male)" in text
    scored = {gene: (v - v.mean()) / v.std() for gene, v in sexed.sex_genes.items()}
    assert len(expression_cautions(replace(sexed, sexes=sexes, sex_genes=scored))) == 1


@pytest.mark.parametrize(("gene", "named"), [("XIST", "P007 (male)"), ("DDX3Y", "P006 (female)")])
def test_one_gene_shows_what_is_there_not_what_is_absent(sexed, gene, named):
    sexes = sexed.sexes | {"P006": "female", "P007": "male"}
    one = {gene: sexed.sex_genes[gene]}
    (text,) = expression_cautions(replace(sexed, sexes=sexes, sex_genes=one))
    assert f"for 1 of 97 patients: {named}." in text


def test_genes_that_tell_nothing_and_cohorts_of_one_sex(sexed, rng):
    noise = {gene: rng.normal(size=N).astype(np.float32) for gene in sexed.sex_genes}
    assert expression_cautions(replace(sexed, sex_genes=noise)) == []
    women = dict.fromkeys(sexed.cases, "female") | {"P000": "male"}
    assert expression_cautions(replace(sexed, sexes=women)) == []


def test_sex_genes_are_found_by_symbol_and_by_id():
    genes = [gene_row("ENSG00000229807.12"), gene_row("ENSG1.1", "UTY"), gene_row("DDX3Y")]
    genes += [gene_row("TP53"), gene_row("ENSG00000183878_PAR_Y")]
    found = sex_genes_of(Expression(np.arange(10.0).reshape(2, 5), genes))
    assert {gene: values.tolist() for gene, values in found.items()} == {
        "XIST": [0, 5], "UTY": [1, 6], "DDX3Y": [2, 7],
    }  # fmt: skip
    assert all(id.startswith("ENSG") and len(id) == 15 for id in SEX_GENES.values())


@pytest.mark.parametrize("column", ["sex", "Gender", "SEX", "cases.demographic.gender"])
def test_sexes_are_read_where_a_table_has_them(tmp_path, column):
    table = tmp_path / "clinical.csv"
    rows = ["P1,MALE", "P1,male", "P2,Female", "P3,not reported", "P4,F", "P4,M", "P5,"]
    table.write_text("\n".join([f"case_id,{column}", *rows]) + "\n", encoding="utf-8")
    assert sexes_of(table) == {"P1": "male", "P2": "female"}


def test_tables_without_sexes(tmp_path):
    table = tmp_path / "clinical.csv"
    table.write_text("case_id,label\nP1,A\n", encoding="utf-8")
    assert sexes_of(table) == sexes_of(tmp_path) == sexes_of(None) == {}
