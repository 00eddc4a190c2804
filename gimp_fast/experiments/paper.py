"""The rows of each table, the settings that make them, and the paper's own figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from gimp_fast.errors import GimpError, did_you_mean

LOGISTIC_REGRESSION = "logistic_regression"
PAPER = "the paper's own TCGA lung cohort: 946 patients, 190 of them for testing"
DELTAS = (0.2, 0.35, 0.5, 0.65, 0.8)
NO_PRETRAINING = "pretrain.epochs=0"
SLIDE_TRIPLETS = "pretrain.triplets=slide"
SLIDES, RNA, BOTH = "slide", "rna", "both"
# GiMP's own mixture with its gene classifier is off: tables mix by one rule for every method.
HEAD_ONLY = "model.fusion=head"
FALLBACK = "gimp_rna"  # the row that every method of both modalities falls back on


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
        method: a name from :func:`gimp_fast.models.available`, or ``LOGISTIC_REGRESSION``.
        overrides: settings on top of the configuration that all rows share.
        ours: whether it is GiMP, or a part of it.
        delta: the margin of the triplets, in the table that varies it.
        mixes: keys of a row of both modalities and of one of RNA, whose predictions are mixed as
            ``gimp_fast.experiments.fallback`` says; None for a row that is trained.
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


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Attributes:
        name: on the command line.
        about: its question, in a paragraph for readers who do not have the paper at hand.
        reference: key of the row that the others are compared with.
        probes: whether the table shows what pre-training taught the slide encoder.
    """

    name: str
    title: str
    about: str
    rows: tuple[Row, ...]
    reference: str = "gimp"
    probes: bool = False

    @property
    def reference_row(self) -> Row:
        return next(row for row in self.rows if row.key == self.reference)


def _row(section, modalities, key, title, *overrides, method=None, paper="", delta=None) -> Row:
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
    return Row(key, section, title, method, modalities, overrides, figure, ours, delta)


def _with_fallback(rows: Iterable[Row]) -> tuple[Row, ...]:
    """For each row of both modalities, one that falls back on RNA alone."""
    section = "Slides and RNA, with RNA alone as a fallback"
    changes = {"section": section, "overrides": (), "paper": None}
    return tuple(
        replace(row, key=f"{row.key}_fallback", mixes=(row.key, FALLBACK), **changes)
        for row in rows
        if row.modalities == BOTH
    )


def _table1() -> Experiment:
    slides = partial(_row, "Slides, no pre-training", SLIDES)
    genes = partial(_row, "RNA", RNA)
    both = partial(_row, "Slides and RNA, no pre-training", BOTH)
    pretrained = partial(_row, "Slides and RNA, pre-trained", BOTH)
    rows = (
        slides("mean_pool", "{}"),
        slides("logistic_regression_slide", "{} (mean of bag)", method=LOGISTIC_REGRESSION),
        slides("abmil", "{}", "model.gated=false", paper="0.7737 147/190"),
        slides("abmil_gated", "{}, gated", "model.gated=true", method="abmil"),
        slides("dsmil", "{}", paper="0.7566 143/189"),
        slides("clam_sb", "{}", paper="0.8519 161/189"),
        slides("clam_mb", "{}", paper="0.8889 168/189"),
        slides("transmil", "{}", paper="0.8836 167/189"),
        slides("gimp_slide_scratch", "{} without GroupMSA", NO_PRETRAINING, paper="0.8995 170/189"),
        genes("logistic_regression_rna", "{} (RNA)", method=LOGISTIC_REGRESSION),
        genes("snn", "{}"),
        genes("gimp_rna", "{}, RNA only (GroupMSA)"),
        both("logistic_regression_both", "{} (concatenation)", method=LOGISTIC_REGRESSION),
        both("porpoise", "{}", paper="0.9524 180/189"),
        both("pathomic_fusion", "{}", paper="0.9684 184/190"),
        both("mcat", "{}", paper="0.9632 183/190"),
        both("gimp_scratch", "{}, no pre-training", NO_PRETRAINING, paper="0.9737 185/190"),
        pretrained("mgca", "{}", paper="0.9105 173/190"),
        pretrained("biovil", "{}", paper="0.9316 177/190"),
        pretrained("refers", "{}", paper="0.9368 178/190"),
        pretrained("gimp", "{}", paper="0.9947 189/190"),
    )
    about = (
        "Which model tells the classes apart best: on slides alone, on RNA alone, and on both, "
        "trained from scratch or pre-trained first. Simple baselines that the paper does not have "
        "(mean pooling, logistic regression) show how much a deep model adds. In the last section "
        "every method of both modalities may fall back on the same model of RNA alone, by a weight "
        "that the validation patients choose: what slides add on top of RNA."
    )
    rows += _with_fallback(rows)
    return Experiment("table1", "Table 1: GiMP and other methods", about, rows)


