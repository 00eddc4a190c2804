"""The text of a target: what it means, and one clear error for what it cannot mean."""

from __future__ import annotations

import pytest

from gimp_fast.data.tables.outcomes import TargetSpec
from gimp_fast.errors import GimpError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("subtype=class:type", TargetSpec("subtype", "class", ("type",))),
        ("tmb=regression:tmb", TargetSpec("tmb", "regression", ("tmb",))),
        ("os=survival:d,e", TargetSpec("os", "survival", ("d", "e"))),
        ("o-1_x=survival:d,e:weeks", TargetSpec("o-1_x", "survival", ("d", "e"), unit="weeks")),
        (
            "os=survival:survival_months,censorship:months:censorship:zero=half",
            TargetSpec(
                "os", "survival", ("survival_months", "censorship"), "months", "censorship", "half"
            ),
        ),
        (
            "OS=survival:Overall Survival (Months),Overall Survival Status:event",
            TargetSpec(
                "OS",
                "survival",
                ("Overall Survival (Months)", "Overall Survival Status"),
                coding="event",
            ),
        ),
    ],
    ids=["class", "regression", "survival", "unit", "all-options", "spaces"],
)
def test_a_text_and_its_target(text, spec):
    assert TargetSpec.parse(text) == spec
    assert spec.text == text


def test_options_in_any_order_and_blanks():
    spec = TargetSpec.parse(" os = survival : days , event : zero=drop : event : days ")
    assert spec.text == "os=survival:days,event:days:event:zero=drop"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found ''; expected NAME=KIND:COLUMNS, such as subtype=class:type or os=survival"),
        ("os", "found 'os'; expected NAME=KIND:COLUMNS"),
        ("os=survival", "found 'os=survival'; expected NAME=KIND:COLUMNS"),
        ("os:survival:a,b", "expected NAME=KIND:COLUMNS"),
        ("=class:type", "the name ''; expected a letter, then letters, digits, _ and -"),
        ("1st=class:type", "the name '1st'; expected a letter"),
        ("tümor=class:type", "the name 'tümor'"),
        ("a" * 41 + "=class:type", "40 characters at most"),
        ("os=surival:a,b", "the kind 'surival'; expected one of class, survival, regression; did "
                           "you mean 'survival'?"),
        ("os=survival:days", "1 column, 'days'; expected the column of times and the column of "
                             "events, such as os=survival:os_days,os_event"),
        ("os=survival:a,b,c", "3 columns, 'a,b,c'"),
        ("os=survival:a,", "2 columns, 'a,'"),
        ("os=survival:a,a", "2 columns, 'a,a'"),
        ("x=class:a,b", "2 columns, 'a,b'; expected the column of classes, such as subtype=class"),
        ("x=regression:", "1 column, ''; expected the column of numbers"),
        ("os=survival:a,b:month", "the option 'month'; expected one of days, weeks, months"),
        ("os=survival:a,b:censored", "did you mean 'censorship'?"),
        ("os=survival:a,b:zero", "did you mean 'zero="),
        ("os=survival:a,b:", "the option ''"),
        ("os=survival:a,b:days:months", "the options 'days:months'; expected only one of days, "),
        ("os=survival:a,b:event:event", "expected only one of event, censorship"),
        ("x=class:a:days", "the option 'days'; expected none: class has no options"),
        ("x\x1b[2J=class:a", r"the name 'x\x1b[2J'"),
    ],
    ids=["empty", "name-only", "no-columns", "no-equals", "no-name", "digit-first", "letters",
         "long", "kind", "one-column", "three-columns", "blank-column", "same-column", "class-two",
         "blank-regression", "option", "censored", "zero", "blank-option", "two-units",
         "coding-twice", "class-option", "control"],
)  # fmt: skip
def test_what_does_not_parse(text, message):
    with pytest.raises(GimpError) as error:
        TargetSpec.parse(text)
    assert message in str(error.value)
    assert str(error.value).startswith("target '")
    assert len(str(error.value)) < 400
