"""Heatmaps of patients: runs the model, lays its weights over slides and genes, writes files."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
import xxhash

from gimp_fast import __version__
from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.files.atomic import write_json
from gimp_fast.heatmaps.attribution import ROLLOUT, attribute, describe
from gimp_fast.heatmaps.images import SlideImages
from gimp_fast.heatmaps.outputs import PatientMaps, write_genes, write_slide
from gimp_fast.inference.arrays import cohort_columns
from gimp_fast.inference.model import TrainedModel
from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.ops.packing import Bags

SUMMARY, SLIDE, GENES = "heatmaps.json", "slide.json", "genes.json"
GENE_FOLDER = "genes"
# What one patient may fail of without taking the others along.
_FAILURES = (GimpError, OSError, torch.OutOfMemoryError)


@dataclass(frozen=True)
class HeatmapOptions:
    """How heatmaps are made.

    Attributes:
        out: folder to write.
        attribution: one of ``heatmap_attribution.ATTRIBUTIONS``.
        top: patches that are listed, outlined and shown as the highest.
        geojson: ``"top"``, ``"all"`` or ``"none"``: patches that become polygons for QuPath.
        slide_images: folder of slide images; None draws tissue in grey.
        patch_size: side of a patch in pixels of level 0; None takes what is recorded.
        overwrite: make again what is finished.
    """

    out: Path
    attribution: str = ROLLOUT
    top: int = 16
    geojson: str = "top"
    slide_images: Path | None = None
    patch_size: float | None = None
    overwrite: bool = False

    def recorded(self, trained: TrainedModel) -> dict[str, Any]:
        """What a finished map depends on; one that was made otherwise is made again."""
        return {
            "gimp_fast": __version__,
            "weights": _digest(trained),
            "attribution": self.attribution,
            "top": self.top,
            "geojson": self.geojson,
            "slide_images": None if self.slide_images is None else str(self.slide_images),
            "patch_size": self.patch_size,
        }


def make_heatmaps(
    trained: TrainedModel,
    cohort: Cohort,
    case_ids: Sequence[str],
    options: HeatmapOptions,
    *,
    slide_ids: Sequence[str] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the maps of patients, each beside the others' failures.

    A slide is finished when its ``slide.json`` is written, which is last; finished ones of the same
    model and options are not made again.

    Args:
        trained: the model, in fp32.
        cohort: whose patients they are.
        case_ids: the patients, in this order.
        options: see there.
        slide_ids: write the maps of these slides alone; the model still reads all of a patient.
        log: is told a line a patient.

    Returns:
        What ``heatmaps.json`` holds: ``model``, ``attribution``, ``patients`` and ``failures``.

    Raises:
        GimpError: the model has no such attribution, no image folder, or features or genes that
            are not those of the model.
    """
    maker = _Maker(trained, cohort, options, slide_ids)
    failures: list[dict[str, str]] = []
    patients = _earlier(options.out, maker.settings)
    for number, case in enumerate(case_ids, start=1):
        begin = time.perf_counter()
        try:
            record, told = maker.patient(case)
        except _FAILURES as error:
            failures.append({"case_id": case, "error": " ".join(str(error).split())})
            log(f"{number}/{len(case_ids)} {case}: failed: {failures[-1]['error']}")
            continue
        known = {s["slide_id"]: s for s in patients.get(case, {}).get("slides", [])}
        known |= {s["slide_id"]: s for s in record["slides"]}
        patients[case] = record | {"slides": [known[name] for name in sorted(known)]}
        log(f"{number}/{len(case_ids)} {case}: {told}, {time.perf_counter() - begin:.1f} s")
    summary = {
        "model": {
            "method": trained.method,
            "source": str(trained.source),
            "trained_on": trained.trained_on.get("name"),
            "synthetic": trained.synthetic or cohort.synthetic,
            "classes": list(trained.classes),
        },
        "cohort": cohort.name,
        "attribution": maker.attribution,
        "settings": maker.settings,
        "patients": [patients[case] for case in sorted(patients)],
        "failures": failures,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / SUMMARY, summary, indent=1)
    return summary


