"""A run folder as figures and one self-contained page. Reads only files and knows no model."""

from gimp_fast.report.html import write_report
from gimp_fast.report.plots import (
    plot_attention,
    plot_confusion,
    plot_curves,
    plot_roc,
    plot_survival,
)

__all__ = [
    "plot_attention",
    "plot_confusion",
    "plot_curves",
    "plot_roc",
    "plot_survival",
    "write_report",
]


def __dir__() -> list[str]:
    return sorted(__all__)
