"""Settings whose faults are told in the package's own words, all of them together.

:class:`Settings` is the base of every configuration. pydantic checks the values; what it says about
them is replaced by what the field expects, read from its type and limits.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core.core_schema import ErrorType

from gimp_fast.errors import Fault, FaultError, did_you_mean, nearest, one_of

UNKNOWN = "an unknown field"
_LONGEST_VALUE = 80
_NAMES = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text",
    Path: "a path", type(None): "null", dict: "a mapping", Any: "a value",
}  # fmt: skip
# Kinds of pydantic's errors whose text is of a validator, without pydantic's prefix.
_OF_VALIDATORS = ("value_error", "assertion_error")
_OF_PYDANTIC = frozenset(get_args(ErrorType))


class FieldsError(FaultError, ValueError):
    """Values that do not fit the fields of a configuration."""


class _Checked(type(BaseModel)):
    def __call__(cls, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise fields_error(error, cls, cls.__name__) from None


class Settings(BaseModel, metaclass=_Checked):
    """A frozen configuration without unknown fields, NaN or infinity.

    Raises:
        FieldsError: everything that is wrong with the values, also of fields within fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Else ``seed: yes``, which YAML reads as true, would be the number 1."""
        if isinstance(value, bool) and info.field_name in cls.model_fields:
            kinds = set(_parts(cls.model_fields[info.field_name].annotation))
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(expected_by(cls, info.field_name))
        return value

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Any:
        """An instance, from a mapping of its fields; FieldsError as for the constructor."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise fields_error(error, cls, cls.__name__) from None


def fields_error(error: ValidationError, model: type[BaseModel], where: str) -> FieldsError:
    """What pydantic found, in our words; ``where`` names what was read."""
    return FieldsError(field_faults(error, model, where), where)


def field_faults(error: ValidationError, model: type[BaseModel], where: str) -> list[Fault]:
    """A fault for each field that pydantic refused, in our words."""
    faults: dict[tuple[str, ...], Fault] = {}
    for one in error.errors(include_url=False):
        path = _path(model, one["loc"])
        inner = one.get("ctx", {}).get("error")
        if isinstance(inner, FieldsError):  # of a validator that validates a field itself
            for fault in inner.faults:
                faults.setdefault((*path, fault.where), _moved(fault, where, path))
            continue
        fault = Fault(
            "config", f"{where}: {'.'.join(path)}".removesuffix(": "), *_words(model, one)
        )
        # A field of several types has an error for each of them.
        faults.setdefault(path, fault)
    return list(faults.values())


def _moved(fault: Fault, where: str, path: tuple[str, ...]) -> Fault:
    """A fault of values that are themselves a field."""
    name = fault.where.rpartition(": ")[2]
    return Fault(fault.kind, f"{where}: {'.'.join((*path, name))}", fault.found, fault.expected)


