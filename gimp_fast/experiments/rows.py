"""What a table is made of: its rows, the settings that make them, and how rows are chosen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from gimp_fast.errors import GimpError, did_you_mean

# Plain baselines, which no model of the package is.
LOGISTIC_REGRESSION, RIDGE_COX = "logistic_regression", "ridge_cox"
PLAIN = (LOGISTIC_REGRESSION, RIDGE_COX)
NO_PRETRAINING = "pretrain.epochs=0"
ALL_SPLITS = "all splits"
SLIDES, RNA, BOTH = "slide", "rna", "both"
NEITHER = "none"  # of a baseline that reads covariates alone
# GiMP's own mixture with its gene classifier is off: tables mix by one rule for every method.
HEAD_ONLY = "model.fusion=head"


@dataclass(frozen=True)
class PaperFigure:
    """Accuracy as the paper prints it, and the counts that give it, if any do.

    The paper mixes denominators: some rows are shares of 189 patients (its validation set), others
    of 190 (its test set).
    """

    printed: str
    counts: str | None = None

    @property
    def value(self) -> float:
        return float(self.printed)

    def __str__(self) -> str:
        return f"{self.printed} ({self.counts})" if self.counts else self.printed


@dataclass(frozen=True)
class Row:
    """One row of a table, and how its models are trained.

    Attributes:
        key: short name, for folders and ``--only``.
        method: a name from :func:`gimp_fast.models.available`, or of a plain baseline.
        overrides: settings on top of the configuration that all rows share.
        ours: whether it is GiMP, or a part of it.
        delta: the margin of the triplets, in the table that varies it.
        covariates: whether it reads the clinical covariates of the cohort, too.
        versus: key of the row that it is compared with, if it is not the reference of the table.
        mixes: keys of a row of both modalities and of one that it falls back on; their predictions
            are mixed (``classes.fallback``, ``survival.fallback``). None for a row that is trained.
    """

    key: str
    section: str
    title: str
    method: str
    modalities: str
    overrides: tuple[str, ...] = ()
    paper: PaperFigure | None = None
    ours: bool = False
    delta: float | None = None
    mixes: tuple[str, str] | None = None
    covariates: bool = False
    versus: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A table, or a figure with one.

    Attributes:
        name: on the command line.
        about: its question, in a paragraph for readers who do not have the paper at hand.
        reference: key of the row that the others are compared with.
        of_survival: whether it is about survival, and not about classes.
        probes: whether the table shows what pre-training taught the slide encoder.
    """

    name: str
    title: str
    about: str
    rows: tuple[Row, ...]
    reference: str = "gimp"
    probes: bool = False
    of_survival: bool = False

    @property
    def reference_row(self) -> Row:
        return next(row for row in self.rows if row.key == self.reference)


def make_row(
    section: str,
    modalities: str,
    key: str,
    title: str,
    *overrides: str,
    method: str | None = None,
    paper: str = "",
    **more: Any,
) -> Row:
    """A row; its key is its method, or begins with it. ``paper`` is "accuracy counts".

    In the title, ``{}`` stands for the name of the method.
    """
    # Not above: the models load torch, for which --help does not wait.
    from gimp_fast.runs.method_titles import method_title

    ours = key.startswith("gimp")
    method = method or ("gimp" if ours else key)
    title = title.format(method_title(method))
    figure = PaperFigure(*paper.split()) if paper else None
    if method == "gimp" and modalities == BOTH:
        overrides = (*overrides, HEAD_ONLY)
    return Row(key, section, title, method, modalities, overrides, figure, ours, **more)


def with_fallback(rows: Iterable[Row], fallback: str, section: str) -> tuple[Row, ...]:
    """For each row of both modalities, one that falls back on another row, given its key."""
    changes = {"section": section, "overrides": (), "paper": None}
    return tuple(
        replace(row, key=f"{row.key}_fallback", mixes=(row.key, fallback), **changes)
        for row in rows
        if row.modalities == BOTH
    )


def chosen_rows(experiments: Iterable[Experiment], only: Sequence[str]) -> frozenset[str]:
    """Keys of the rows that ``--only`` names by key or by method; all rows if it names none.

    A method stands for its rows that are trained; a row that mixes two brings both.

    Raises:
        GimpError: these tables have no row of such a name.
    """
    rows = {row.key: row for table in experiments for row in table.rows}
    chosen, unknown = set(), []
    for name in only:
        of_method = {k for k, row in rows.items() if row.method == name and not row.mixes}
        found = {name} & rows.keys() or of_method
        chosen |= found
        unknown += [] if found else [name]
    if unknown:
        near = did_you_mean(unknown[0], [*rows, *(row.method for row in rows.values())])
        raise GimpError(f"--only: found {', '.join(unknown)}; the rows are {', '.join(rows)}{near}")
    chosen = chosen or set(rows)
    return frozenset(chosen.union(*(rows[key].mixes or () for key in chosen)))


def chosen_splits(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Splits of a cohort that match a pattern, in the cohort's order; all if there is none.

    Raises:
        GimpError: a pattern matches no split.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = did_you_mean(pattern, names)
            raise GimpError(f"--splits: found '{pattern}'; the cohort has {', '.join(names)}{near}")
    return [n for n in names if not patterns or any(fnmatchcase(n, p) for p in patterns)]


def split_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """``random_0, random_1, site_0`` -> ``{"random": [...], "site": [...]}``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"[_\-.]?\d+$", "", name) or name, []).append(name)
    return groups


def heading_of(name: str) -> str:
    """``random`` -> ``random splits``; ``all splits`` if the name says nothing else."""
    anonymous = name.lower() in ("split", "splits", "fold")
    return ALL_SPLITS if anonymous else f"{name} splits"
