"""Micrometres per pixel that the description of a TIFF records: OME-XML, or the text of ImageJ."""

from __future__ import annotations

import re
from xml.parsers import expat

from gimp_fast.wsi.resolution import number

Sides = tuple[float | None, float | None]  # across, down
NONE: Sides = (None, None)
_MICROMETRES = {
    "pm": 1e-6, "ångström": 1e-4, "å": 1e-4, "nm": 1e-3, "nanometer": 1e-3,
    "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4, "dm": 1e5,
    "m": 1e6, "meter": 1e6, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
_TAG_MICROMETRES = {2: 25400.0, 3: 1e4}  # per unit of the tag ResolutionUnit: inch, centimetre


def is_ome(description: str) -> bool:
    """Whether the description of the first page is OME-XML."""
    return re.search(r"<(\w+:)?OME\b", description) is not None


def has_document_type(description: str) -> bool:
    """Whether XML declares a document type, whose entities may grow without limit; OME has none."""
    text = description.lstrip("\ufeff \t\r\n")
    return (
        text.startswith("<") and re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE) is not None
    )


def resolution_of(
    description: str, size: tuple[int, int], tags: Sides, unit: object
) -> tuple[Sides, str]:
    """Micrometres per pixel across and down, and a remark on a record that is not used.

    Args:
        description: of the first page.
        size: width and height of the image that is read, by which it is found in OME-XML.
        tags: of the page, XResolution and YResolution, in pixels per unit.
        unit: of the page, the tag ResolutionUnit.
    """
    if is_ome(description):
        found, remark = _of_ome(description, size)
        return (found, "") if None not in found else (_of_tags(tags, unit), remark)
    if description.startswith("ImageJ="):
        return _of_imagej(description, tags, unit)
    return _of_tags(tags, unit), ""


def _of_tags(tags: Sides, unit: object) -> Sides:
    micrometres = _TAG_MICROMETRES.get(unit)
    return NONE if micrometres is None or not all(tags) else _divided(micrometres, tags)


def _divided(micrometres: float, tags: Sides) -> Sides:
    return micrometres / tags[0], micrometres / tags[1]


def _of_imagej(description: str, tags: Sides, unit: object) -> tuple[Sides, str]:
    """ImageJ writes pixels per unit into the tags, and the unit into its text."""
    named = re.search(r"^unit=(.*)$", description, re.MULTILINE)
    if named is None:
        return _of_tags(tags, unit), ""
    micrometres = _micrometres(named[1])
    if micrometres is None or not all(tags):
        return NONE, f"a resolution in ImageJ's unit '{named[1].strip()[:20]}'"
    return _divided(micrometres, tags), ""


def _micrometres(unit: str) -> float | None:
    """Of a unit of length; None for pixels and what is no length."""
    text = unit.strip().replace(r"\u00B5", "u").replace("µ", "u").replace("μ", "u")
    return _MICROMETRES.get(text) or _MICROMETRES.get(text.lower())


def _of_ome(xml: str, size: tuple[int, int]) -> tuple[Sides, str]:
    """The record of the image of this size, or else of the only image."""
    if has_document_type(xml):
        return NONE, "OME-XML with a document type, which is not read"
    try:
        images = _pixels(xml)
    except expat.ExpatError as error:
        return NONE, f"OME-XML that cannot be read ({error})"
    same = [p for p in images if (p.get("SizeX"), p.get("SizeY")) == tuple(map(str, size))]
    if not same and len(images) != 1:
        return NONE, ""
    pixels, found = (same or images)[0], []
    for axis in "XY":
        value = number(pixels.get(f"PhysicalSize{axis}"))
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        micrometres = _micrometres(unit)
        if value is not None and micrometres is None:
            return NONE, f"PhysicalSize{axis} {value:g} in the unit '{unit[:20]}'"
        found.append(None if value is None else value * micrometres)
    return (found[0], found[1]), ""


def _pixels(xml: str) -> list[dict[str, str]]:
    """The attributes of each element ``Pixels``. No tree is built, and no entity is declared."""
    found: list[dict[str, str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] == "Pixels":
            found.append(attributes)

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.Parse(xml.strip().removeprefix("\ufeff").encode("utf-8", "replace"), True)
    return found
