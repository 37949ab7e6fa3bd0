"""station.toml and INSPECTOR_* → typed settings. Unknown keys are refused.

Order of precedence: environment (INSPECTOR_PLC__HOST=…), station.toml, defaults.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from inspector.errors import SettingsError
from inspector.plc.registers import INSPECTOR_REGISTERS, PLC_REGISTERS

ENV_PREFIX = "INSPECTOR_"
ENV_FILE_KEY = "INSPECTOR_CONFIG"


def _slug(value: str) -> str:
    if not value or not all(c.isalnum() or c in "-_" for c in value):
        raise ValueError("must be made of letters, digits, '-' and '_' (it names folders and log lines)")
    return value


Name = Annotated[str, AfterValidator(_slug)]
Register = Annotated[int, Field(ge=0, le=65535)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A table of station.toml: a key that nobody knows is an error, not a typo to live with."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Station(Section):
    """The line PC and where it keeps things."""

    name: Name = "station"
    data: Path = Path("data")
    startup_timeout_s: PositiveFloat = 30.0


class Log(Section):
    """The audit log and the stored frames."""

    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    frames: Literal["all", "not-passed", "none"] = "all"
    min_free_mib: NonNegativeInt = 512
    backlog: PositiveInt = 64


class Coils(Section):
    """Optional outputs for simple PLCs; they follow the registers, never lead them."""

    passed: Register
    rejected: Register


class Plc(Section):
    """The Modbus TCP server that is the PLC."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    device_id: Annotated[int, Field(ge=0, le=255)] = 1
    timeout_ms: Annotated[int, Field(ge=10, le=5000)] = 200
    poll_ms: Annotated[int, Field(ge=1, le=1000)] = 5
    heartbeat_ms: Annotated[int, Field(ge=20, le=1000)] = 200
    heartbeat_timeout_s: PositiveFloat = 2.0
    word_order: Literal["big", "little"] = "big"
    byte_order: Literal["big", "little"] = "big"


class Folder(Section):
    """Replays images instead of a camera."""

    path: Path
    fps: PositiveFloat = 2.0
    order: Literal["sorted", "shuffled"] = "sorted"
    repeat: bool = True
    seed: int = 0


class Genicam(Section):
    """A GenTL producer and the device to take from it."""

    producer: Path | None = None
    serial: str | None = None
    user_id: str | None = None
    model: str | None = None
    buffers: Annotated[int, Field(ge=2, le=64)] = 8
    features: dict[str, bool | int | float | str] = {}

    @model_validator(mode="after")
    def _one_device(self) -> Genicam:
        if sum(key is not None for key in (self.serial, self.user_id, self.model)) != 1:
            raise ValueError("choose the device by exactly one of serial, user_id or model")
        return self


class CameraSettings(Section):
    """One camera, its place in the PLC's registers, and what makes a part."""

    name: Name
    recipe: Name
    trigger: Literal["camera", "plc", "interval"] = "camera"
    inspector_base: Register = 100
    plc_base: Register = 200
    coils: Coils | None = None
    deadline_ms: PositiveInt = 1000
    silence_s: PositiveFloat = 5.0
    ring_slots: Annotated[int, Field(ge=2, le=64)] = 4
    ring_slot_mib: PositiveInt = 32
    folder: Folder | None = None
    genicam: Genicam | None = None

    @property
    def kind(self) -> Literal["folder", "genicam"]:
        """Which implementation of the Camera protocol serves it."""
        return "genicam" if self.folder is None else "folder"

    @model_validator(mode="after")
    def _one_kind(self) -> CameraSettings:
        if (self.folder is None) == (self.genicam is None):
            raise ValueError("give exactly one of the tables camera.folder and camera.genicam")
        return self


class Roi(Section):
    """The part of the frame that the model sees, in pixels of the frame."""

    x: NonNegativeInt
    y: NonNegativeInt
    width: PositiveInt
    height: PositiveInt


class Recipe(Section):
    """What an integrator calls a product."""

    number: Register = 1
    method: Literal["paper", "restore", "feature"] = "paper"
    preset: Name = "small"
    roi: Roi | None = None
    false_reject_rate: Fraction = 0.005
    confidence: Fraction = 0.95

    @property
    def region(self) -> tuple[int, int, int, int] | None:
        """The roi as x, y, width, height."""
        return None if self.roi is None else (self.roi.x, self.roi.y, self.roi.width, self.roi.height)


class EngineSettings(Section):
    """Where and how the model runs."""

    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: NonNegativeInt = 0


class Logging(Section):
    """Log lines of the process itself (decisions are in the audit log)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(BaseSettings):
    """A whole station."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter="__"
    )

    station: Station = Station()
    log: Log = Log()
    plc: Plc = Plc()
    engine: EngineSettings = EngineSettings()
    logging: Logging = Logging()
    camera: Annotated[tuple[CameraSettings, ...], Field(min_length=1)]
    recipe: dict[Name, Recipe]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which arrives as init arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        names = [camera.name for camera in self.camera]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"camera name '{name}' is used twice; names tell cameras apart in the log")
        for camera in self.camera:
            if camera.recipe not in self.recipe:
                known = ", ".join(sorted(self.recipe)) or "none"
                raise ValueError(
                    f"camera '{camera.name}': recipe '{camera.recipe}' has no table [recipe.{camera.recipe}] "
                    f"(recipes here: {known})"
                )
            if camera.trigger == "plc" and not self.plc.enabled:
                raise ValueError(f"camera '{camera.name}': trigger = \"plc\" needs plc.enabled = true")
        if self.plc.heartbeat_ms >= 1000 * self.plc.heartbeat_timeout_s:
            raise ValueError("plc.heartbeat_ms must be shorter than plc.heartbeat_timeout_s")
        _refuse_overlaps(self.camera)
        return self

    @property
    def database(self) -> Path:
        """The SQLite file of the audit log."""
        return self.station.data / "inspector.db"

    @property
    def frames(self) -> Path:
        """The folder of stored frames."""
        return self.station.data / "frames"

    @property
    def models(self) -> Path:
        """The folder of bundles, one sub-folder a recipe."""
        return self.station.data / "models"


