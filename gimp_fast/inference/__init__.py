"""Trained models on new patients: loaded from runs and exports, run, exported."""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.inference.ensemble import Ensemble, export_ensemble
    from gimp_fast.inference.export import export_model
    from gimp_fast.inference.hub import push_export
    from gimp_fast.inference.loading import load
    from gimp_fast.inference.model import TrainedModel
    from gimp_fast.inference.options import PredictOptions
    from gimp_fast.inference.predictions import predict_cohort

__all__ = [
    "Ensemble",
    "PredictOptions",
    "TrainedModel",
    "export_ensemble",
    "export_model",
    "load",
    "predict_cohort",
    "push_export",
]

# Loaded when first used, so that the options of commands import without torch.
__getattr__, __dir__ = later(
    __name__,
    {
        "Ensemble": "gimp_fast.inference.ensemble",
        "PredictOptions": "gimp_fast.inference.options",
        "TrainedModel": "gimp_fast.inference.model",
        "export_ensemble": "gimp_fast.inference.ensemble",
        "export_model": "gimp_fast.inference.export",
        "load": "gimp_fast.inference.loading",
        "predict_cohort": "gimp_fast.inference.predictions",
        "push_export": "gimp_fast.inference.hub",
    },
)
