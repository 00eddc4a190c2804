"""Folders of maps that `gimp-fast heatmap` wrote: their patients and slides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gimp_fast.errors import GimpError
from gimp_fast.runs import layout
from gimp_fast.runs.map_records import read_maps


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Files(_Record):
    """A folder of files, below the folder of maps."""

    folder: str
    files: dict[str, str]


class Slide(Files):
    """A slide's record in ``heatmaps.json``."""

    slide_id: str
    num_patches: int = 0
    patch_size: float = 0.0
    unit: str = "px"
    num_marked: int = 0
    highest_times_even: float | None = None
    notes: list[str] = []


class Attention(_Record):
    """How much the weights of a patient's patches differ."""

    highest_times_even: float
    flat: bool


class Case(_Record):
    """A patient's record in ``heatmaps.json``."""

    case_id: str
    prediction: str | None = None
    label: str | None = None
    truth: str | None = None
    probabilities: dict[str, float] = {}
    attention: Attention | None = None
    slides: list[Slide] = []
    genes: Files | None = None


class Model(_Record):
    """The model whose maps they are."""

    method: str = ""
    trained_on: str | None = None
    synthetic: bool = False
    target: str | None = None
    classes: list[str] = []


class MapFolder(_Record):
    """A folder of maps.

    Attributes:
        path: of the folder.
        attribution: what the weights of patches are, in words.
        settings: how the maps were made.
        patients: by case id, in the order of the file.
    """

    path: Path
    model: Model = Model()
    cohort: str = ""
    attribution: str = ""
    settings: dict[str, Any] = {}
    patients: list[Case] = []

    @property
    def name(self) -> str:
        """A short name: that of the run for ``RUN/heatmaps``."""
        whole = self.path.resolve()
        return whole.parent.name if whole.name == layout.HEATMAPS else whole.name

    def file(self, record: Files, kind: str) -> Path | None:
        """The path of a record's file of some kind, such as ``"patches"``; None without one."""
        name = record.files.get(kind)
        return None if name is None else self.path / record.folder / name


def open_maps(path: str | Path) -> MapFolder:
    """The maps in a folder that ``heatmap`` wrote, or in ``RUN/heatmaps`` of a run.

    Raises:
        GimpError: there are none, the file is damaged, or it names files outside the folder.
    """
    path = Path(path)
    places = (path, path / layout.HEATMAPS)
    folder = next((place for place in places if (place / layout.MAPS).is_file()), None)
    if folder is None:
        raise GimpError(
            f"{path}: found no {layout.MAPS}; expected a folder that `gimp-fast heatmap` wrote, or "
            "a run with such maps"
        )
    file = folder / layout.MAPS
    summary = read_maps(folder)
    try:
        maps = MapFolder.model_validate({**summary, "path": folder})
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise GimpError(
            f"{file}: found {place or 'its content'} in another shape; expected what `gimp-fast "
            "heatmap` writes, which writes it anew with --overwrite"
        ) from None
    if not maps.patients:
        raise GimpError(
            f"{file}: found no patient that can be read; expected the maps of one or more, as "
            "`gimp-fast heatmap` writes them"
        )
    return maps
