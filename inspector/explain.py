"""What pydantic finds wrong with a station, in the words of station.toml: key, found, expected."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Location = tuple[int | str, ...]
LONGEST = 60  # characters of a value that are shown


def explain(model: type[BaseModel], error: ValidationError) -> list[tuple[Location, str]]:
    """(location, sentence) of each problem; the sentence names key, what was found, what was expected."""
    problems = []
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        if location[-1:] == ("[key]",) and problem["type"] == "value_error":  # a table's name
            location = location[:-1]
        key = key_of(location)
        problems.append((location, (f"{key}: " if key else "") + _sentence(model, location, problem)))
    return problems


def key_of(location: Location) -> str:
    """camera[1].folder.path: tables of a list count from 1."""
    return "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")


def written(value: object) -> str:
    """The value as station.toml would have it."""
    if isinstance(value, BaseModel | Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _sentence(model: type[BaseModel], location: Location, problem: Mapping[str, Any]) -> str:
    found = written(problem.get("input"))
    if problem["type"] == "extra_forbidden":
        return f"unknown key (found {found}); {_known_keys(model, location)}"
    if problem["type"] == "value_error":  # our own validators know best what they expected
        message = str(problem["ctx"]["error"])
        return message if "found " in message else f"found {found}; expected {message}"
    what = _expected(model, location)
    return f"missing; expected {what}" if problem["type"] == "missing" else f"found {found}; expected {what}"


def _known_keys(model: type[BaseModel], location: Location) -> str:
    table = _kind(model, location[:-1])[0]
    known = list(table.model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"expected {near[0]}?" if near else f"expected one of {', '.join(known)}"


def _kind(model: type[BaseModel], location: Location) -> tuple[Any, list[Any]]:
    """Annotation and constraints of the field at this location."""
    kind: Any = model
    constraints: list[Any] = []
    for part in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            info: FieldInfo = kind.model_fields[str(part)]
            kind, constraints = _bare(info.annotation), info.metadata
        else:
            kind, constraints = _bare(get_args(kind)[1 if get_origin(kind) is dict else 0]), []
    return kind, constraints


def _bare(kind: Any) -> Any:
    """Without Annotated and without the None of an optional key."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        given = [one for one in get_args(kind) if one is not type(None)]
        return _bare(given[0]) if len(given) == 1 else kind
    return kind


def _expected(model: type[BaseModel], location: Location) -> str:
    kind, constraints = _kind(model, location)
    name = str(location[-1]) if location else ""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(written(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return f"a list of any of {', '.join(written(choice) for choice in get_args(get_args(kind)[0]))}"
    if get_origin(kind) is tuple:
        return f"tables [[{name}]], in double brackets, one for each {name}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if isinstance(location[-1], int):
            name = f"[{location[-2]}]"  # a table of a list has double brackets
        return f"a table [{name}] with {', '.join(kind.model_fields)}"
    if get_origin(kind) is dict:
        return f"a table [{name}]" if len(location) > 1 else f"a table [{name}.NAME] for each {name}"
    plain = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path in quotes"}
    return plain.get(kind, "text in quotes") + _range(constraints)


def _range(constraints: list[Any]) -> str:
    low = high = ""
    for one in constraints:
        match one:
            case Ge(ge):
                low = f"from {ge}"
            case Gt(gt):
                low = f"above {gt}"
            case Le(le):
                high = f"to {le}" if low.startswith("from") else f"up to {le}"
            case Lt(lt):
                high = f"below {lt}"
    if low.startswith("from") and not high:
        return f" {low.removeprefix('from ')} or more".replace(" ", ", ", 1)
    if low and high and not low.startswith("from"):
        low += " and"
    return "".join(f" {text}" for text in (low, high) if text)
