"""The rows of the table of survival: plain baselines, published models, and GiMP."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from gimp_fast.experiments.rows import (
    BOTH,
    NEITHER,
    NO_PRETRAINING,
    RIDGE_COX,
    RNA,
    SLIDES,
    Experiment,
    Row,
    make_row,
    with_fallback,
)

SURVIVAL = "survival"
# The loss that MCAT, PORPOISE and SurvPath published, and nothing besides their network.
PUBLISHED = ("survival.loss=nll", "survival.linear=false")
LINEAR = ("survival.loss=cox", "survival.linear=true")
NETWORK = ("survival.loss=cox", "survival.linear=false", NO_PRETRAINING)
WEIGHTED = "weighted=true"  # as the linear part of a model, see CoxSettings
_LINEAR = "Weighted ridge Cox (linear part alone)"
WITH_FALLBACK = "Slides and RNA, with ridge Cox as a fallback"
ALL_WITH_FALLBACK = "Slides, RNA and covariates, with ridge Cox as a fallback"
OF_SLIDES, OF_RNA, OF_BOTH, OF_ALL = "gimp_slide", "gimp_rna", "gimp", "gimp_covariates"


def _with_same_rule(row: Row) -> str:
    """GiMP with a fallback, too; that itself is compared with GiMP without one."""
    return row.versus if row.key == f"{row.versus}_fallback" else f"{row.versus}_fallback"


def survival_experiment() -> Experiment:
    """C-indices of all methods, each compared with GiMP of the same inputs."""
    cox = partial(make_row, "Plain baselines", method=RIDGE_COX)
    slides = partial(make_row, "Slides", SLIDES, versus=OF_SLIDES)
    genes = partial(make_row, "RNA", RNA, versus=OF_RNA)
    both = partial(make_row, "Slides and RNA", BOTH, versus=OF_BOTH)
    everything = partial(
        make_row, "Slides, RNA and covariates", BOTH, covariates=True, versus=OF_ALL
    )
    rows = (
        cox(NEITHER, "ridge_cox_covariates", "Cox, covariates", covariates=True, versus=OF_ALL),
        cox(SLIDES, "ridge_cox_slide", "Ridge Cox, mean of bag", versus=OF_SLIDES),
        cox(RNA, "ridge_cox_rna", "Ridge Cox, RNA", versus=OF_RNA),
        cox(BOTH, "ridge_cox_both", "Ridge Cox, sum of both", versus=OF_BOTH),
        cox(BOTH, "ridge_cox_all", "Ridge Cox, sum of all three", covariates=True, versus=OF_ALL),
        cox(SLIDES, "ridge_cox_linear_slide", f"{_LINEAR}, slides", WEIGHTED, versus=OF_SLIDES),
        cox(BOTH, "ridge_cox_linear_both", f"{_LINEAR}, both", WEIGHTED, versus=OF_BOTH),
        cox(
            BOTH,
            "ridge_cox_linear_all",
            f"{_LINEAR}, all three",
            WEIGHTED,
            covariates=True,
            versus=OF_ALL,
        ),
        slides("abmil", "{}", "model.gated=true", *PUBLISHED),
        slides("transmil", "{}", "model.dim=128", *PUBLISHED),
        slides("abmil_linear", "{}, linear part", "model.gated=true", *LINEAR, method="abmil"),
        slides("gimp_slide_network", "{}, network alone", *NETWORK),
        slides("gimp_slide_scratch", "{}, no pre-training", NO_PRETRAINING, *LINEAR),
        slides("gimp_slide", "{}", *LINEAR),
        genes("snn", "{}", *PUBLISHED),
        genes("gimp_rna", "{} (GroupMSA)", *LINEAR),
        both("porpoise", "{}", *PUBLISHED),
        both("mcat", "{}", *PUBLISHED),
        both("survpath", "{}", *PUBLISHED),
        both("porpoise_linear", "{}, linear part", *LINEAR, method="porpoise"),
        both("gimp_network", "{}, network alone", *NETWORK),
        both("gimp_scratch", "{}, no pre-training", NO_PRETRAINING, *LINEAR),
        both("gimp", "{}", *LINEAR),
        everything("porpoise_covariates", "{}", *PUBLISHED, method="porpoise"),
        everything("mcat_covariates", "{}", *PUBLISHED, method="mcat"),
        everything("survpath_covariates", "{}", *PUBLISHED, method="survpath"),
        everything("porpoise_linear_covariates", "{}, linear part", *LINEAR, method="porpoise"),
        everything("gimp_scratch_covariates", "{}, no pre-training", NO_PRETRAINING, *LINEAR),
        everything("gimp_covariates", "{}", *LINEAR),
    )
    plain = [row for row in rows if row.method != RIDGE_COX]
    mixed = with_fallback([r for r in plain if not r.covariates], "ridge_cox_both", WITH_FALLBACK)
    mixed += with_fallback([r for r in plain if r.covariates], "ridge_cox_all", ALL_WITH_FALLBACK)
    rows += tuple(replace(row, versus=_with_same_rule(row)) for row in mixed)
    about = (
        "Which model puts patients in the order of their events: from slides, from RNA, from both, "
        "and with clinical covariates. Cox's model with a ridge penalty, of the mean of the bag, "
        "of RNA and of covariates, is what a deep model has to beat. A linear part is such a model "
        "within a network, which learns what is left. Each row is compared with GiMP of the same "
        "inputs."
    )
    return Experiment(SURVIVAL, "Survival", about, rows, OF_BOTH, of_survival=True)
