"""Heatmaps of patients: runs the model, lays its weights over slides and genes, writes files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import xxhash

from gimp_fast.data import Cohort
from gimp_fast.data.bag import Bag, SlideEntry
from gimp_fast.errors import GimpError, counted
from gimp_fast.files.atomic import write_json
from gimp_fast.heatmaps.attribution import attribute, describe
from gimp_fast.heatmaps.each_patient import of_each
from gimp_fast.heatmaps.gene_symbols import symbols_of
from gimp_fast.heatmaps.one_target import explained_for
from gimp_fast.heatmaps.options import HeatmapOptions
from gimp_fast.heatmaps.patient_maps import PatientMaps, write_genes, write_slide
from gimp_fast.heatmaps.protocols import ExplainedModel, ImageFolder
from gimp_fast.heatmaps.records import facts_of, made_by
from gimp_fast.heatmaps.scales import COLOURS
from gimp_fast.runs import layout
from gimp_fast.runs.map_records import read_finished, read_maps


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
    trained = explained_for(trained, options.target)
    maker = _Maker(trained, cohort, options, images, slide_ids)
    summary = {} if options.overwrite else read_maps(options.out)
    is_same = summary.get("settings") == maker.settings
    known = summary.get("patients", []) if is_same else []
    patients = {record["case_id"]: record for record in known}
    made, failures = of_each(case_ids, maker.patient, log)
    for case, record in made.items():
        slides = [*patients.get(case, {}).get("slides", []), *record["slides"]]
        newest = {slide["slide_id"]: slide for slide in slides}
        patients[case] = record | {"slides": [newest[name] for name in sorted(newest)]}
    summary = {
        "model": facts_of(trained, cohort),
        "cohort": cohort.name,
        "attribution": maker.attribution,
        "colours": maker.colours,
        "settings": maker.settings,
        "patients": [patients[case] for case in sorted(patients)],
        "failures": failures,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / layout.MAPS, summary, indent=1)
    return summary


class _Maker:
    """Makes the maps of one patient after the other.

    Attributes:
        settings: what a finished map depends on; a map of other settings is made again.
        attribution: what the weights are, in words.
        colours: what the colours are, in words.
    """

    def __init__(
        self,
        trained: ExplainedModel,
        cohort: Cohort,
        options: HeatmapOptions,
        images: ImageFolder | None,
        slide_ids: Sequence[str] | None,
    ):
        self.trained, self.cohort, self.options = trained, cohort, options
        self.slide_ids, self.images = slide_ids, images
        self.settings = {
            **made_by(trained, options.attribution),
            "top": options.top,
            "geojson": options.geojson,
            "slide_images": None if images is None else str(images.folder),
            "patch_size": options.patch_size,
            "scale": options.scale,
            "geojson_origin": options.geojson_origin,
        }
        self.symbols: tuple[str, ...] = ()
        if trained.uses_genes:
            genes = trained.gene_ids, trained.gene_names
            self.symbols = symbols_of(*genes, cohort, options.gene_symbols)
            self.settings["gene_symbols"] = xxhash.xxh3_64_hexdigest(
                "\n".join(self.symbols).encode("utf-8")
            )
        self.colours = COLOURS[options.scale]
        self.attribution = "gradient × input of genes"
        if trained.uses_slides:
            self.attribution = describe(trained, options.attribution)
        self.reader = trained.reader_of(cohort, trained.columns_in(cohort))

    def patient(self, case: str) -> tuple[dict[str, Any], str]:
        """The patient's record for the summary, and what happened in words; writes their files."""
        trained, cohort, out = self.trained, self.cohort, self.options.out
        bag = cohort.bag(case) if trained.uses_slides and cohort.has_slides(case) else None
        reads_genes = trained.uses_genes and cohort.has_expression(case)
        slides = {s.slide_id: s for s in (bag.slides if bag else ()) if self._is_wanted(s.slide_id)}
        # The record of each slide, and of the genes (None), which is written after all other files.
        files = {name: out / folder_name(name) / layout.SLIDE_MAP for name in slides}
        if reads_genes:
            files[None] = out / layout.GENE_MAPS / folder_name(case) / layout.GENE_MAP
        records = {name: self._finished(file) for name, file in files.items()}
        if records and all(records.values()):
            patient, outcome = next(iter(records.values()))["patient"], "finished before"
        elif bag is None and not reads_genes:
            raise GimpError(f"patient '{case}' has nothing that the model reads")
        else:
            maps = self._maps(case, bag)
            for name, file in files.items():
                records[name] = records[name] or self._write(slides.get(name), file, maps)
            patches = sum(slide.num_patches for slide in slides.values())
            patient = maps.record()
            outcome = f"{maps.title}; {counted(len(slides), 'slide')}, "
            outcome += counted(patches, "patch", "patches")
        # The summary holds settings and patient once for all.
        brief = {
            name: {k: v for k, v in record.items() if k not in ("settings", "patient")}
            for name, record in records.items()
        }
        genes = brief.pop(None, None)
        if (patient["attention"] or {}).get("flat"):
            outcome += "; attention is effectively flat"
        return patient | {"slides": list(brief.values()), "genes": genes}, outcome

    def _is_wanted(self, slide_id: str) -> bool:
        return self.slide_ids is None or slide_id in self.slide_ids

    def _finished(self, file: Path) -> dict[str, Any] | None:
        """The record of finished files, if the same model and options made them; else None."""
        record = {} if self.options.overwrite else read_finished(file, self.options.out)
        return record if record.get("settings") == self.settings else None

    def _maps(self, case: str, bag: Bag | None) -> PatientMaps:
        """The weights of a patient, without the patches: hundreds of megabytes for a long slide."""
        inputs = self.reader.inputs([case]).to(self.trained.device)
        found = attribute(self.trained, inputs, self.options.attribution, give_up_patches=True)
        expression = None if inputs.genes is None else inputs.genes[0].cpu().numpy()
        facts = self.attribution, self.symbols
        return PatientMaps(self.trained, self.cohort, case, bag, expression, found, *facts)

    def _write(self, slide: SlideEntry | None, file: Path, maps: PatientMaps) -> dict[str, Any]:
        """The record of a slide, or of the genes, whose folder is written anew."""
        folder = file.parent
        if file.exists():  # of another model, or with other options
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if slide is None:
            record = write_genes(maps, self.options, folder)
        else:
            image = self.images and self.images.open(slide.slide_id)
            with closing(image) if image else nullcontext():
                record = write_slide(maps, slide, image, self.options, folder)
            if self.images and image is None:
                missing = f"{self.images.folder} has no image of this slide"
                record["notes"].append(f"{missing}: tissue is drawn in grey.")
        place = {"folder": folder.relative_to(self.options.out).as_posix()}
        record = place | record | {"settings": self.settings, "patient": maps.record()}
        write_json(file, record, indent=1)
        return record


def folder_name(name: str) -> str:
    """A safe name of a folder for the id of a slide or patient, whatever its characters."""
    quoted = quote(name, safe=" ()[]+,=@")
    return quoted if quoted.strip(". ") else quoted.replace(".", "%2E") + "%20"
