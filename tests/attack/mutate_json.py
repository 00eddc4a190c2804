"""Damage to JSON and YAML: other types, depths and sizes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from attack.mutate_bytes import NASTY, _bytes

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, 1e308, float("nan"), float("inf"), 1 << 31, 1 << 63,
    1 << 200,
    -(1 << 63), "", [], {}, [None], [[]], {"": None}, [1, "a"], [0] * 1000, {"a": {"b": {}}},
)  # fmt: skip


def _places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything in a tree, also of the tree."""
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree[:50]))
    else:
        items = []
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


def _get(tree: Any, path: tuple) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _set(tree: Any, path: tuple, value: Any) -> Any:
    if not path:
        return value
    _get(tree, path[:-1])[path[-1]] = value
    return tree


def _random_value(rng: random.Random) -> Any:
    return rng.choice(NASTY) if rng.random() < 0.4 else rng.choice(VALUES)


def other_value(tree: Any, rng: random.Random) -> Any:
    return _set(tree, rng.choice(_places(tree)), _random_value(rng))


def other_type(tree: Any, rng: random.Random) -> Any:
    """The same content in another form: text for a number, a list for one value."""
    path = rng.choice(_places(tree))
    value = _get(tree, path)
    forms = [str(value)[:2000], [value], {"value": value}, json.dumps(value)[:2000]]
    if isinstance(value, dict):
        forms += [list(value), list(value.items()), list(value.values())]
    if isinstance(value, list):
        forms += [{str(n): x for n, x in enumerate(value)}, value[::-1], value[:1], value * 2]
    if isinstance(value, (int, float)):
        forms += [-value, value + 0.5, value * 1e10, bool(value)]
    return _set(tree, path, rng.choice(forms))


def _inside(tree: Any, rng: random.Random) -> tuple | None:
    paths = [path for path in _places(tree) if path]
    return rng.choice(paths) if paths else None


def drop(tree: Any, rng: random.Random) -> Any:
    path = _inside(tree, rng)
    if path:
        del _get(tree, path[:-1])[path[-1]]
    return tree


def add(tree: Any, rng: random.Random) -> Any:
    spots = [path for path in _places(tree) if isinstance(_get(tree, path), (dict, list))]
    if not spots:
        return tree
    spot = _get(tree, rng.choice(spots))
    if isinstance(spot, list):
        spot.insert(rng.randrange(len(spot) + 1), _random_value(rng))
    else:
        spot[rng.choice((*NASTY, "extra", *spot))] = _random_value(rng)
    return tree


def other_key(tree: Any, rng: random.Random) -> Any:
    spots = [
        path for path in _places(tree) if isinstance(_get(tree, path), dict) and _get(tree, path)
    ]
    if spots:
        spot = _get(tree, rng.choice(spots))
        key = rng.choice(list(spot))
        spot[rng.choice((*NASTY, key.upper(), f"{key} ", f"{key}s", key[:-1]))] = spot.pop(key)
    return tree


def swap(tree: Any, rng: random.Random) -> Any:
    places = _places(tree)
    a, b = rng.choice(places), rng.choice(places)
    value = copy.deepcopy(_get(tree, a))
    return _set(tree, b, value)


def many(tree: Any, rng: random.Random) -> Any:
    """A list or mapping of very many."""
    value = rng.choice(([0] * 100_000, {str(n): n for n in range(50_000)}, ["x"] * 100_000))
    return _set(tree, rng.choice(_places(tree)), value)


TREE = (
    other_value,
    other_value,
    other_value,
    other_type,
    other_type,
    drop,
    add,
    other_key,
    swap,
    many,
)


def _hole(tree: Any, rng: random.Random) -> tuple[str, str]:
    """The text around one value."""
    marked = _set(copy.deepcopy(tree), rng.choice(_places(tree)), "@HOLE@")
    before, _, after = json.dumps(marked).partition('"@HOLE@"')
    return before, after


def _deep(tree: Any, rng: random.Random) -> str:
    before, after = _hole(tree, rng)
    depth = rng.choice((500, 2000, 100_000))
    opened, closed = rng.choice((("[", "]"), ('{"a":', "}"), ("[[", "")))
    return before + opened * depth + ("1" if rng.random() < 0.7 else "") + closed * depth + after


def _long_number(tree: Any, rng: random.Random) -> str:
    before, after = _hole(tree, rng)
    return (
        before
        + rng.choice(
            (
                "9" * 5000,
                "1e999999",
                "-" + "1" * 10_000,
                "0." + "1" * 5000,
                "NaN",
                "-Infinity",
                "1E400",
            )
        )
        + after
    )


