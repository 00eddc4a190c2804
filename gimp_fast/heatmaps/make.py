"""Heatmaps of patients: runs the model, lays its weights over slides and genes, writes files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from gimp_fast.heatmaps.attribution import attribute, describe
from gimp_fast.heatmaps.options import HeatmapOptions
from gimp_fast.heatmaps.patient_maps import PatientMaps, write_genes, write_slide
from gimp_fast.heatmaps.protocols import ExplainedModel, ImageFolder, SlideImage
from gimp_fast.runs import layout
from gimp_fast.runs.records import read_object_or_empty

# Errors that end one patient's maps but not those of the others.
_FAILURES = (GimpError, OSError, torch.OutOfMemoryError)


def make_heatmaps(
    trained: ExplainedModel,
    cohort: Cohort,
    case_ids: Sequence[str],
    options: HeatmapOptions,
    *,
    images: ImageFolder | None = None,
    slide_ids: Sequence[str] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the maps of patients; a patient who fails does not stop the others.

    A slide is finished when its ``slide.json`` is there, which is written last. Finished maps of
    the same model and options are not made again.

    Args:
        trained: the model, in fp32.
        cohort: whose patients they are.
        case_ids: the patients, in this order.
        options: see there.
        images: of slides; None draws tissue in grey.
        slide_ids: write only the maps of these slides; the model still reads whole patients.
        log: receives one line for each patient.

    Returns:
        What ``heatmaps.json`` holds: ``model``, ``attribution``, ``patients`` and ``failures``.

    Raises:
        GimpError: the model has no such attribution, or the features or genes of the cohort are
            not those of the model.
    """
    maker = _Maker(trained, cohort, options, images, slide_ids)
    failures: list[dict[str, str]] = []
    patients = _earlier(options.out, maker.settings)
    for number, case in enumerate(case_ids, start=1):
        begin = time.perf_counter()
        try:
            record, outcome = maker.patient(case)
        except _FAILURES as error:
            failures.append({"case_id": case, "error": " ".join(str(error).split())})
            log(f"{number}/{len(case_ids)} {case}: failed: {failures[-1]['error']}")
            continue
        slides = {s["slide_id"]: s for s in patients.get(case, {}).get("slides", [])}
        slides |= {s["slide_id"]: s for s in record["slides"]}
        patients[case] = record | {"slides": [slides[name] for name in sorted(slides)]}
        log(f"{number}/{len(case_ids)} {case}: {outcome}, {time.perf_counter() - begin:.1f} s")
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
    write_json(options.out / layout.MAPS, summary, indent=1)
    return summary


