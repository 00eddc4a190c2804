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
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from gimp_fast.errors import GimpError, one_of

Options = TypeVar("Options")
_KEY = "option"
_KINDS = {int: "a whole number", float: "a number", Path: "a path"}


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
        parse: from the text of one value; by default the ``int``, ``float`` or ``Path`` of the
            field's type.
        choices: texts that are accepted; a text -> value mapping if the field holds other values.
        metavar: placeholder in ``--help``.
        group: heading in ``--help``.
        const: value if the flag is given without one.
    """
    facts = dict(help=help, flag=flag, type=parse, choices=choices, metavar=metavar)
    facts |= dict(group=group, const=const)
    return dataclasses.field(default=default, metadata={_KEY: facts})


def _options_of(options: type) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Name -> default and facts, of each field that is an option."""
    hints, of_fields = get_type_hints(options), {}
    for field in dataclasses.fields(options):
        if facts := dict(field.metadata.get(_KEY, {})):
            facts["type"] = facts["type"] or _parser(hints[field.name])
            of_fields[field.name] = field.default, facts
    return of_fields


def _parser(hint: Any) -> type | None:
    """The type of one value, if text can be converted to it: ``Path`` of ``tuple[Path, ...]``."""
    if hint in (int, float, Path):
        return hint
    parts = get_args(hint)
    return _parser(parts[0]) if parts else None


def add_options(
    parser: argparse.ArgumentParser, options: type, *, group: str | None = None
) -> None:
    """Give a parser the options of a dataclass, in the order of its fields.

    Args:
        parser: takes the options.
        options: the dataclass.
        group: heading of the options that name no group.
    """
    groups = {group.title: group for group in parser._action_groups}
    for name, (default, facts) in _options_of(options).items():
        title, flag, const = facts.pop("group") or group, facts.pop("flag"), facts.pop("const")
        if title is not None and title not in groups:
            groups[title] = parser.add_argument_group(title)
        arguments = {key: value for key, value in facts.items() if value is not None}
        if default is False:
            arguments = {"action": "store_true", "help": facts["help"]}
        elif default is True:
            arguments |= {"action": argparse.BooleanOptionalAction, "default": True}
        elif default is dataclasses.MISSING:
            arguments["required"] = True
        else:
            arguments["default"] = default
        if isinstance(default, tuple):
            arguments["nargs"] = "+"
        elif const is not None:
            arguments |= {"nargs": "?", "const": const}
        flag = flag or "--" + name.replace("_", "-")
        groups.get(title, parser).add_argument(flag, dest=name, **arguments)


def read_options(arguments: argparse.Namespace, options: type[Options], **given: Any) -> Options:
    """The dataclass, from parsed arguments; ``given`` fills or replaces fields."""
    values = {name: getattr(arguments, name) for name in _options_of(options)}
    return make_options(options, **(values | given))


def make_options(options: type[Options], **values: Any) -> Options:
    """The dataclass, from values as a person writes them.

    A single value is accepted for an option of several, text for a path, and the text of a choice
    for its value.

    Raises:
        GimpError: a value that is of another kind, or not one of the choices; an unknown field.
    """
    for name, (default, facts) in _options_of(options).items():
        value = values.get(name)
        if value is None:
            continue
        if isinstance(default, tuple):
            items = [value] if isinstance(value, (str, os.PathLike)) else value
            values[name] = tuple(_read_one(name, item, facts) for item in items)
        else:
            values[name] = _read_one(name, value, facts)
    names = [field.name for field in dataclasses.fields(options)]
    for name in values:
        if name not in names:
            kind = options.__name__
            raise GimpError(f"{kind}: found '{name}'; expected {one_of(name, names)}")
    return options(**values)


def _read_one(name: str, value: Any, facts: Mapping[str, Any]) -> Any:
    parse, choices = facts["type"], facts["choices"]
    if parse is not None and isinstance(value, (str, os.PathLike)):
        try:
            value = parse(value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            text = str(error) if isinstance(error, argparse.ArgumentTypeError) else ""
            wanted = text or f"found '{value}'; expected {_KINDS.get(parse, 'another value')}"
            raise GimpError(f"{name}: {wanted}") from error
    if choices is None:
        return value
    # A mapping accepts its keys, as on the command line, and its values, as in the dataclass.
    accepted = dict(choices) if isinstance(choices, Mapping) else {text: text for text in choices}
    if value in accepted:
        return accepted[value]
    if value in accepted.values():
        return value
    raise GimpError(f"{name}: found '{value}'; expected {one_of(value, accepted)}")
