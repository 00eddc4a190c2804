"""Options declared once: a field of a dataclass is also the flag of a command and its help text.

A command builds its parser from the dataclass that the Python function takes, so that names,
defaults, choices and help texts have one place. A leaf module that imports nothing heavy:
``--help`` does not wait for torch, numpy or pandas.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Options = TypeVar("Options")
_KEY = "option"


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    flag: str | None = None,
    parse: Callable[[str], Any] | None = None,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    group: str | None = None,
    const: Any = None,
) -> Any:
    """A dataclass field that is also an option of a command.

    Args:
        default: of the field. ``False`` makes a switch, ``True`` one with a ``--no-`` twin, a tuple
            makes an option of several values.
        help: shown by ``--help``; the documentation of the field.
        flag: on the command line; by default the name of the field, ``--with-dashes``.
        parse: from the text of one value, e.g. ``int`` or ``Path``.
        choices: texts that are accepted.
        metavar: placeholder in ``--help``.
        group: heading in ``--help``.
        const: value if the flag is given without one.
    """
    facts = {
        "help": help,
        "flag": flag,
        "type": parse,
        "choices": choices,
        "metavar": metavar,
        "group": group,
        "const": const,
    }
    return dataclasses.field(default=default, metadata={_KEY: facts})


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Give a parser the options of a dataclass, in the order of its fields."""
    groups = {group.title: group for group in parser._action_groups}
    for field in dataclasses.fields(options):
        if _KEY not in field.metadata:
            continue
        facts = dict(field.metadata[_KEY])
        group, flag, const = facts.pop("group"), facts.pop("flag"), facts.pop("const")
        if group is not None and group not in groups:
            groups[group] = parser.add_argument_group(group)
        target = parser if group is None else groups[group]
        arguments: dict[str, Any] = {k: v for k, v in facts.items() if v is not None}
        if field.default is False:
            arguments = {"action": "store_true", "help": facts["help"]}
        elif field.default is True:
            arguments |= {"action": argparse.BooleanOptionalAction, "default": True}
        elif field.default is dataclasses.MISSING:
            arguments["required"] = True
        else:
            arguments["default"] = field.default
        if isinstance(field.default, tuple):
            arguments["nargs"] = "+"
        elif const is not None:
            arguments |= {"nargs": "?", "const": const}
        flag = flag or "--" + field.name.replace("_", "-")
        target.add_argument(flag, dest=field.name, **arguments)


def read_options(arguments: argparse.Namespace, options: type[Options], **given: Any) -> Options:
    """The dataclass, from parsed arguments; ``given`` fills or replaces fields."""
    values = {}
    for field in dataclasses.fields(options):
        if _KEY in field.metadata:
            value = getattr(arguments, field.name)
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return options(**(values | given))
