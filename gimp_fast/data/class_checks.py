"""What classes, parts and hospitals can do to a result: counts, and cautions in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gimp_fast.data.names import PARTS, site_of
from gimp_fast.errors import counted

Counts = dict[str, dict[str, int]]  # part -> class -> patients
# The hospital tells the class if it does so for this share of the patients, both of those it calls
# a class and of those who are of it.
_TOLD = 0.9
_ONE_CLASS = 0.95  # share of patients at hospitals of a single class
_LARGEST = 0.9  # of a class: a larger one is guessed well without the hospital


def count_classes(label_of: Mapping[str, str], part_of: Mapping[str, str]) -> Counts:
    """How many patients each part has of each class that any part has."""
    labels = sorted({label_of[case] for case in part_of})
    counts = {part: dict.fromkeys(labels, 0) for part in PARTS}
    for case, part in part_of.items():
        counts[part][label_of[case]] += 1
    return counts


def counts_text(counts: Counts) -> str:
    """``train 24 (12 LUAD, 12 LUSC), val 8 (8 LUAD, 0 LUSC), test 8 (…)``."""
    return ", ".join(
        f"{part} {sum(of_part.values())} ({', '.join(f'{n} {k}' for k, n in of_part.items())})"
        for part, of_part in counts.items()
    )


def split_cautions(counts: Counts) -> Iterator[str]:
    """Sentences on the parts of a split that lack a class which another part has."""
    if only := _only_class(counts):
        yield f"{only}: there is nothing to tell apart, so training on this split stops"
    for part, of_part in counts.items():
        if sum(of_part.values()) and (lack := _lack(part, counts)):
            yield f"{lack}: {_MEANS[part]}"


def not_learnable(counts: Counts) -> str | None:
    """Why a model cannot learn the classes of a split, in words; None if it can."""
    return _only_class(counts) or _lack("train", counts)


def _only_class(counts: Counts) -> str | None:
    labels = counts["train"]
    return f"all its patients are '{next(iter(labels))}'" if len(labels) == 1 else None


def _lack(part: str, counts: Counts) -> str | None:
    absent = [label for label, n in counts[part].items() if not n]
    if not absent:
        return None
    places = "; ".join(
        f"'{label}' has "
        + " and ".join(f"{n} in {other}" for other in counts if (n := counts[other][label]))
        for label in absent
    )
    total, present = sum(counts[part].values()), [k for k, n in counts[part].items() if n]
    if len(present) > 1 or not total:
        return f"{part} has no patient of {_names(absent)} ({places})"
    who = f"all {total} {part} patients are" if total > 1 else f"the only {part} patient is"
    return f"{who} '{present[0]}' ({places})"


_MEANS = {
    "train": "no model can learn a class that it never sees, so training on this split stops",
    "val": "the validation AUC is undefined, and the chosen epoch may be a poor one",
    "test": "the test AUC is undefined, and the accuracy says nothing about the missing class",
}


def class_cautions(label_of: Mapping[str, str]) -> Iterator[str]:
    """Sentences on classes with too few patients for training, validation and test."""
    for label, count in sorted(Counter(label_of.values()).items()):
        if count < len(PARTS):
            yield (
                f"class '{label}' has {counted(count, 'patient')}: too few to be in train, val "
                "and test"
            )


def modality_cautions(
    label_of: Mapping[str, str], has: Mapping[str, Iterable[str]]
) -> Iterator[str]:
    """Sentences on classes whose patients all lack a modality that others have.

    Args:
        label_of: case id -> class.
        has: name of a modality -> the patients who have it.
    """
    total = Counter(label_of.values())
    for modality, cases in has.items():
        count = Counter(label_of[case] for case in set(cases) & label_of.keys())
        lacking = sorted(total.keys() - count.keys())
        if count and lacking:
            yield (
                f"no patient of {_names(lacking)} has {modality}, and "
                f"{sum(count.values())} of the other classes have: a model can see the class by "
                "what is missing"
            )


def sites_of_barcodes(cases: Iterable[str]) -> dict[str, str]:
    """case id -> tissue source site, for the ids that are TCGA barcodes."""
    return {case: site for case in cases if (site := site_of(case))}


def site_cautions(label_of: Mapping[str, str], site_of_case: Mapping[str, str]) -> Iterator[str]:
    """Sentences on classes that a patient's hospital gives away.

    The class of a patient is guessed from the others at the same hospital: the commonest of their
    classes. So a hospital with one patient says nothing, and chance is no confounding.

    Args:
        label_of: case id -> class.
        site_of_case: case id -> hospital, where it is known.
    """
    cases = sorted(label_of.keys() & site_of_case.keys())
    at_site: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        at_site[site_of_case[case]][label_of[case]] += 1
    known = [case for case in cases if at_site[site_of_case[case]].total() > 1]
    pairs = [(label_of[c], _commonest_other(at_site[site_of_case[c]], label_of[c])) for c in known]
    labels = sorted({label for label, _ in pairs})
    told = [label for label in labels if _is_told(label, pairs)]
    sites = {site_of_case[case] for case in known}
    one_class = [case for case in known if len(at_site[site_of_case[case]]) == 1]
    largest = max(Counter(truth for truth, _ in pairs).values(), default=0)
    if len(one_class) >= _ONE_CLASS * len(known) and largest <= _LARGEST * len(known):
        told = labels
    if not told:
        return
    hits = sum(truth == guess for truth, guess in pairs)
    which = "the class" if len(told) == len(labels) else f"who is {_names(told, 'or')}"
    yield (
        f"hospital and class go together. The other patients of a hospital tell {which}: right for "
        f"{hits} of {len(pairs)} patients, where the largest class has {largest}; "
        f"{len(one_class)} of them are at hospitals of a single class ({len(sites)} hospitals with "
        "two patients or more). A model may learn the hospital (scanner, stain, laboratory) "
        "instead of the disease, and no split of these patients can show which"
    )


def cohort_cautions(
    label_of: Mapping[str, str],
    has: Mapping[str, Iterable[str]],
    sites: Mapping[str, str],
    *,
    by_barcode: bool,
) -> list[str]:
    """All cautions about a cohort as a whole.

    Args:
        label_of, has, sites: as above; patients without a class do not count.
        by_barcode: whether the hospitals are codes of TCGA's barcodes.
    """
    label_of = {case: label for case, label in label_of.items() if label}
    of_sites = list(site_cautions(label_of, sites))
    if by_barcode:
        note = "(TCGA gives a hospital another code for each study)"
        of_sites = [f"{text} {note}" for text in of_sites]
    return [*class_cautions(label_of), *modality_cautions(label_of, has), *of_sites]


def _commonest_other(at_site: Counter[str], own: str) -> str | None:
    """The commonest class of the others at a hospital; None if two are equally common."""
    others = (at_site - Counter([own])).most_common(2)
    tied = len(others) > 1 and others[0][1] == others[1][1]
    return None if tied or not others else others[0][0]


def _is_told(label: str, pairs: Sequence[tuple[str, str | None]]) -> bool:
    """Whether (class, guess) of patients agree on who is of this class."""
    of_class = [guess for truth, guess in pairs if truth == label]
    guessed = [truth for truth, guess in pairs if guess == label]
    if not guessed or len(of_class) > _LARGEST * len(pairs):
        return False
    both = sum(guess == label for guess in of_class)
    return min(both / len(of_class), both / len(guessed)) >= _TOLD


def _names(labels: Sequence[str], word: str = "and") -> str:
    quoted = [f"'{label}'" for label in labels]
    if len(quoted) == 1:
        return quoted[0]
    return f"{', '.join(quoted[:-1])} {word} {quoted[-1]}"