def _table2() -> Experiment:
    scratch = partial(_row, "No pre-training", BOTH)
    pretrained = partial(_row, "Pre-trained, then fine-tuned on slides and RNA", BOTH)
    no_mpm = "pretrain.reconstruction_weight=0"
    rows = (
        scratch(
            "gimp_snn_scratch",
            "Aggregator + SNN in place of GroupMSA",
            "model.gene_encoder=snn",
            NO_PRETRAINING,
            paper="0.9684 184/190",
        ),
        scratch("gimp_scratch", "Aggregator + GroupMSA", NO_PRETRAINING, paper="0.9737 185/190"),
        pretrained(
            "gimp_mpm", "Aggregator + MPM", "pretrain.triplet_weight=0", paper="0.9579 182/190"
        ),
        pretrained(
            "gimp_slide_triplet",
            "Aggregator + Triplet",
            SLIDE_TRIPLETS,
            no_mpm,
            paper="0.9263 176/190",
        ),
        pretrained(
            "gimp_triplet", "Aggregator + GroupMSA + Triplet", no_mpm, paper="0.9526 181/190"
        ),
        pretrained("gimp", "Aggregator + GroupMSA + Triplet + MPM (GiMP)", paper="0.9974"),
    )
    about = (
        "What each part of GiMP is worth. MPM is masked patch modelling: pre-training rebuilds "
        "hidden patches. Triplet pulls patients of one class together, seen through slides alone, "
        "or through slides and RNA (with GroupMSA). The paper prints 0.9974 for the last row, "
        "which no number of 189 or 190 patients gives; its Table 1 has 0.9947 (189/190)."
    )
    return Experiment("table2", "Table 2: ablation", about, rows, probes=True)


def _fig2() -> Experiment:
    row = partial(_row, "Pre-trained on the training patients", BOTH)
    rows = (
        row("gimp", "(a) {}"),
        row("gimp_without_genes", "(b) {} without gene inducing", SLIDE_TRIPLETS),
        row("biovil", "(c) {}"),
        row("mgca", "(d) {}"),
    )
    about = (
        "What patients look like to the model right after pre-training, before it is fine-tuned. "
        "Each point is the vector of a patient (CLS_pat; in b that of the slide, CLS_img), placed "
        "in the plane by t-SNE. Classes that lie apart here are easy to tell apart afterwards. "
        "t-SNE shows neighbourhoods only, so the table measures the vectors themselves."
    )
    title = "Figure 2: patients after pre-training"
    return Experiment("fig2", title, about, rows, probes=True)


def _delta(deltas: Sequence[float]) -> Experiment:
    row = partial(_row, "GiMP", BOTH)
    rows = tuple(
        row(f"gimp_delta_{delta:g}", f"δ = {delta:g}", f"pretrain.margin={delta:g}", delta=delta)
        for delta in sorted(set(deltas))
    )
    about = (
        "Whether δ matters. It is the margin of the triplet loss: by how much patients of another "
        "class must be farther away than patients of the same class. The paper shows a curve "
        "without numbers and concludes that accuracy hardly depends on δ between 0.2 and 0.8."
    )
    reference = min(rows, key=lambda row: abs(row.delta - 0.8))  # the paper's choice
    title = "Supplement: the margin δ of the triplets"
    return Experiment("delta", title, about, rows, reference.key)


def _fusion() -> Experiment:
    rows = (
        _row("GiMP", SLIDES, "gimp_slide", "Slides only"),
        _row("GiMP", RNA, "gimp_rna", "RNA only"),
        _row("GiMP", BOTH, "gimp", "Slides and RNA"),
    )
    rows += _with_fallback(rows)
    about = (
        "Whether slides and RNA together are better than the better of the two alone, in the same "
        "model with all the pre-training that the modality permits; and whether they are so if "
        "they may fall back on RNA alone."
    )
    return Experiment("fusion", "Fusion: one modality and both", about, rows)


EXPERIMENTS = ("table1", "table2", "fig2", "delta", "fusion")


def experiment(name: str, deltas: Sequence[float] = DELTAS) -> Experiment:
    """The table of this name; ``deltas`` are the margins of ``"delta"``."""
    if name == "delta":
        return _delta(deltas)
    return {"table1": _table1, "table2": _table2, "fig2": _fig2, "fusion": _fusion}[name]()


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
