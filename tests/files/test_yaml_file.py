"""YAML of every kind: plain values are read, anything else is one error with line and column."""

from __future__ import annotations

import contextlib
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gimp_fast.errors import FaultError
from gimp_fast.files.yaml_file import MOST_BYTES, parse_yaml, read_yaml_mapping


def test_plain_values_are_read():
    text = "a: 1\nb: [1.5, null, yes, .nan]\nc: {d: x, e: 0x10}\n"
    parsed = parse_yaml(text, "here")
    assert math.isnan(parsed["b"].pop())
    assert parsed == {"a": 1, "b": [1.5, None, True], "c": {"d": "x", "e": 16}}


@pytest.mark.parametrize("text", ["2001-01-01", "2001-99-99", "2001-01-01 10:00:00"])
def test_dates_stay_text(text):
    assert parse_yaml(f"split: {text}", "here") == {"split": text}


def test_aliases_and_merged_mappings_are_read():
    text = "base: &b {lr: 1, epochs: 2}\nfinetune: {<<: *b, lr: 3}\ngenes: *b\n"
    parsed = parse_yaml(text, "here")
    assert parsed["finetune"] == {"lr": 3, "epochs": 2}
    assert parsed["genes"] == {"lr": 1, "epochs": 2}


def bomb(entry: str, levels: int = 12) -> str:
    lines = [entry.format(name="a0", items="1")]
    for level in range(1, levels):
        lines.append(entry.format(name=f"a{level}", items=", ".join([f"*a{level - 1}"] * 10)))
    return "\n".join(lines)


MERGED = "a0: &a0 {x: 1}\n" + "\n".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)
)
REFUSED = {
    "int-of-text": ("a: !!int x", "line 1, column 4: found 'x'; expected a value of its type, int"),
    "float-of-text": ("a: !!float x", "column 4: found 'x'; expected .* float"),
    "bool-of-text": ("a: !!bool x", "column 4: found 'x'; expected .* bool"),
    "date-tag": ("a: !!timestamp 2001-99-99", "timestamp"),
    "binary": ("a: !!binary x", "line 1, column 4"),
    "set": ("a: !!set {x}", "line 1, column 4"),
    "python": ("a: !!python/object/apply:os.system [ls]", "line 1, column 4"),
    "own-tag": ("a: !mine 3", "!mine"),
    "long-int": ("ok: 1\na: " + "1" * 5000, r"line 2, column 4: .*…'; expected fewer digits"),
    "deep-flow": ("a: " + "[" * 100_000, "more than 40 levels"),
    "deep-block": ("- " * 10_000 + "x", "more than 40 levels"),
    "deep-mapping": ("{a: " * 50 + "1" + "}" * 50, "more than 40 levels"),
    "laughs": (bomb("{name}: &{name} [{items}]"), "more than 20,000 values"),
    "merged-laughs": (MERGED, "more than 20,000 values"),
    "many": ("[" + "1, " * 100_000 + "]", "more than 20,000 values"),
    "itself": ("a: &a [*a]", "an alias of the value that it is in"),
    "itself-deeper": ("a: &a {b: [{c: *a}]}", "an alias of the value that it is in"),
    "unknown-alias": ("a: *b", "line 1, column 4: found undefined alias 'b'"),
    "repeated-key": ("lr: 1\nx: 2\nlr: 3", "line 3, column 1: found 'lr' again, after line 1"),
    "number-as-key": ("1: x", "found the key 1; expected text: write '1' in quotes"),
    "yes-as-key": ("on: x", "found the key on; expected text"),
    "list-as-key": ("[a]: x", "found the key a list or a mapping"),
    "tab": ("a:\n\tb: 1", "line 2, column 1"),
    "open-quote": ("a: 'x", "line 1"),
    "two-documents": ("a: 1\n---\nb: 2", "line 2, column 1"),
    "nul": ("a: \0", "character 0x00 at position 3"),
    "directive": ("%YAML 9.9\n---\na: 1", "line 1"),
    "long": ("# " + "x" * MOST_BYTES, "at most 1,048,576 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_says_where(text, message, tmp_path):
    with pytest.raises(FaultError, match=message):
        parse_yaml(text, "--set a")
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(FaultError, match=r"config\.yaml") as caught:
        read_yaml_mapping(file)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff\xfe", "byte 0xff at position 3, which is not text"),
        (b"- 1", "found a list; expected a mapping"),
        (b"hello", "found text; expected a mapping"),
        (b"3", "found a number; expected a mapping"),
    ],
    ids=["bytes", "list", "text", "number"],
)
def test_a_file_that_is_no_mapping(content, message, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(FaultError, match=message):
        read_yaml_mapping(file)


@pytest.mark.parametrize(
    "content", [b"", b"# nothing\n", "a: µ".encode("utf-16"), "\ufeffa: µ".encode()], ids=len
)
def test_files_of_editors_are_read(content, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    assert read_yaml_mapping(file) in ({}, {"a": "µ"})


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FaultError, match=r"none\.yaml: found No such file"):
        read_yaml_mapping(tmp_path / "none.yaml")
    with pytest.raises(FaultError, match="found Is a directory"):
        read_yaml_mapping(tmp_path)


# PyYAML writes some of the separators of lines as such, and reads them as spaces.
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(TEXT, parts),
    max_leaves=20,
)


@given(PLAIN)
@settings(max_examples=200, deadline=None)
def test_what_was_written_is_read(value):
    written = yaml.safe_dump(value, allow_unicode=True)
    assert parse_yaml(written, "here") == value


MARKS = st.text(alphabet="a:-[]{}&*!<>|'\"?%@`#\n\t 0123456789.", max_size=60)


@given(st.text(max_size=60) | MARKS)
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_value_or_one_error(text):
    with contextlib.suppress(FaultError):
        parse_yaml(text, "here")
