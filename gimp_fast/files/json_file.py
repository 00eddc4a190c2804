"""Reads JSON that someone else wrote: any text gives its value, or one error that names the file.

``json`` alone answers deep nesting with a RecursionError, and gives text that cannot be printed or
written again where a file holds half of a surrogate pair.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gimp_fast.errors import GimpError, one_line

LARGEST = 512 << 20  # bytes of a file; those of this package have a few megabytes
DEEPEST = 100  # levels; deeper values end in the RecursionError of whoever walks through them


def parse_json(
    text: str | bytes, where: object, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """The value of a JSON text.

    Args:
        text: to parse; bytes are UTF-8.
        where: the file, for the error.
        pairs: makes a value of the keys and values of an object, and may raise ValueError.

    Raises:
        GimpError: this is no JSON, it has too many levels, or it holds text that is no Unicode.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=pairs)
        is_deep = text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST
    except RecursionError:
        is_deep = True
    except ValueError as error:
        raise GimpError(f"{where}: cannot be read as JSON ({one_line(error)})") from error
    if is_deep:
        raise GimpError(f"{where}: found JSON of more than {DEEPEST} levels; expected fewer")
    if "\\u" in text:
        _check_unicode(value, where)
    return value


def read_json(file: Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: there is no such file; the caller knows what should have written it.
        GimpError: it cannot be read, is too large, or is no JSON.
    """
    try:
        size = file.stat().st_size
        if not file.is_file():
            raise GimpError(f"{file}: found no regular file; expected a JSON file")
        if size > LARGEST:
            raise GimpError(f"{file}: found {size >> 20} MiB; expected {LARGEST >> 20} or less")
        content = file.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise GimpError(f"{file}: cannot be read ({one_line(error)})") from error
    return parse_json(content, file)


def read_json_object(file: Path) -> dict[str, Any]:
    """As :func:`read_json`, of a file that must hold an object."""
    return need_object(read_json(file), file)


def need_object(value: Any, where: object) -> dict[str, Any]:
    """The value, if it is a JSON object; GimpError if it is anything else."""
    if not isinstance(value, dict):
        raise GimpError(f"{where}: found a {_KINDS[type(value)]}; expected an object")
    return value


def _depth(value: Any) -> int:
    """Levels of lists and objects, found level by level: a recursion would fail."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def _check_unicode(value: Any, where: object) -> None:
    """GimpError for half of a surrogate pair, which nothing can print or write."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise GimpError(f"{where}: found text that is no Unicode ({one_line(error)})") from error


_KINDS = {list: "list", str: "text", int: "number", float: "number", bool: "true or false"}
_KINDS[type(None)] = "null"
