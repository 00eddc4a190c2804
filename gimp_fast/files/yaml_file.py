"""Reads YAML: plain values only, of bounded size and depth, with one clear error for anything else.

A file of a few hundred bytes can ask for years of work, or end Python: nesting of any depth,
aliases of aliases, integers of a million digits. What is read here has known limits.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from gimp_fast.errors import FaultError

# A configuration has about a hundred values, three levels and 3 kB.
MOST_BYTES = 2**20
MOST_VALUES = 20_000  # each alias counts as often as it is used
MOST_LEVELS = 40
_TOO_MANY = f"more than {MOST_VALUES:,} values, with those of aliases"
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file; an empty one if the file has no value.

    Raises:
        FaultError: with line and column: the file is missing, too large, no YAML, or no mapping.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise FaultError.of("unreadable-file", path, found, "a YAML file") from error
    loaded = parse_yaml(content, str(path))
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise FaultError.of("bad-yaml", path, _kind(loaded), "a mapping of fields, `name: value`")
    return loaded


def parse_yaml(content: str | bytes, where: str) -> Any:
    """The value of a text: None, bool, int, float, str, or lists and mappings of them.

    Bytes are UTF-8, or UTF-16 with a byte order mark. Dates stay text.

    Args:
        content: the text.
        where: where it comes from, for messages.

    Raises:
        FaultError: with line and column: not YAML, other types, a key that is given twice or is no
            text, or more than the limits of this module.
    """
    if len(content) > MOST_BYTES:
        expected = f"at most {MOST_BYTES:,} bytes of YAML"
        raise FaultError.of("bad-yaml", where, "more", expected)
    try:
        loader = _Loader(content)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        # The mark of the problem is missing from a few errors, which then have that of the context.
        place, problem = error.problem_mark or error.context_mark, error.problem or error.context
        raise _fault(where, place, str(problem)) from error
    except yaml.reader.ReaderError as error:
        # Raised before the text is split into lines.
        raise FaultError.of("bad-yaml", where, _unreadable(error), "YAML, as UTF-8 text") from error


def _fault(where: str, place: yaml.Mark | None, problem: str) -> FaultError:
    if place is not None:
        where = f"{where}: line {place.line + 1}, column {place.column + 1}"
    found, _, expected = problem.partition("; expected ")
    return FaultError.of("bad-yaml", where, found.removeprefix("found "), expected or "YAML")


def _unreadable(error: yaml.reader.ReaderError) -> str:
    code = error.character
    code = ord(code) if isinstance(code, str) else code[0] if isinstance(code, bytes) else code
    unit = "byte" if error.encoding != "unicode" else "character"
    return f"{unit} 0x{code:02x} at position {error.position}, which is not text"


def _kind(value: Any) -> str:
    return {"list": "a list", "str": "text", "bool": "true or false"}.get(
        type(value).__name__, "a number"
    )


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with limits, without its types beyond JSON's, and with our errors."""

    # Without dates, whose text is what a user wrote, e.g. as the name of a split.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, regexp) for tag, regexp in pairs if not tag.endswith(":timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _PLAIN
    }

    def __init__(self, content: str | bytes):
        super().__init__(content)
        self._level, self._count = 0, 0
        # Node -> values in it, in which an alias counts as often as it is used.
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        mark = self.peek_event().start_mark
        self._level, self._count = self._level + 1, self._count + 1
        if self._level > MOST_LEVELS:
            _refuse(mark, f"more than {MOST_LEVELS} levels of values within values", "fewer")
        if self._count > MOST_VALUES:
            _refuse(mark, _TOO_MANY, "fewer")
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._level -= 1
        if is_alias and node not in self._sizes:
            _refuse(mark, "an alias of the value that it is in", "values that end")
        if not is_alias:
            self._sizes[node] = self._size(node, mark)
        return node

    def _size(self, node: yaml.Node, mark: yaml.Mark) -> int:
        size = 1
        if isinstance(node, yaml.CollectionNode):
            pairs = isinstance(node, yaml.MappingNode)
            parts = [part for pair in node.value for part in pair] if pairs else node.value
            size += sum(self._sizes[part] for part in parts)
        if size > MOST_VALUES:
            _refuse(mark, _TOO_MANY, "fewer")
        return size

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            # What the constructors raise for a text that does not fit its tag: `!!int x`.
            kind = node.tag.rpartition(":")[2]
            text = str(node.value)[:40] + ("…" if len(str(node.value)) > 40 else "")
            long = kind == "int" and len(str(node.value)) > 100
            expected = "fewer digits" if long else f"a value of its type, {kind}"
            raise _error(node.start_mark, f"'{text}'", expected) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check the keys that are written here, before those of ``<<`` are added to them."""
        seen: dict[Hashable, yaml.Mark] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                text = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                _refuse(key.start_mark, f"the key {text}", f"text: write '{text}' in quotes")
            if key.value in seen:
                line = seen[key.value].line + 1
                _refuse(key.start_mark, f"'{key.value}' again, after line {line}", "each key once")
            seen[key.value] = key.start_mark
        super().flatten_mapping(node)


def _error(mark: yaml.Mark, found: str, expected: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=f"found {found}; expected {expected}", problem_mark=mark)


def _refuse(mark: yaml.Mark, found: str, expected: str) -> None:
    raise _error(mark, found, expected)
