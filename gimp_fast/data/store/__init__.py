"""The packed feature store: all slides of a cohort in one file, windows in one contiguous read."""

from gimp_fast.data.store.packing import PackedSlide, range_fault, store_bytes, write_store
from gimp_fast.data.store.reader import STORE_DTYPES, FeatureStore

__all__ = [
    "STORE_DTYPES",
    "FeatureStore",
    "PackedSlide",
    "range_fault",
    "store_bytes",
    "write_store",
]
