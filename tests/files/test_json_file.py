"""JSON of others: its value, or one error that names the file; nothing else is raised."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimp_fast.errors import GimpError
from gimp_fast.files import json_file
from gimp_fast.files.json_file import parse_json, read_json, read_json_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
BAD = {
    "cut": b'{"a": [1, 2',
    "binary": b"\x00\xff\xfe",
    "not-utf-8": b'{"a": "\xe9"}',
    "lists-100,000-deep": b"[" * 100_000 + b"]" * 100_000,
    "objects-100,000-deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lists-101-deep": b"[" * 101 + b"]" * 101,
    "integer-of-5,000-digits": b"1" * 5000,
    "half-a-surrogate-pair": b'{"name": "\\ud800"}',
    "half-a-surrogate-pair-in-a-key": b'{"\\udc00": 1}',
    "empty": b"",
}


@given(VALUES)
def test_json_gives_its_value(value):
    assert parse_json(json.dumps(value), "x") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "x") == value


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_anything_else_is_one_error_that_names_the_file(tmp_path, content):
    file = tmp_path / "facts.json"
    file.write_bytes(content)
    with pytest.raises(GimpError, match=f"^{file}: "):
        read_json(file)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_an_error(content):
    try:
        parse_json(content, "here")
        message = "here"
    except GimpError as error:
        message = str(error)
    assert message.startswith("here")


def test_100_levels_are_read():
    text = "[" * 100 + "]" * 100
    assert json.dumps(parse_json(text, "x")) == text
    assert len(parse_json("[" + ",".join(["[{}]"] * 500) + "]", "x")) == 500


def test_a_file_that_is_none_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "facts.json")
    for path, message in ((tmp_path / "facts.json", "no regular file"), (tmp_path, "no regular")):
        with pytest.raises(GimpError, match=message):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing.json")
    with pytest.raises(GimpError, match="cannot be read"):
        read_json(tmp_path / "a\0b")


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "LARGEST", 1 << 20)
    file = tmp_path / "facts.json"
    file.write_text("[" + "1," * (1 << 20) + "1]", encoding="utf-8")
    with pytest.raises(GimpError, match="found 2 MiB; expected 1 or less"):
        read_json(file)


@pytest.mark.parametrize("text", ["[1]", '"a"', "1", "1.5", "null", "true"])
def test_an_object_is_asked_for(tmp_path, text):
    (tmp_path / "facts.json").write_text(text, encoding="utf-8")
    with pytest.raises(GimpError, match="expected an object"):
        read_json_object(tmp_path / "facts.json")


def test_the_caller_may_refuse_keys():
    def pairs(items):
        raise ValueError("a key twice")

    with pytest.raises(GimpError, match=r"x: cannot be read as JSON .*a key twice"):
        parse_json("{}", "x", pairs=pairs)
