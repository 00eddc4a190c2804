"""Options declared once: the parser, the dataclass from it, and the dataclass from Python."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.errors import GimpError
from gimp_fast.options import add_options, make_options, option, read_options


@dataclass(frozen=True)
class Trip:
    """Options of every kind."""

    to: str = option(help="where to go")
    via: tuple[Path, ...] = option((), "places on the way", group="route")
    speed: str = option("slow", "how fast", choices={"slow": "walking", "fast": "flying"})
    days: int = option(1, flag="--for")
    map: str | None = option(None, choices=("city", "world"), const="world")
    alone: bool = option(False)
    share: float | None = option(None, parse=lambda text: float(text) / 100)
    mood: str = "good"


def parsed(*argv: str) -> Trip:
    parser = argparse.ArgumentParser()
    add_options(parser, Trip, group="trip")
    return read_options(parser.parse_args(argv), Trip, mood="better")


def test_the_command_line():
    assert parsed("--to", "sea") == Trip("sea", speed="walking", mood="better")
    argv = ["--to", "sea", "--via", "a", "b", "--speed", "fast", "--for", "3", "--map", "--alone"]
    argv += ["--share", "50"]
    expected = Trip("sea", (Path("a"), Path("b")), "flying", 3, "world", True, 0.5, "better")
    assert parsed(*argv) == expected


@pytest.mark.parametrize("argv", [[], ["--to", "sea", "--speed", "flying"]])
def test_what_the_parser_refuses(argv, capsys):
    with pytest.raises(SystemExit):
        parsed(*argv)
    assert "error" in capsys.readouterr().err


def test_values_as_a_person_writes_them():
    trip = make_options(Trip, to="sea", via="a", speed="fast", days="2")
    assert trip == Trip("sea", (Path("a"),), "flying", 2)
    assert make_options(Trip, to="sea", via=["a", Path("b")]).via == (Path("a"), Path("b"))
    assert make_options(Trip, to="sea", speed="flying").speed == "flying"
    with pytest.raises(GimpError, match="speed: found 'walk'; expected one of slow, fast"):
        make_options(Trip, to="sea", speed="walk")


def test_help_has_groups_and_texts():
    parser = argparse.ArgumentParser()
    add_options(parser, Trip, group="trip")
    text = parser.format_help()
    _, trip, route = re.split(r"^(?=trip:|route:)", text, flags=re.MULTILINE)
    assert "--to TO" in trip
    assert "where to go" in trip
    assert "--via VIA" in route
    assert "mood" not in text


def test_options_of_prepare_have_different_names():
    names = [field.name for options in (PrepareOptions, RnaOptions) for field in fields(options)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"days": "two"}, "days: found 'two'; expected a whole number"),
        ({"share": "half"}, "share: found 'half'"),
        ({"speed": "fsat"}, r"speed: found 'fsat'; .*one of slow, fast; did you mean 'fast'"),
        ({"sped": "fast"}, r"Trip: found 'sped'; .*did you mean 'speed'"),
    ],
)
def test_values_that_do_not_fit_are_errors_of_the_input(fields, message):
    with pytest.raises(GimpError, match=message):
        make_options(Trip, to="sea", **fields)


@pytest.mark.parametrize(
    ("code", "hint"),
    [("6", "did you mean '06' (metastasis)?"), ("metastases", "did you mean '06' (metastasis)?"),
     ("primary", "expected a code of two digits"), ("x", "expected a code of two digits")],
)  # fmt: skip
def test_sample_types_are_codes_of_two_digits(code, hint):
    assert make_options(RnaOptions, sample_types=["01", "06"]).sample_types == ("01", "06")
    with pytest.raises(GimpError, match=re.escape(hint)):
        make_options(RnaOptions, sample_types=code)
