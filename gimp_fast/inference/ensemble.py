"""Several trained models as one: the mean of their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from gimp_fast.errors import GimpError, counted
from gimp_fast.files.atomic import new_folder, write_json, write_text
from gimp_fast.files.json_file import read_json
from gimp_fast.files.safe_text import markdown
from gimp_fast.inference.card import LOADING
from gimp_fast.inference.export import check_place, write_export
from gimp_fast.inference.model import TrainedModel
from gimp_fast.inference.same_columns import check_same_columns
from gimp_fast.pages.display import SYNTHETIC, shown
from gimp_fast.runs.hub import local_copy
from gimp_fast.runs.layout import CARD, ENSEMBLE, EXPORT_FILES, WEIGHTS, member_name

if TYPE_CHECKING:
    import pandas as pd

ENSEMBLE_VERSION = 1

_CARD = """\
# Ensemble of {count} models → {classes}

Its prediction is the mean of its members' predictions. Each member is a model of its own, with a
card of its own; results of one member are not those of the ensemble. For research, and **not for
clinical use**.

{members}

{loading}"""


class Ensemble:
    """Models of the same target, and of the same genes where they read any.

    Args:
        members: one or more.
        source: where they come from; errors name it.

    Attributes:
        members: the models.
        classes: as of each member.
        gene_ids: in the order in which ``predict`` takes them; empty if no member reads genes.

    Raises:
        GimpError: no member, or members of other columns or genes.
    """

    def __init__(self, members: Sequence[TrainedModel], source: Path):
        self.members, self.source = tuple(members), source
        if not self.members:
            raise GimpError(f"{source}: found no model; expected one or more")
        self.classes: tuple[str, ...] = self.members[0].classes
        genes = {member.gene_ids: member for member in self.members if member.uses_genes}
        self.gene_ids: tuple[str, ...] = next(iter(genes), ())
        check_same_columns(self.members)
        if len(genes) > 1:
            one, other = list(genes.values())[:2]
            raise GimpError(
                f"{other.source}: found other genes than in {one.source}; expected the same, in "
                "the same order. With most_variable_genes each split chooses its own"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of ``predict``, as of each member."""
        return self.members[0].columns

    @property
    def synthetic(self) -> bool:
        """Whether a member was trained on generated patients."""
        return any(member.synthetic for member in self.members)

    def predict(
        self,
        patches: Sequence[np.ndarray | Tensor | None] | None = None,
        genes: np.ndarray | pd.DataFrame | None = None,
        covariates: pd.DataFrame | None = None,
    ) -> np.ndarray:
        """Mean predictions, (B, columns) float32; see :meth:`TrainedModel.predict`."""
        found = [member.predict(patches, genes, covariates) for member in self.members]
        return np.mean(found, axis=0, dtype=np.float64).astype(np.float32)

    def __repr__(self) -> str:
        methods = ", ".join(sorted({member.method for member in self.members}))
        return f"<Ensemble of {len(self.members)}: {methods} -> {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        facts = {
            "methods": sorted({member.method for member in self.members}),
            "genes": len(self.gene_ids) or None,
            "predicts": list(self.columns),
            "source": self.source,
        }
        title = f"Ensemble of {counted(len(self.members), 'model')}"
        return shown(title, facts, SYNTHETIC * self.synthetic)


def export_ensemble(
    members: Sequence[TrainedModel], out: str | Path, *, overwrite: bool = False
) -> None:
    """Write models as one folder: an export of each, and a card; all of it or nothing.

    Args:
        members: see :class:`Ensemble`.
        out: folder to write; new or empty.
        overwrite: replace an ensemble that is there.

    Raises:
        GimpError: they do not belong together, the folder holds something else, or it cannot be
            written.
    """
    out, ensemble = Path(out), Ensemble(members, Path(out))
    check_place(out, overwrite, _other_than_ensemble, "an ensemble")
    names = [member_name(number) for number in range(len(members))]
    facts = {"ensemble_version": ENSEMBLE_VERSION, "members": names}
    with new_folder(out, replace=overwrite) as folder:
        for name, member in zip(names, ensemble.members, strict=True):
            (folder / name).mkdir()
            write_export(member, folder / name)
        write_json(folder / ENSEMBLE, facts | {"classes": list(ensemble.classes)}, indent=2)
        write_text(folder / CARD, _card(ensemble, names))


def _card(ensemble: Ensemble, names: Sequence[str]) -> str:
    lines = [
        f"- [{name}]({name}/{CARD}): {markdown(member.method)}, trained on "
        f"'{markdown(member.trained_on['name'])}', split {markdown(member.trained_on['split'])}, "
        f"seed {member.facts.get('training', {}).get('seed', 'not recorded')}"
        for name, member in zip(names, ensemble.members, strict=True)
    ]
    if ensemble.synthetic:
        lines.insert(0, "> **SYNTHETIC.** Trained on generated patients.\n")
    classes = ", ".join(map(markdown, ensemble.columns))
    return _CARD.format(
        count=len(names), classes=classes, members="\n".join(lines), loading=LOADING
    )


def _other_than_ensemble(folder: Path) -> str:
    if not (folder / ENSEMBLE).is_file():
        return f"no {ENSEMBLE}"
    others = []
    for path in folder.iterdir():
        if path.name in (ENSEMBLE, CARD):
            continue
        inside = {file.name for file in path.iterdir()} if path.is_dir() else set()
        if WEIGHTS not in inside:
            others.append(path.name)
        others += [f"{path.name}/{name}" for name in inside - set(EXPORT_FILES)]
    return ", ".join(sorted(others)[:5])


def members_of(path: str | Path) -> list[Path]:
    """The folders of an ensemble's members; the path itself for a run or an exported model.

    Of ``hf://ORGANISATION/NAME`` they are in the hub's cache.

    Raises:
        GimpError: a damaged ensemble, or one that cannot be fetched.
    """
    path = local_copy(path)
    file = path / ENSEMBLE
    if not file.is_file():
        return [path]
    facts = read_json(file)
    version = facts.get("ensemble_version") if isinstance(facts, dict) else None
    if version != ENSEMBLE_VERSION:
        raise GimpError(f"{file}: found version {version!r:.20}; expected {ENSEMBLE_VERSION}")
    names = facts.get("members")
    count = len(names) if isinstance(names, list) else 0
    if not count or names != [member_name(number) for number in range(count)]:
        raise GimpError(f"{file}: found members {names!r:.80}; expected {member_name(0)}, …")
    for name in names:
        if not (path / name / WEIGHTS).is_file():
            raise GimpError(f"{path / name}: found no {WEIGHTS}; expected a member of {file}")
    return [path / name for name in names]
