"""Labels and splits from csv files: read in the layouts of other projects, or made."""

from gimp_fast.data.tables.labels import LABEL_COLUMN, LabelRow, read_cases, read_labels
from gimp_fast.data.tables.new_splits import (
    check_split,
    make_split,
    make_splits,
    shared_sites,
    sites_from_table,
)
from gimp_fast.data.tables.splits import ReadSplit, read_splits, split_files

__all__ = [
    "LABEL_COLUMN",
    "LabelRow",
    "ReadSplit",
    "check_split",
    "make_split",
    "make_splits",
    "read_cases",
    "read_labels",
    "read_splits",
    "shared_sites",
    "sites_from_table",
    "split_files",
]
