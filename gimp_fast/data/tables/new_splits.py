"""New splits of patients, by label and by site, and the check that no patient is in two parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from gimp_fast.data.names import PARTS, PATIENT_COLUMNS, patient_of
from gimp_fast.errors import FaultError, Faults
from gimp_fast.files.numbers import MISSING
from gimp_fast.files.table import open_table

SITE_FOLDS = 5  # one is the test part and one the validation part of a single split


def check_split(
    parts: dict[str, str], sites: dict[str, str] | None = None, *, where: str = "the split"
) -> None:
    """Check that no patient, and with ``sites`` no site, is in two parts.

    Cases whose ids are TCGA barcodes of one patient count as that patient.

    Raises:
        FaultError: all patients and sites that are in two parts.
    """
    faults = Faults()
    groups = {"patient": {case: patient_of(case) for case in parts}, "site": sites or {}}
    kinds = {"patient": "split-leak", "site": "site-leak"}
    for what, group_of in groups.items():
        first: dict[str, str] = {}
        for case in sorted(parts.keys() & group_of.keys()):
            part, other = parts[case], first.setdefault(group_of[case], case)
            if parts[other] != part:
                found = f"{what} '{group_of[case]}' in {parts[other]} ('{other}') and {part}"
                faults.add(kinds[what], where, f"{found} ('{case}')", f"each {what} in one part")
    faults.stop(where)


def shared_sites(parts: dict[str, str], sites: dict[str, str]) -> int:
    """Number of sites with patients both in train and in test."""
    train, test = (
        {sites[case] for case, part in parts.items() if part == wanted and case in sites}
        for wanted in ("train", "test")
    )
    return len(train & test)


def sites_from_table(path: str | Path, column: str) -> dict[str, str]:
    """Case id -> site, from a table with a row per patient or slide; empty sites are left out.

    Raises:
        FaultError: unreadable, a missing column, or a patient with two sites.
    """
    table = open_table(path)
    faults, sites = Faults(), {}
    for where, case, site in table.rows(table.one_of(*PATIENT_COLUMNS), column):
        if case and site not in MISSING and sites.setdefault(case, site) != site:
            found = f"site '{site}' for patient '{case}'"
            faults.add("site-conflict", where, found, f"'{sites[case]}' as before")
    faults.stop(path)
    return sites


def make_splits(
    labels: dict[str, str],
    *,
    folds: int = 1,
    sites: dict[str, str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, str]]:
    """New splits by label, which depend only on ids, labels, sites and seed.

    One fold is a 60/20/20 split named ``split_0``. K folds, named ``fold_0`` …, test on fold k,
    validate on fold k + 1 (mod K) and train on the rest. With sites, all patients of a site are in
    one part, so that the shares are approximate; a single split is then the first of five folds
    (of fewer if a class has fewer sites) with every class in every part.

    Args:
        labels: case id -> label.
        folds: 1, or 3 and more.
        sites: case id -> site of every patient.
        seed: 0 … 2³² − 1.

    Returns:
        Name -> case id -> ``train``, ``val`` or ``test``; every class is in every part.

    Raises:
        FaultError: too few patients or sites of a class, a patient without site, or a part
            without a class.
    """
    _check_request(labels, folds, sites, seed)
    if folds > 1:
        splits = _rotate(_folds(labels, folds, sites, seed), folds)
    elif sites is None:
        splits = {"split_0": make_split(labels, seed)}
    else:
        places = _sites_by_class(labels, sites).values()
        count = min(SITE_FOLDS, *map(len, places))
        rotations = list(_rotate(_folds(labels, count, sites, seed), count).values())
        whole = [parts for parts in rotations if not _lacking(parts, labels)]
        splits = {"split_0": (whole or rotations)[0]}
    faults = Faults()
    for name, parts in splits.items():
        for part, label in _lacking(parts, labels):
            found = f"no patient of class '{label}', which has {_amount(label, labels, sites)}"
            expected = "every class in every part: fewer folds, another seed, or --splits"
            faults.add("class-missing", f"{name} [{part}]", found, expected)
    faults.stop("a new split")
    for name, parts in splits.items():
        check_split(parts, sites, where=name)
    return splits


def make_split(labels: dict[str, str], seed: int) -> dict[str, str]:
    """Case id -> part of a 60/20/20 split, stratified by label.

    Args:
        labels: case id -> label.
        seed: the split depends only on ids, labels and seed.

    Raises:
        FaultError: a class has too few patients to be in every part.
    """
    from sklearn.model_selection import train_test_split

    label, count = min(Counter(labels.values()).items(), key=lambda item: (item[1], item[0]))
    found = f"{count} patients of class '{label}'"
    expected = "enough for train, val and test; or give --splits"
    too_few = FaultError.of("too-few-patients", "a new split", found, expected)
    if count < 3:
        raise too_few
    cases = sorted(labels)
    try:
        rest, test = train_test_split(
            cases, test_size=0.2, random_state=seed, stratify=[labels[c] for c in cases]
        )
        train, val = train_test_split(
            rest, test_size=0.25, random_state=seed, stratify=[labels[c] for c in rest]
        )
    except ValueError as error:
        raise too_few from error
    chosen = {"train": train, "val": val, "test": test}
    return {case: part for part in PARTS for case in chosen[part]}


def _check_request(
    labels: dict[str, str], folds: int, sites: dict[str, str] | None, seed: int
) -> None:
    """FaultError if no split can be made."""
    faults = Faults()
    if folds != 1 and folds < 3:
        faults.add("folds", "a new split", f"{folds} folds", "1, or 3 and more")
    if not 0 <= seed < 2**32:
        faults.add("seed", "a new split", f"seed {seed}", "0 … 2³² − 1")
    if not labels:
        faults.add("too-few-patients", "a new split", "no patients", "3 or more of each class")
    without = sorted(case for case in labels if sites is not None and not sites.get(case))
    if without:
        found = f"{len(without)} of {len(labels)} patients without a site, first '{without[0]}'"
        faults.add("missing-site", "a new split", found, "a site for every patient")
    faults.stop("a new split")
    need = max(3, folds)
    if sites is not None:
        for label, places in _sites_by_class(labels, sites).items():
            if len(places) < need:
                found = f"class '{label}' with {_amount(label, labels, sites)}"
                expected = f"{need} sites or more, as a site is in one part only"
                faults.add("too-few-sites", "a new split", found, expected)
    elif folds > 1:
        for label, count in sorted(Counter(labels.values()).items()):
            if count < need:
                found = f"class '{label}' with {_amount(label, labels, sites)}"
                expected = f"one or more for each of {need} folds"
                faults.add("too-few-patients", "a new split", found, expected)
    faults.stop("a new split")


def _folds(
    labels: dict[str, str], count: int, sites: dict[str, str] | None, seed: int
) -> dict[str, int]:
    """Case id -> fold, stratified by label."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    cases = sorted(labels)
    groups = None if sites is None else [sites[case] for case in cases]
    kind = StratifiedKFold if sites is None else StratifiedGroupKFold
    splitter = kind(count, shuffle=True, random_state=seed)
    rounds = splitter.split(np.zeros(len(cases)), [labels[case] for case in cases], groups)
    return {cases[i]: fold for fold, (_, chosen) in enumerate(rounds) for i in chosen}