class _Maker:
    """What all patients share."""

    def __init__(
        self,
        trained: TrainedModel,
        cohort: Cohort,
        options: HeatmapOptions,
        slide_ids: Sequence[str] | None,
    ):
        self.trained, self.cohort, self.options = trained, cohort, options
        self.slide_ids = None if slide_ids is None else set(slide_ids)
        self.images = None
        if options.slide_images is not None:
            self.images = SlideImages(options.slide_images)
        self.settings = options.recorded(trained)
        self.attribution = "gradient × input of genes"
        if trained.uses_slides:
            self.attribution = describe(trained, options.attribution)
            if cohort.feature_dim != trained.feature_dim:
                raise GimpError(
                    f"{cohort.path}: found features of {cohort.feature_dim} channels; expected "
                    f"{trained.feature_dim}, as the model was trained on"
                )
        self.columns = cohort_columns(trained, cohort) if trained.uses_genes else None

    def patient(self, case: str) -> tuple[dict[str, Any], str]:
        """Files of one patient: their record for the summary, and a line about them."""
        bag = None
        if self.trained.uses_slides and self.cohort.has_slides(case):
            bag = self.cohort.bag(case)
        slides = [] if bag is None else [s for s in bag.slides if self._wanted(s.slide_id)]
        folders = {s.slide_id: self.options.out / folder_name(s.slide_id) for s in slides}
        done = {name: self._finished(folder / SLIDE) for name, folder in folders.items()}
        genes_folder = self.options.out / GENE_FOLDER / folder_name(case)
        reads_genes = self.trained.uses_genes and self.cohort.has_expression(case)
        genes = self._finished(genes_folder / GENES) if reads_genes else None
        todo = [slide for slide in slides if done[slide.slide_id] is None]
        if (slides or genes) and not todo and (genes is not None or not reads_genes):
            record = next(r for r in (*done.values(), genes) if r is not None)["patient"]
            return record | {"slides": _records(done), "genes": _without(genes)}, "finished before"
        if bag is None and not reads_genes:
            raise GimpError(f"patient '{case}' has nothing of what the model reads")
        inputs = self._inputs(case)
        found = attribute(self.trained, inputs, self.options.attribution, give_up_patches=True)
        expression = None if inputs.genes is None else inputs.genes[0].cpu().numpy()
        del inputs  # up to hundreds of megabytes, which drawing does not need
        maps = PatientMaps(self.trained, self.cohort, bag, case, found, self.attribution)
        for slide in todo:
            record = self._fresh(folders[slide.slide_id], SLIDE)
            with _opened(self.images, slide.slide_id) as image:
                record |= write_slide(maps, slide, image, self.options, folders[slide.slide_id])
            done[slide.slide_id] = self._finish(folders[slide.slide_id] / SLIDE, record, maps)
        if reads_genes and genes is None:
            record = self._fresh(genes_folder, GENES)
            record |= write_genes(maps, expression, self.options, genes_folder)
            genes = self._finish(genes_folder / GENES, record, maps)
        patches = sum(slide.num_patches for slide in slides)
        told = f"{maps.title}; {len(slides)} slides, {patches:,} patches"
        return maps.record() | {"slides": _records(done), "genes": _without(genes)}, told

    def _wanted(self, slide_id: str) -> bool:
        return self.slide_ids is None or slide_id in self.slide_ids

    def _finished(self, file: Path) -> dict[str, Any] | None:
        """The record of files that were made by the same model with the same options."""
        if self.options.overwrite or not file.is_file():
            return None
        record = _read_json(file)
        return record if record.get("settings") == self.settings else None

    def _fresh(self, folder: Path, mark: str) -> dict[str, Any]:
        """An empty folder: what an earlier, other map left in it would contradict this one."""
        if (folder / mark).exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return {"folder": folder.relative_to(self.options.out).as_posix()}

    def _finish(self, file: Path, record: dict[str, Any], maps: PatientMaps) -> dict[str, Any]:
        record |= {"settings": self.settings, "patient": maps.record()}
        write_json(file, record, indent=1)
        return record

    def _inputs(self, case: str) -> PatientInputs:
        """One patient, on the model's device."""
        trained, cohort = self.trained, self.cohort
        has_slide = trained.uses_slides and cohort.has_slides(case)
        has_genes = trained.uses_genes and cohort.has_expression(case)
        patches = bags = genes = None
        if trained.uses_slides:
            patches = torch.empty(0, trained.feature_dim)
            if has_slide:
                patches = cohort.bag(case).tensor()
            bags = Bags.of_lengths([len(patches)] if has_slide else [])
        if trained.uses_genes:
            genes = torch.zeros(1, len(trained.gene_ids))
            if has_genes:
                values = cohort.expression([case])[:, self.columns]
                genes = torch.from_numpy(trained.scaler(values))
        presence = Presence.of([has_slide]), Presence.of([has_genes])
        return PatientInputs(patches, bags, genes, *presence).to(trained.device)


class _opened:
    """The slide's image for the time of a block; None without a folder or without the slide."""

    def __init__(self, images: SlideImages | None, slide_id: str):
        self._image = images and images.open(slide_id)

    def __enter__(self):
        return self._image

    def __exit__(self, *exception: object) -> None:
        if self._image is not None:
            self._image.close()


def folder_name(name: str) -> str:
    """A slide's or patient's id as the name of a folder, whatever characters it has."""
    quoted = quote(name, safe=" ()[]+,=@")
    return quoted if quoted.strip(". ") else quoted.replace(".", "%2E") + "%20"


def _records(done: dict[str, dict | None]) -> list[dict[str, Any]]:
    return [_without(record) for record in done.values() if record is not None]


def _without(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """A record as the summary holds it, which says settings and patient once."""
    return record and {k: v for k, v in record.items() if k not in ("settings", "patient")}


def _earlier(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Patients of an earlier call with the same model and options, by case id."""
    file = out / SUMMARY
    summary = _read_json(file) if file.is_file() else {}
    if summary.get("settings") != settings:
        return {}
    return {record["case_id"]: record for record in summary.get("patients", [])}


def _digest(trained: TrainedModel) -> str:
    digest = xxhash.xxh3_64()
    for name, tensor in sorted(trained.model.state_dict().items()):
        digest.update(name.encode("utf-8"))
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()))
    return digest.hexdigest()


def _read_json(file: Path) -> dict[str, Any]:
    """What the file holds; an empty record where it is damaged, which makes it again."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