class _Maker:
    """Makes the maps of one patient after the other."""

    def __init__(
        self,
        trained: ExplainedModel,
        cohort: Cohort,
        options: HeatmapOptions,
        images: ImageFolder | None,
        slide_ids: Sequence[str] | None,
    ):
        self.trained, self.cohort, self.options = trained, cohort, options
        self.slide_ids = None if slide_ids is None else set(slide_ids)
        self.images = images
        self.image_folder = None if images is None else images.folder
        self.settings = self._settings()
        self.attribution = "gradient × input of genes"
        if trained.uses_slides:
            self.attribution = describe(trained, options.attribution)
        self.reader = trained.reader_of(cohort, trained.columns_in(cohort))

    def _settings(self) -> dict[str, Any]:
        """What a finished map depends on; a map of other settings is made again."""
        options, folder = self.options, self.image_folder
        return {
            "gimp_fast": __version__,
            "weights": _digest(self.trained),
            "attribution": options.attribution,
            "top": options.top,
            "geojson": options.geojson,
            "slide_images": None if folder is None else str(folder),
            "patch_size": options.patch_size,
        }

    def patient(self, case: str) -> tuple[dict[str, Any], str]:
        """The patient's record for the summary, and what happened in words; writes their files."""
        bag = None
        if self.trained.uses_slides and self.cohort.has_slides(case):
            bag = self.cohort.bag(case)
        slides = [] if bag is None else [s for s in bag.slides if self._wanted(s.slide_id)]
        folders = {s.slide_id: self.options.out / folder_name(s.slide_id) for s in slides}
        done = {name: self._finished(folder / layout.SLIDE_MAP) for name, folder in folders.items()}
        genes_folder = self.options.out / layout.GENE_MAPS / folder_name(case)
        reads_genes = self.trained.uses_genes and self.cohort.has_expression(case)
        genes = self._finished(genes_folder / layout.GENE_MAP) if reads_genes else None
        todo = [slide for slide in slides if done[slide.slide_id] is None]
        if (slides or genes) and not todo and (genes is not None or not reads_genes):
            record = next(r for r in (*done.values(), genes) if r is not None)["patient"]
            return record | {"slides": _records(done), "genes": _without(genes)}, "finished before"
        if bag is None and not reads_genes:
            raise GimpError(f"patient '{case}' has nothing that the model reads")
        inputs = self.reader.inputs([case]).to(self.trained.device)
        found = attribute(self.trained, inputs, self.options.attribution, give_up_patches=True)
        expression = None if inputs.genes is None else inputs.genes[0].cpu().numpy()
        del inputs  # up to hundreds of megabytes, which drawing does not need
        maps = PatientMaps(self.trained, self.cohort, bag, case, found, self.attribution)
        for slide in todo:
            folder = folders[slide.slide_id]
            record = self._fresh(folder, layout.SLIDE_MAP)
            with _opened(self.images, slide.slide_id) as image:
                record |= write_slide(maps, slide, image, self.options, folder, self.image_folder)
            done[slide.slide_id] = self._finish(folder / layout.SLIDE_MAP, record, maps)
        if reads_genes and genes is None:
            record = self._fresh(genes_folder, layout.GENE_MAP)
            record |= write_genes(maps, expression, self.options, genes_folder)
            genes = self._finish(genes_folder / layout.GENE_MAP, record, maps)
        patches = sum(slide.num_patches for slide in slides)
        outcome = f"{maps.title}; {len(slides)} slides, {patches:,} patches"
        return maps.record() | {"slides": _records(done), "genes": _without(genes)}, outcome

    def _wanted(self, slide_id: str) -> bool:
        return self.slide_ids is None or slide_id in self.slide_ids

    def _finished(self, file: Path) -> dict[str, Any] | None:
        """The record of finished files, if the same model and options made them; else None."""
        if self.options.overwrite:
            return None
        record = read_object_or_empty(file)
        return record if record.get("settings") == self.settings else None

    def _fresh(self, folder: Path, mark: str) -> dict[str, Any]:
        """The start of a record, and its folder without the files of an earlier, other map."""
        if (folder / mark).exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return {"folder": folder.relative_to(self.options.out).as_posix()}

    def _finish(self, file: Path, record: dict[str, Any], maps: PatientMaps) -> dict[str, Any]:
        record |= {"settings": self.settings, "patient": maps.record()}
        write_json(file, record, indent=1)
        return record


@contextmanager
def _opened(images: ImageFolder | None, slide_id: str) -> Iterator[SlideImage | None]:
    """The slide's image, closed after the block; None if there is none."""
    image = None if images is None else images.open(slide_id)
    try:
        yield image
    finally:
        if image is not None:
            image.close()


def folder_name(name: str) -> str:
    """A safe name of a folder for the id of a slide or patient, whatever its characters."""
    quoted = quote(name, safe=" ()[]+,=@")
    return quoted if quoted.strip(". ") else quoted.replace(".", "%2E") + "%20"


def _records(done: dict[str, dict | None]) -> list[dict[str, Any]]:
    return [_without(record) for record in done.values() if record is not None]


def _without(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """A record without settings and patient, which the summary holds once for all."""
    return record and {k: v for k, v in record.items() if k not in ("settings", "patient")}


def _earlier(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Case id -> record, of an earlier call with the same model and options."""
    summary = read_object_or_empty(out / layout.MAPS)
    if summary.get("settings") != settings:
        return {}
    return {record["case_id"]: record for record in summary.get("patients", [])}


def _digest(trained: ExplainedModel) -> str:
    digest = xxhash.xxh3_64()
    for name, tensor in sorted(trained.model.state_dict().items()):
        digest.update(name.encode("utf-8"))
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()))
    return digest.hexdigest()
