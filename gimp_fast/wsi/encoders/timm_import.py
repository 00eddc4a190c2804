"""timm, beside a torchvision whose compiled part may not load."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

from gimp_fast.errors import DAMAGE_ERRORS, GimpError, one_line

# What `import torchvision` declares gradients or shapes for without asking whether it is there.
_SCHEMAS = tuple(
    f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
)
_declared: list[torch.library.Library] = []  # kept: the declarations end with their library


def mend_torchvision() -> bool:
    """Whether torchvision's operators had to be declared, so that it can be imported.

    PyPI's torchvision is compiled against the CUDA build of torch. Beside a CPU build its
    operators do not load, and ``import torchvision`` stops with "operator torchvision::nms does
    not exist". timm and torchmetrics import it for other parts, which work without operators. Here
    they are declared without code: the import passes, and who calls one gets torch's error that
    it has no implementation. A torchvision that fits is left alone.
    """
    spec = None if "torchvision" in sys.modules else importlib.util.find_spec("torchvision")
    if _declared or spec is None or spec.origin is None or _loads(Path(spec.origin).parent):
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
    return True


def _loads(folder: Path) -> bool:
    """Whether torchvision's library of operators loads, as `import torchvision` tries it."""
    for file in (
        path for ending in ("so", "pyd", "dylib") for path in folder.glob(f"_C*.{ending}")
    ):
        try:
            torch.ops.load_library(file)
        except OSError:
            continue
        return True
    return False


def import_timm(wanted_by: str) -> ModuleType:
    """The module timm.

    Args:
        wanted_by: what needs it, for the message.

    Raises:
        GimpError: it is not installed, or cannot be imported.
    """
    try:
        mend_torchvision()
        return importlib.import_module("timm")
    except (ImportError, *DAMAGE_ERRORS) as error:
        advice = "pip install 'gimp-fast[wsi]'"
        raise GimpError(f"{wanted_by} needs timm ({one_line(error)}): {advice}") from error
