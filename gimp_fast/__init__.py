"""GiMP: gene-induced multimodal pre-training for image-omic classification.

Importing the package is cheap: torch, triton and the native library load when they are first used.
"""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast import (
        data,
        errors,
        evaluation,
        external,
        heatmaps,
        inference,
        losses,
        models,
        nn,
        ops,
        report,
        runs,
        targets,
        training,
        viewer,
        wsi,
    )
    from gimp_fast.data import Cohort, open_cohort
    from gimp_fast.errors import GimpError
    from gimp_fast.external import validate_model
    from gimp_fast.inference import TrainedModel, load
    from gimp_fast.training import TrainConfig, load_config
    from gimp_fast.verbs import check_cohort, prepare_cohort, train_model

__version__ = "0.1.0"
__all__ = [
    "Cohort",
    "GimpError",
    "TrainConfig",
    "TrainedModel",
    "__version__",
    "check_cohort",
    "data",
    "errors",
    "evaluation",
    "external",
    "heatmaps",
    "inference",
    "load",
    "load_config",
    "losses",
    "models",
    "nn",
    "open_cohort",
    "ops",
    "prepare_cohort",
    "report",
    "runs",
    "targets",
    "train_model",
    "training",
    "validate_model",
    "viewer",
    "wsi",
]
# Where the names are that are no packages or modules below this one.
_HOMES = {
    "Cohort": "data",
    "GimpError": "errors",
    "TrainConfig": "training",
    "TrainedModel": "inference",
    "check_cohort": "verbs",
    "load": "inference",
    "load_config": "training",
    "open_cohort": "data",
    "prepare_cohort": "verbs",
    "train_model": "verbs",
    "validate_model": "external",
}

__getattr__, __dir__ = later(
    __name__, {name: f"{__name__}.{_HOMES.get(name, name)}" for name in __all__}
)
