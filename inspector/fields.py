"""What the keys of station.toml may hold. The messages say what is expected, to follow "expected"."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError


class FromEnvironment(str):
    """A value of a variable, where numbers and switches are text too."""

    __slots__ = ()


def _slug(value: str) -> str:
    if not re.fullmatch(r"[\w-]{1,64}", value):
        raise ValueError("1 to 64 letters, digits, '-' and '_' (it names folders and log lines)")
    return value


def some(tables: Any) -> Any:
    """Refuse a list or table without entries."""
    if not tables:
        raise ValueError("at least one")
    return tables


def _text(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("text that is not empty, in one line")
    return value


def _host(value: str) -> str:
    if not value or not all(c.isalnum() or c in "-_.:%" for c in value):
        raise ValueError('an address or a name without spaces, such as "192.168.0.10"')
    if value.count(":") == 1:
        raise ValueError('an address alone, such as "192.168.0.10"; the port goes into plc.port')
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
        raise ValueError('"auto", "cpu", "cuda", or a certain GPU such as "cuda:1"')
    return value


def _path(value: Any) -> Any:
    """Refuse what would fail, or name the folder of station.toml, only when it is used."""
    if not isinstance(value, str) or (value.strip() and value.isprintable()):
        return value
    raise ValueError("a path that is not empty, in one line")


def _home(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError("a path; this machine has no user of that name for '~'") from None


def _feature(value: Any) -> Any:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    raise ValueError("true or false, a number, or text in quotes")


Name = Annotated[str, AfterValidator(_slug)]
Text = Annotated[str, AfterValidator(_text)]
FilePath = Annotated[Path, BeforeValidator(_path), AfterValidator(_home)]
Feature = Annotated[bool | int | float | str, BeforeValidator(_feature)]
Host = Annotated[str, AfterValidator(_host)]
Device = Annotated[str, AfterValidator(_device)]
Register = Annotated[int, Field(ge=0, le=65535)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Pixels = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Section(BaseModel):
    """A table of station.toml: a key that nobody knows is an error, not a typo to live with."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """In a file 502, "502" and true are three things, though pydantic would take one for another."""
        kind = cls.model_fields[str(info.field_name)].annotation
        slip = kind in (int, float) and isinstance(value, str | bool)
        slip |= kind is bool and not isinstance(value, bool)
        if slip and not isinstance(value, FromEnvironment):
            raise PydanticCustomError("wrong_type", "a value of another type")
        return value
