"""From a run folder to figures and one self-contained page. Reads files only; knows no model."""

from gimp_fast.report.html import write_report

__all__ = ["write_report"]
