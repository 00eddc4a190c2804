"""Templates of HTML pages; a name that a template uses and nobody gave is an error."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

_SHARED = "gimp_fast.pages"  # colours.css


def get_template(name: str, *packages: str) -> Template:
    """The template of that name.

    It, and what it includes, is looked for in these packages, and then among what all pages share.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, _SHARED)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