def _path(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The names of fields and the places in lists, without pydantic's names of a field's types."""
    path: list[str] = []
    kind: Any = model
    for part in loc:
        inner = _model_in(kind)
        if inner is not None:
            path.append(str(part))
            field = inner.model_fields.get(str(part))
            kind = field.annotation if field is not None else None
        elif isinstance(part, int) or Mapping in _containers(kind):
            path.append(str(part))
    return tuple(path)


def _words(model: type[BaseModel], error: Mapping[str, Any]) -> tuple[str, str]:
    """What was found, and what was expected."""
    kind, loc, found = error["type"], error["loc"], shown(error["input"])
    owner, name = _owner(model, loc)
    if kind == "missing":
        return "nothing", expected_by(owner, name) if owner else "a value"
    if kind == "extra_forbidden":
        fields, section = owner.model_fields if owner else {}, ".".join(_path(model, loc)[:-1])
        listed, _, near = one_of(loc[-1], fields).partition("; did you mean '")
        dotted = f"; did you mean '{section}.{near}" if section else f"; did you mean '{near}"
        return UNKNOWN, listed + (dotted if near else _in_another_section(model, str(loc[-1])))
    if kind in _OF_VALIDATORS:
        return found, str(error["ctx"]["error"])
    # pydantic words a few errors of its own like those of a validator's author.
    if kind not in _OF_PYDANTIC and not error["msg"].startswith("Input "):
        return found, error["msg"]
    if kind == "invalid_key":
        return found, "text as the name of a field"
    if owner is None or name is None:
        return found, "a mapping of fields" if not loc else "a value of another type"
    expected = expected_by(owner, name)
    if isinstance(error["input"], str):
        expected += did_you_mean(error["input"], _literals(owner.model_fields[name].annotation))
    elif kind == "string_type" and isinstance(error["input"], (int, float)):
        expected += f", in quotes: '{found}'"
    return found, expected


def _in_another_section(model: type[BaseModel], name: str) -> str:
    """``"; did you mean 'finetune.lr'?"`` for ``lr``, which belongs to a section."""
    sections = {name: _model_in(field.annotation) for name, field in model.model_fields.items()}
    fields = {
        f"{section}.{field}": field
        for section, kind in reversed(sections.items())
        for field in (kind.model_fields if kind else ())
    }
    found = nearest(name, fields.values())
    dotted = [dotted for dotted, field in fields.items() if [field] == found]
    return f"; did you mean '{dotted[0]}'?" if dotted else ""


def _owner(
    model: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[type[BaseModel] | None, str | None]:
    """The configuration whose field an error is about, and that field."""
    owner, name, kind = None, None, model
    for part in loc:
        inner = _model_in(kind)
        if inner is None:
            break
        owner, name = inner, str(part)
        field = inner.model_fields.get(name)
        if field is None:
            return owner, None
        kind = field.annotation
    return owner, name


def shown(value: Any) -> str:
    """A value as a person writes it, of bounded length."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping" if len(value) > 3 else _cut(repr(dict(value)))
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def expected_by(model: type[BaseModel], name: str | None) -> str:
    """What a field takes: ``"a whole number of 0 or more, or 'auto'"``."""
    field = model.model_fields.get(name or "")
    if field is None:
        return "a value"
    return _described(field.annotation, field.metadata)


def _described(kind: Any, limits: Any = ()) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _described(parts[0], [*_limits_in(parts[1:]), *limits])
    if origin is Literal:
        return _listed([shown(part) for part in parts])
    if origin in (Union, types.UnionType):
        # A limit of the field belongs to its number; the other types have none.
        return _listed([_described(part, limits) for part in parts])
    if origin in (list, tuple, set, frozenset):
        inner = [part for part in parts if part is not Ellipsis]
        many = _several(inner[0]) if inner else "values"
        if origin is tuple and parts and Ellipsis not in parts:
            return f"a list of {len(parts)} {many}"
        return f"a list of {many}" + _limited(limits, "entries")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a mapping of fields"
    name = _NAMES.get(kind) or getattr(kind, "__name__", str(kind))
    return name + (_limited(limits, "characters") if kind in (int, float, str) else "")


def _limits_in(notes: Iterable[Any]) -> Iterator[Any]:
    """The limits among the notes of ``Annotated``, of which ``Field(…)`` holds several."""
    for note in notes:
        yield from getattr(note, "metadata", [note])


def _several(kind: Any) -> str:
    plain = {int: "whole numbers", float: "numbers", str: "texts"}
    if get_origin(kind) in (list, tuple):
        return "lists"
    return plain.get(kind, "values")


def _limited(limits: Any, unit: str = "") -> str:
    """The limits of a value: ``" of 0 or more and below 1"``."""
    names = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")
    found = {name: getattr(limit, name, None) for name in names for limit in limits
             if getattr(limit, name, None) is not None}  # fmt: skip
    if {"ge", "le"} <= found.keys():
        found["range"] = f"{found.pop('ge')} to {found.pop('le')}"
    words = {
        "range": "from {}", "ge": "of {} or more", "gt": "above {}", "le": "of {} or less",
        "lt": "below {}", "multiple_of": "that {} divides", "pattern": "of the form {}",
        "min_length": f"with {{}} or more {unit}", "max_length": f"with {{}} or fewer {unit}",
    }  # fmt: skip
    said = [text.format(found[name]) for name, text in words.items() if name in found]
    return f" {' and '.join(said)}" if said else ""


def _listed(items: list[str]) -> str:
    """``"a, b or c"``; what a person writes comes before null."""
    items = list(dict.fromkeys(items))
    items.sort(key=lambda text: text == "null")
    return " or ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def _parts(kind: Any) -> Iterator[Any]:
    """The types that a field takes, apart."""
    if get_origin(kind) in (Union, types.UnionType, Annotated):
        for part in get_args(kind)[: 1 if get_origin(kind) is Annotated else None]:
            yield from _parts(part)
    else:
        yield kind


def _literals(kind: Any) -> list[str]:
    return [str(v) for part in _parts(kind) if get_origin(part) is Literal for v in get_args(part)]


def _containers(kind: Any) -> set[Any]:
    origins = {get_origin(part) or part for part in _parts(kind)}
    return {Mapping for one in origins if isinstance(one, type) and issubclass(one, Mapping)}


def _model_in(kind: Any) -> type[BaseModel] | None:
    """The configuration among the types of a field."""
    for part in _parts(kind):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
