"""Features of other weights are refused; names without a checksum are left to the cautions."""

from __future__ import annotations

import pytest

import gimp_fast
from gimp_fast.errors import GimpError
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.inference.same_encoder import check_encoder

UNI, OTHER = "uni-01234567", "uni-89abcdef"


@pytest.mark.parametrize(
    ("here", "there"),
    [(UNI, UNI), (UNI, None), (None, UNI), (UNI, "uni"), ("resnet50", UNI), ("a", "b"),
     (UNI, "RANDOM-WEIGHTS-uni-seed0")],
)  # fmt: skip
def test_what_may_be_the_same_passes(here, there):
    check_encoder(here, there, "cohort", "run")


def test_other_weights_are_refused():
    with pytest.raises(GimpError, match=f"found features of the encoder '{UNI}'; .*'{OTHER}'"):
        check_encoder(UNI, OTHER, "cohort", "run")


def test_prediction_refuses_a_cohort_of_other_weights(run_of, cohort):
    trained = gimp_fast.load(run_of("abmil", "slide"))
    trained.trained_on["encoder"], cohort.encoder = UNI, OTHER
    with pytest.raises(GimpError, match="the numbers of other weights mean other things"):
        predict_cohort([trained], cohort)