def _refuse_overlaps(cameras: tuple[CameraSettings, ...]) -> None:
    """Two blocks on the same register would let one camera's verdict overwrite another's."""
    blocks: list[tuple[int, int, str]] = []
    coils: dict[int, str] = {}
    for camera in cameras:
        blocks.append((camera.inspector_base, INSPECTOR_REGISTERS, f"camera '{camera.name}' inspector_base"))
        blocks.append((camera.plc_base, PLC_REGISTERS, f"camera '{camera.name}' plc_base"))
        if camera.coils is not None:
            for key, coil in (("passed", camera.coils.passed), ("rejected", camera.coils.rejected)):
                where = f"camera '{camera.name}' coils.{key}"
                if coil in coils:
                    raise ValueError(f"{where} = {coil} is taken by {coils[coil]}")
                coils[coil] = where
    blocks.sort()
    for base, length, where in blocks:
        if base + length > 65536:
            raise ValueError(f"{where} = {base} leaves no room for {length} registers below 65536")
    for (low, length, first), (high, _, second) in pairwise(blocks):
        if low + length > high:
            raise ValueError(
                f"{second} = {high} overlaps {first} = {low}, "
                f"which takes registers {low} to {low + length - 1}"
            )


def config_path(given: Path | None) -> Path:
    """The file to read: the argument, else INSPECTOR_CONFIG, else ./station.toml."""
    return given or Path(os.environ.get(ENV_FILE_KEY, "station.toml"))


def load(path: Path) -> Settings:
    """Read and check a station file. Relative paths in it count from the file's own folder.

    Raises SettingsError naming file, key, what was found and what was expected.
    """
    table = _read(path)
    _refuse_unknown_environment(path)
    try:
        settings = Settings(**table)
    except ValidationError as error:
        raise SettingsError(_explain(path, error)) from None
    return _anchored(settings, path.resolve().parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file; expected a station file (give one with --config, or copy station.toml)"
        ) from None
    except IsADirectoryError:
        raise SettingsError(f"{path}: is a folder; expected a station file such as station.toml") from None
    except PermissionError:
        raise SettingsError(f"{path}: may not be read by this user; expected a readable file") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8 text; expected a TOML file") from None


def _refuse_unknown_environment(path: Path) -> None:
    """pydantic-settings ignores an INSPECTOR_* variable that fits no section; a typo must not pass."""
    sections = {name.upper() for name in Settings.model_fields}
    for key in os.environ:
        if not key.startswith(ENV_PREFIX) or key == ENV_FILE_KEY or key.startswith("INSPECTOR_TEST_"):
            continue
        section = key.removeprefix(ENV_PREFIX).split("__")[0]
        if section not in sections:
            expected = ", ".join(f"{ENV_PREFIX}{name}__…" for name in sorted(sections))
            raise SettingsError(
                f"environment variable {key}: fits no section of {path}; expected one of {expected}"
            )


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Make every path absolute, so that the daemon may be started from anywhere."""

    def camera(one: CameraSettings) -> CameraSettings:
        if one.folder is not None:
            path = folder / one.folder.path.expanduser()
            return one.model_copy(update={"folder": one.folder.model_copy(update={"path": path})})
        if one.genicam is not None and one.genicam.producer is not None:
            path = folder / one.genicam.producer.expanduser()
            return one.model_copy(update={"genicam": one.genicam.model_copy(update={"producer": path})})
        return one

    data = folder / settings.station.data.expanduser()
    return settings.model_copy(
        update={
            "station": settings.station.model_copy(update={"data": data}),
            "camera": tuple(camera(one) for one in settings.camera),
        }
    )


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = _key(problem["loc"])
        where = _origin(path, problem["loc"])
        lines.append(f"{where}: {key}{_what(problem)}")
    return "\n".join(lines)


def _origin(path: Path, location: tuple[int | str, ...]) -> str:
    """Name the environment variable instead of the file when it is the one that set the key."""
    variable = ENV_PREFIX + "__".join(str(part).upper() for part in location)
    for key in os.environ:
        if key.startswith(ENV_PREFIX) and (variable == key or variable.startswith(key + "__")):
            return f"environment variable {key}"
    return str(path)


def _key(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") + ": " if text else ""


def _what(problem: Mapping[str, Any]) -> str:
    kind, found = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return f"unknown key (found {found!r}); expected a key that station.toml explains"
    if kind == "missing":
        return "missing; this key has no default"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if isinstance(found, BaseModel | dict | list | tuple):
        return message[0].lower() + message[1:]
    return f"found {found!r}; expected: {message[0].lower() + message[1:]}"
