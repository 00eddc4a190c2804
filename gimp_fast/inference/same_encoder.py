"""Whether patches were encoded by the network that a model was trained with."""

from __future__ import annotations

import re

from gimp_fast.errors import GimpError

# `gimp-fast extract` ends the name with digits of a checksum of the weights; others do not.
_WITH_DIGEST = re.compile(r".+-[0-9a-f]{8}")


def check_encoder(here: str | None, in_training: str | None, where: str, model: str) -> None:
    """GimpError if both encoders are recorded with their weights, and these differ.

    Other tools record a name alone, which says less: a difference of names is a caution.

    Args:
        here: the encoder of the cohort.
        in_training: that of the model's cohort.
        where: the cohort, for the message.
        model: the model, for the message.
    """
    if here == in_training or not all(map(_with_digest, (here, in_training))):
        return
    raise GimpError(
        f"{where}: found features of the encoder '{here}'; expected those of '{in_training}', as "
        f"the model of {model} was trained on: the numbers of other weights mean other things. "
        "Extract these slides with that encoder and its weights"
    )


def _with_digest(encoder: str | None) -> bool:
    return encoder is not None and _WITH_DIGEST.fullmatch(encoder) is not None
