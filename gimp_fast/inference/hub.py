"""Exports on the Hugging Face hub: published with their card, and fetched as ``hf://…``."""

from __future__ import annotations

import re
from pathlib import Path

from gimp_fast.errors import GimpError
from gimp_fast.files.hub import HubAddress, hub_address, upload
from gimp_fast.files.json_file import read_json
from gimp_fast.inference.card import FOLDER_ASKED, LICENCE_ASKED
from gimp_fast.inference.ensemble import members_of
from gimp_fast.inference.export import check_files
from gimp_fast.runs.hub import HUB_FILES
from gimp_fast.runs.layout import CARD, ENSEMBLE, EXPORT_CONFIG, EXPORT_FILES, WEIGHTS

# As the hub spells them, e.g. cc-by-nc-4.0; it refuses those that it does not know.
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_TAGS = ("computational-pathology", "whole-slide-images", "rna-seq", "survival-analysis")
_READS = {"both": _TAGS[:3], "slide": _TAGS[:2], "rna": (_TAGS[0], _TAGS[2])}


def push_export(folder: str | Path, repository: str, licence: str, *, public: bool = False) -> str:
    """Publish an exported model or ensemble on the Hugging Face hub; returns the commit's URL.

    Its files go there as they are, so that what is fetched predicts the same bits. The card is that
    of the export, with the licence and the address in it, and what the hub reads at its head.

    Args:
        folder: what ``export_model``, ``export_ensemble`` or ``predict --export`` wrote.
        repository: ``organisation/name``, with ``hf://`` before it or not; made if needed.
        licence: the hub's short name of it, such as ``cc-by-nc-4.0``. It is yours to know: that of
            the data and of the patch encoder decide it.
        public: whether a new repository is open to all. One that is there stays as it is.

    Raises:
        GimpError: no export there, or a damaged one; a name or licence that is none; or the hub
            refuses.
    """
    folder, address = Path(folder), _address(repository)
    if hub_address(folder):
        raise GimpError(f"found {folder}; expected an export on this machine to push")
    if not _LICENCE.fullmatch(licence):
        raise GimpError(
            f"licence: found {licence[:80]!a}; expected the hub's short name of one, such as mit, "
            "cc-by-nc-4.0 or other"
        )
    members = _checked_members(folder)
    names = [CARD]
    if members == [folder]:
        names = list(EXPORT_FILES)
    else:
        names += [ENSEMBLE, *(f"{m.name}/{name}" for m in members for name in EXPORT_FILES)]
    files: dict[str, Path | bytes] = {name: folder / name for name in names}
    for name in names:
        if Path(name).name == CARD:
            files[name] = _with_licence(folder / name, licence).encode("utf-8")
    card = files[CARD].decode("utf-8").replace(FOLDER_ASKED, str(address))
    files[CARD] = (_head(card, members, licence) + card).encode("utf-8")
    message = f"Publish {'a model' if members == [folder] else f'{len(members)} models'}"
    return upload(address, files, private=not public, message=message, replaced=HUB_FILES)


def _address(repository: str) -> HubAddress:
    address = hub_address(repository if repository.startswith("hf:") else f"hf://{repository}")
    if address is None or address.revision:
        raise GimpError(
            f"found {repository[:200]!a}; expected ORGANISATION/NAME, without a revision"
        )
    return address


def _checked_members(folder: Path) -> list[Path]:
    """The folders of an export, each compared with its checksums: damage is not published."""
    members = members_of(folder)
    for member in members:
        if not (member / WEIGHTS).is_file():
            raise GimpError(
                f"{member}: found no {WEIGHTS}; expected an export. `gimp-fast predict --run RUN "
                "--export DIR` makes one of a run"
            )
        check_files(member)
    return members


def _with_licence(card: Path, licence: str) -> str:
    """A card with the licence where it asks for one, unless somebody has written it there."""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise GimpError(f"{card}: cannot be read ({error}); export the model again") from error
    return text.replace(LICENCE_ASKED, f"`{licence}`, says who published them.")


def _head(card: str, members: list[Path], licence: str) -> str:
    """The YAML that the hub reads: licence and library, methods and inputs as tags.

    Nothing of a card that has it already, by the hand of who exported the model.
    """
    if card.startswith("---\n"):
        if f"\nlicense: {licence}\n" not in card:
            raise GimpError(f"{CARD}: found a head of its own; expected `license: {licence}` in it")
        return ""
    configs = [read_json(member / EXPORT_CONFIG) for member in members]
    tags = [tag for config in configs for tag in _READS.get(config.get("modalities"), _TAGS[:1])]
    if any((config.get("target") or {}).get("kind") == "survival" for config in configs):
        tags.append(_TAGS[3])
    tags += [re.sub(r"[^a-z0-9_-]", "", str(config.get("method")).lower()) for config in configs]
    lines = [f"- {tag}" for tag in dict.fromkeys(filter(None, tags))]
    return "\n".join(
        ["---", f"license: {licence}", "library_name: gimp_fast", "tags:", *lines, "---", "", ""]
    )
