"""Options declared once: a field of a dataclass is also the flag of a command and its help text.

A command builds its parser from the dataclass that the Python function takes, so that names,
defaults, choices and help texts have one place. This module imports nothing heavy: ``--help`` does
not wait for torch, numpy or pandas.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from gimp_fast.errors import GimpError

Options = TypeVar("Options")
_KEY = "option"


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    flag: str | None = None,
    parse: Callable[[str], Any] | None = None,
    choices: Iterable[str] | Mapping[str, Any] | None = None,
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
        choices: texts that are accepted; a text -> value mapping if the field holds other values.
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


def add_options(
    parser: argparse.ArgumentParser, options: type, *, group: str | None = None
) -> None:
    """Give a parser the options of a dataclass, in the order of its fields.

    Args:
        parser: takes the options.
        options: the dataclass.
        group: heading of the options that name no group.
    """
    default_group = group
    groups = {group.title: group for group in parser._action_groups}
    for field in dataclasses.fields(options):
        if _KEY not in field.metadata:
            continue
        facts = dict(field.metadata[_KEY])
        group, flag, const = facts.pop("group"), facts.pop("flag"), facts.pop("const")
        group = group or default_group
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
    values = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(options)
        if _KEY in field.metadata
    }
    return make_options(options, **(values | given))


def make_options(options: type[Options], **values: Any) -> Options:
    """The dataclass, from values as a person writes them.

    A single value is accepted for an option of several, text for a path, and the text of a choice
    for its value.

    Raises:
        GimpError: a value that is not one of the choices.
    """
    facts = {field.name: field.metadata.get(_KEY) for field in dataclasses.fields(options)}
    several = {f.name for f in dataclasses.fields(options) if isinstance(f.default, tuple)}
    for name, value in values.items():
        if facts.get(name) is None or value is None:
            continue
        if name in several:
            items = [value] if isinstance(value, (str, os.PathLike)) else value
            values[name] = tuple(_read_one(name, item, facts[name]) for item in items)
        else:
            values[name] = _read_one(name, value, facts[name])
    return options(**values)


def _read_one(name: str, value: Any, facts: Mapping[str, Any]) -> Any:
    parse, choices = facts["type"], facts["choices"]
    if parse is not None and isinstance(value, (str, os.PathLike)):
        value = parse(value)
    if choices is None:
        return value
    # A mapping accepts its keys, as on the command line, and its values, as in the dataclass.
    accepted = dict(choices) if isinstance(choices, Mapping) else {text: text for text in choices}
    if value in accepted:
        return accepted[value]
    if value in accepted.values():
        return value
    raise GimpError(f"{name}: found '{value}'; expected one of {', '.join(accepted)}")
