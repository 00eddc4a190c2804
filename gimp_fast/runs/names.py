"""The names of methods as papers write them; records and commands have the short ones."""

from __future__ import annotations

_TITLES = {
    "gimp": "GiMP", "abmil": "ABMIL", "dsmil": "DSMIL", "clam_sb": "CLAM-SB", "clam_mb": "CLAM-MB",
    "transmil": "TransMIL", "mean_pool": "Mean pooling", "snn": "SNN", "porpoise": "PORPOISE",
    "pathomic_fusion": "Pathomic Fusion", "mcat": "MCAT", "mgca": "MGCA", "biovil": "BioViL",
    "refers": "REFERS", "logistic_regression": "Logistic regression",
}  # fmt: skip


def method_title(method: str) -> str:
    """The method's name for readers; the short name of a method that is not of this package."""
    return _TITLES.get(method, method)
