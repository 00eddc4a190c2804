"""What is wrong with the fields of a configuration, without pydantic's words."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from gimp_fast import models
from gimp_fast.errors import GimpError
from gimp_fast.training import TrainConfig
from gimp_fast.validation import FieldsError, Settings


class Inner(Settings):
    rate: float = Field(1.0, gt=0, lt=1.5)
    names: tuple[str, ...] = ()


class Outer(Settings):
    count: int = Field(ge=1)
    size: float | None = Field(None, ge=0, le=9)
    speed: Literal["slow", "fast"] = "slow"
    many: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    deep: bool = False
    title: str = Field("x", min_length=1)
    pair: tuple[int, int] = (1, 2)
    widths: list[int] = Field([8], min_length=1, max_length=2)
    folder: Path = Path()
    notes: dict[str, int] = Field({})
    inner: Inner = Inner()
    even: int = Field(2, multiple_of=2)
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("an odd number")
        if value > 100:
            raise PydanticCustomError("too_odd", "a number that is not so odd")
        return value


FAULTS = {
    "missing": ({}, "count: found nothing; expected a whole number of 1 or more"),
    "bound": ({"count": 0}, "count: found 0; expected a whole number of 1 or more"),
    "text": ({"count": "x"}, "count: found 'x'; expected a whole number"),
    "fraction": ({"count": 1.5}, "count: found 1.5; expected a whole number"),
    "huge": ({"count": "9" * 5000}, "count: found '9+…; expected a whole number"),
    "truth": ({"count": True}, "count: found true; expected a whole number of 1 or more"),
    "null": ({"count": None}, "count: found null; expected a whole number"),
    "nan": ({"size": float("nan")}, "size: found nan; expected a number from 0 to 9 or null"),
    "infinity": ({"inner": {"rate": float("inf")}}, "inner.rate: found inf; expected a number abo"),
    "above": ({"size": 10}, "expected a number from 0 to 9 or null"),
    "choice": ({"speed": "fst"}, "expected 'slow' or 'fast'; did you mean 'fast'"),
    "several-types": ({"many": -1}, "many: found -1; expected a whole number of 0 or more or 'aut"),
    "several-typo": ({"many": "atuo"}, "or 'auto'; did you mean 'auto'"),
    "truth-of-text": ({"deep": "perhaps"}, "deep: found 'perhaps'; expected true or false"),
    "number-for-text": ({"title": 7}, "title: found 7; expected text .*in quotes: '7'"),
    "empty": ({"title": ""}, "title: found ''; expected text with 1 or more characters"),
    "pair": ({"pair": [1]}, "found nothing; expected a list of 2 whole numbers"),
    "pair-long": ({"pair": [1, 2, 3]}, "expected a list of 2 whole numbers"),
    "list": ({"widths": 3}, "widths: found 3; expected a list of whole numbers"),
    "list-empty": ({"widths": []}, "expected a list of whole numbers with 1 or more entries"),
    "list-long": ({"widths": [1, 2, 3]}, "and with 2 or fewer entries"),
    "list-item": ({"widths": ["x"]}, r"widths\.0: found 'x'; expected a list of whole numbers"),
    "path": ({"folder": 3}, "folder: found 3; expected a path"),
    "mapping": ({"notes": 3}, "notes: found 3; expected a mapping"),
    "mapping-value": ({"notes": {"a": "b"}}, "notes.a: found 'b'; expected a mapping"),
    "section": ({"inner": 3}, "inner: found 3; expected a mapping of fields"),
    "field": ({"inner": {"rat": 1}}, r"inner\.rat: found an unknown field; .*mean 'inner.rate'"),
    "elsewhere": ({"ratee": 1}, "did you mean 'inner.rate'"),
    "texts": ({"inner": {"names": [1]}}, r"inner\.names\.0: found 1; expected a list of texts"),
    "multiple": ({"even": 3}, "even: found 3; expected a whole number that 2 divides"),
    "validator": ({"odd": 2}, "odd: found 2; expected an odd number"),
    "author": ({"odd": 101}, "odd: found 101; expected a number that is not so odd"),
}  # fmt: skip
# How pydantic begins its sentences.
PYDANTIC = re.compile(r"Input should|Field required|Extra inputs|Value error|permitted|pydantic")


@pytest.mark.parametrize(("values", "message"), FAULTS.values(), ids=FAULTS)
def test_every_fault_is_in_our_words(values, message):
    complete = values if not values or "count" in values else {"count": 1} | values
    for make in (Outer.model_validate, lambda given: Outer(**given)):
        with pytest.raises(FieldsError, match=message) as caught:
            make(complete)
        assert not PYDANTIC.search(str(caught.value))
        assert len(caught.value.faults) == 1


def test_it_is_an_error_of_the_input_and_a_value_error():
    with pytest.raises(FieldsError) as caught:
        Outer(count=0, speed="x", inner={"rate": 3, "no": 1})
    assert isinstance(caught.value, GimpError)
    assert isinstance(caught.value, ValueError)
    assert len(caught.value.faults) == 4
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


ODD = [None, True, -1, 0, 1.5, float("nan"), "", "x", "1" * 5000, [], ["x"], {}, {"x": 1}, b"\xff"]


def settings_of_the_package() -> dict[str, type[Settings]]:
    every = {name: models.model_class(name).config_class for name in models.available()}
    return every | {"train": TrainConfig}


@pytest.mark.parametrize(("name", "kind"), settings_of_the_package().items())
def test_no_field_of_ours_answers_in_the_words_of_pydantic(name, kind):
    said = []
    for field, info in kind.model_fields.items():
        sections = [field]
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            sections += [f"{field}.{inner}" for inner in (*info.annotation.model_fields, "no")]
        said += [text for path in sections for value in ODD if (text := refusal(kind, path, value))]
    assert len(said) > 20
    assert [text for text in said if PYDANTIC.search(text)] == []


def refusal(kind: type[Settings], path: str, value: Any) -> str | None:
    """What a configuration says about one value, if it refuses it."""
    section, _, field = path.partition(".")
    try:
        kind.model_validate({section: {field: value} if field else value})
    except FieldsError as error:
        return str(error)
    return None


def test_valid_values_are_unchanged():
    given = {"count": "3", "size": "1e-1", "many": "auto", "inner": {"rate": 1}}
    made = Outer.model_validate(given)
    assert (made.count, made.size, made.inner.rate) == (3, 0.1, 1.0)
    assert Outer.model_validate(json.loads(made.model_dump_json())) == made
    assert Outer.model_validate(made) is made
