"""A run folder as figures and one self-contained page. Reads only files and knows no model."""

from gimp_fast.report.html import write_report

__all__ = ["write_report"]


def __dir__() -> list[str]:
    return sorted(__all__)
