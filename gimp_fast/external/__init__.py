"""A trained model on a labelled cohort that it has not seen: whether it holds elsewhere."""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.external.document import write_validation
    from gimp_fast.external.options import ValidateOptions
    from gimp_fast.external.result import Validation
    from gimp_fast.external.validating import validate_model

__all__ = ["ValidateOptions", "Validation", "validate_model", "write_validation"]

# Loaded when first used, so that the options of the command import without torch.
__getattr__, __dir__ = later(
    __name__,
    {
        "ValidateOptions": "gimp_fast.external.options",
        "Validation": "gimp_fast.external.result",
        "validate_model": "gimp_fast.external.validating",
        "write_validation": "gimp_fast.external.document",
    },
)
