"""How a cohort is predicted. Imports nothing heavy: ``--help`` reads it too."""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass

from gimp_fast.errors import GimpError
from gimp_fast.options import add_options, option

PARTS = ("train", "val", "test")  # a test compares them with those of cohorts
PRECISIONS = ("fp32", "bf16", "fp16")
_COMPUTING = "computing"


@dataclass(frozen=True)
class PredictOptions:
    """How to go through a cohort; results differ by rounding alone.

    Attributes:
        batch_size: most patients of a batch.
        max_patches: most patches of a batch; a patient with more is a batch of their own. At
            100,000 patches of 1,024 channels a batch takes 0.4 GB in fp32.
        workers: processes that read ahead; 0 for none.
        progress: show a bar.
    """

    batch_size: int = option(16, "patients of a batch (default: %(default)s)", group=_COMPUTING)
    max_patches: int = option(
        100_000,
        "patches of a batch; a larger slide is a batch of its own (default: %(default)s)",
        group=_COMPUTING,
    )
    workers: int = option(0, "processes that read ahead (default: none)", group=_COMPUTING)
    progress: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("max_patches", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise GimpError(f"{name}: found {getattr(self, name)}; expected {least} or more")


def add_patients(parser: ArgumentParser) -> None:
    """Add ``--cases``, ``--split`` and ``--part``: which patients of a cohort."""
    group = parser.add_argument_group("patients (default: all)").add_argument
    group(
        "--cases",
        nargs="+",
        default=(),
        metavar="ID_OR_FILE",
        help="ids, or files of ids: one a line, or a table with a column case_id",
    )
    group("--split", metavar="NAME", help="patients of this split; default: the only one")
    group("--part", choices=PARTS, help="patients of one part of the split")


def add_computing(parser: ArgumentParser) -> Callable[..., Action]:
    """Add ``--device``, ``--precision``, ``--backend`` and those of :class:`PredictOptions`.

    Returns what adds another argument to their group.
    """
    add = parser.add_argument_group(_COMPUTING).add_argument
    add("--device", default="auto", help="default: a GPU if there is one")
    add("--precision", choices=PRECISIONS, help="default: as in training")
    add("--backend", default="auto", help="of the operators, see `gimp-fast doctor`")
    add_options(parser, PredictOptions)
    return add
