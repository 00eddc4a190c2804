"""Every rate, area, calibration measure, interval and paired test, each defined once.

Of classes: ``rates``, ``calibration``, ``comparison``. Of times to an event: ``kaplan_meier``,
``breslow``, ``survival``, ``survival_predictions``. For both: ``intervals``. Of measurements:
``group_effects``.
"""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.evaluation import (
        breslow,
        calibration,
        comparison,
        intervals,
        kaplan_meier,
        rates,
        survival,
        survival_predictions,
    )

__all__ = [
    "breslow", "calibration", "comparison", "intervals", "kaplan_meier", "rates", "survival",
    "survival_predictions",
]  # fmt: skip

__getattr__, __dir__ = later(__name__, {name: f"{__name__}.{name}" for name in __all__})
