"""Templates of HTML pages; a name that a template uses and nobody gave is an error."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template


def get_template(name: str, *packages: str) -> Template:
    """The template of that name; it, and what it includes, is looked for in these packages.

    What is in none of them, such as ``style.css``, is that of this room.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, "gimp_fast.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