def _rotate(fold_of: dict[str, int], count: int) -> dict[str, dict[str, str]]:
    """Split -> case id -> part: fold k is the test part, fold k + 1 the validation part."""
    return {
        f"fold_{k}": {
            case: {k: "test", (k + 1) % count: "val"}.get(fold, "train")
            for case, fold in fold_of.items()
        }
        for k in range(count)
    }


def _sites_by_class(labels: dict[str, str], sites: dict[str, str]) -> dict[str, set[str]]:
    places: dict[str, set[str]] = defaultdict(set)
    for case, label in sorted(labels.items()):
        places[label].add(sites[case])
    return places


def _lacking(parts: dict[str, str], labels: dict[str, str]) -> list[tuple[str, str]]:
    """(part, class) for each class that is missing from a part."""
    held = {(part, labels[case]) for case, part in parts.items()}
    return [
        (part, label)
        for part in PARTS
        for label in sorted(set(labels.values()))
        if (part, label) not in held
    ]


def _amount(label: str, labels: dict[str, str], sites: dict[str, str] | None) -> str:
    """How many patients, and at how many sites, a class has."""
    text = f"{sum(other == label for other in labels.values())} patients"
    if sites is not None:
        text += f" at {len(_sites_by_class(labels, sites)[label])} sites"
    return text
