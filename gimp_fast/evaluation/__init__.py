"""Every rate, area, calibration measure, interval and paired test, each defined once."""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.evaluation import calibration, comparison, intervals, rates

__all__ = ["calibration", "comparison", "intervals", "rates"]

__getattr__, __dir__ = later(__name__, {name: f"{__name__}.{name}" for name in __all__})