def _bad_text(tree: Any, rng: random.Random) -> str:
    before, after = _hole(tree, rng)
    return (
        before
        + rng.choice(
            ('"\\ud800"', '"\\u0000"', '"\\x"', "'a'", "undefined", '"a\nb"', "01", "+1", '"\t"')
        )
        + after
    )


def _twice(tree: Any, rng: random.Random) -> str:
    """A key that is there twice, with another value."""
    text = json.dumps(tree)
    if not isinstance(tree, dict) or not tree:
        return text + text
    key = rng.choice(list(tree))
    return "{" + json.dumps(key) + ":" + json.dumps(_random_value(rng)) + "," + text[1:]


TEXT = (_deep, _long_number, _bad_text, _twice)


def json_mutation(change):
    """A mutation of bytes from one of a tree."""

    def mutation(data: bytes, rng: random.Random, other: bytes) -> bytes:
        lines = data.decode("utf-8", "replace")
        try:
            tree = json.loads(lines)
            before, after = "", "\n"
        except ValueError:  # a record a line
            rows = lines.splitlines(keepends=True)
            at = rng.randrange(len(rows)) if rows else 0
            try:
                tree = json.loads(rows[at])
            except (ValueError, IndexError):
                return data + b"{"
            before, after = "".join(rows[:at]), "\n" + "".join(rows[at + 1 :])
        result = change(tree, rng)
        text = (
            result
            if isinstance(result, str)
            else json.dumps(result, ensure_ascii=rng.random() < 0.5)
        )
        return _bytes(before + text + after)

    mutation.__name__ = change.__name__.strip("_")
    return mutation


JSON = tuple(map(json_mutation, (*TREE, *TEXT, *TEXT)))
_YAML_VALUES = (
    "2001-99-99", "!!int x", "!!float x", "!!timestamp x", "!!binary '='", "!!set {a}",
    "!!omap [a]", "!!pairs [a]",
    "!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!!merge x",
    "!<x> y",
    "9" * 5000, "0x" + "f" * 3000, "0b" + "1" * 20_000, "190:20:30.15", "1:99:99", "1_000",
    ".inf", ".nan", "~",
    "yes", "on", "&a *a", "*undefined", "? a\n: b", "[a, b", "{a: b", "'", '"\\x"', "|\n  text",
    ">\n text", "- - - a",
    "!!str", "!", "@x", "`x", "%YAML 3.0", "---\na: 1", "...\n", "\tx", "\x00", "\x85", "{<<: 1}",
    "{<<: [1]}", "{[a]: b}",
    "{{a: b}: c}", "0o8", "08", "1e400", "1" * 400 + ".0", "'\ud7ff'", "<<: *x", "=",
    "2001-12-14t21:59:43.10-05:99",
)  # fmt: skip


def yaml_value(data: bytes, rng: random.Random, other: bytes) -> bytes:
    lines = data.decode("utf-8", "replace").split("\n")
    spots = [n for n, line in enumerate(lines) if ":" in line] or [0]
    at = rng.choice(spots)
    lines[at] = lines[at].split(":")[0] + ": " + rng.choice((*_YAML_VALUES, *NASTY))
    return _bytes("\n".join(lines))


def yaml_laughs(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Names for lists of names: 9 lines that stand for 10⁹ values."""
    rows = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, rng.choice((6, 9, 30))):
        rows.append(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]")
    return data + "\n".join(rows).encode() + b"\n"


def yaml_merges(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Mappings merged from mappings, each twice."""
    rows = ["m0: &m0 {a: 1, b: 2}"]
    for n in range(1, rng.choice((6, 24, 40))):
        rows.append(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}], k{n}: 1}}")
    return data + "\n".join(rows).encode() + b"\n"


def yaml_circle(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data + rng.choice((b"finetune: &f\n  lr: *f\n", b"a: &a [*a]\n", b"&k {*k : 1}\n"))


def yaml_deep(data: bytes, rng: random.Random, other: bytes) -> bytes:
    depth = rng.choice((500, 3000, 100_000))
    return data + b"x: " + rng.choice((b"[" * depth, b"{a: " * depth, b"[" * depth + b"]" * depth))


def yaml_many_documents(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data + b"\n---\n" + data


def yaml_tree(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """JSON is YAML: the mutations of trees."""
    import yaml

    tree = json.loads(json.dumps(yaml.safe_load(data), default=str))
    result = rng.choice((*TREE, *TEXT))(tree, rng)
    return _bytes(result if isinstance(result, str) else yaml.safe_dump(result, allow_unicode=True))


YAML = (
    yaml_value, yaml_value, yaml_value, yaml_laughs, yaml_merges, yaml_circle, yaml_deep,
    yaml_many_documents, yaml_tree, yaml_tree, yaml_tree, yaml_tree,
)  # fmt: skip
