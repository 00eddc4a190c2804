"""Slides, genes and labels on disk, joined into cohorts."""

from gimp_fast.data.cohort import Bag, Cohort, open_cohort

__all__ = ["Bag", "Cohort", "open_cohort"]
