"""station.toml and INSPECTOR_* → typed settings. Unknown keys are refused.

Order of precedence: environment (INSPECTOR_PLC__HOST=…), station.toml, defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as NotJsonError

from inspector import overrides
from inspector.errors import SettingsError
from inspector.explain import explain
from inspector.fields import (
    Device,
    Feature,
    FilePath,
    Fraction,
    Host,
    Name,
    Pixels,
    Register,
    Seconds,
    Section,
    Text,
    some,
)
from inspector.plc.registers import INSPECTOR_REGISTERS, PLC_REGISTERS
from inspector.station_file import read

ENV_FILE_KEY = overrides.FILE_KEY


class Station(Section):
    """The line PC and where it keeps things."""

    name: Name = "station"
    data: FilePath = Path("data")
    startup_timeout_s: Seconds = 30.0


class Log(Section):
    """The audit log and the stored frames."""

    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    frames: Literal["all", "not-passed", "none"] = "all"
    min_free_mib: NonNegativeInt = 512
    backlog: Annotated[int, Field(ge=1, le=10_000)] = 64


class Coils(Section):
    """Optional outputs for simple PLCs; they follow the registers, never lead them."""

    passed: Register
    rejected: Register


class Plc(Section):
    """The Modbus TCP server that is the PLC."""

    enabled: bool = True
    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 502
    device_id: Annotated[int, Field(ge=0, le=255)] = 1
    timeout_ms: Annotated[int, Field(ge=10, le=5000)] = 200
    poll_ms: Annotated[int, Field(ge=1)] = 5  # and heartbeat_ms at most
    heartbeat_ms: Annotated[int, Field(ge=20, le=500)] = 200
    heartbeat_timeout_s: Seconds = 2.0
    word_order: Literal["big", "little"] = "big"
    byte_order: Literal["big", "little"] = "big"


class Folder(Section):
    """Replays images instead of a camera."""

    path: FilePath
    fps: Annotated[float, Field(gt=0, le=10_000)] = 2.0
    order: Literal["sorted", "shuffled"] = "sorted"
    repeat: bool = True
    seed: int = 0


class Genicam(Section):
    """A GenTL producer and the device to take from it."""

    producer: FilePath | None = None
    serial: Text | None = None
    user_id: Text | None = None
    model: Text | None = None
    buffers: Annotated[int, Field(ge=2, le=64)] = 8
    features: Annotated[dict[str, Feature], Field(default_factory=dict)]

    @model_validator(mode="after")
    def _one_device(self) -> Genicam:
        found = [key for key in ("serial", "user_id", "model") if getattr(self, key) is not None]
        if len(found) != 1:
            raise ValueError(
                f"found {' and '.join(found) or 'no device'}; expected exactly one of serial, user_id "
                "and model, which says the device to take"
            )
        return self


class CameraSettings(Section):
    """One camera, its place in the PLC's registers, and what makes a part."""

    name: Name
    recipe: Name
    trigger: Literal["camera", "plc", "interval"] = "camera"
    inspector_base: Register = 100
    plc_base: Register = 200
    coils: Coils | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] = 1000
    silence_s: Seconds = 5.0
    ring_slots: Annotated[int, Field(ge=2, le=64)] = 4
    ring_slot_mib: Annotated[int, Field(ge=1, le=4096)] = 32
    folder: Folder | None = None
    genicam: Genicam | None = None

    @property
    def kind(self) -> Literal["folder", "genicam"]:
        """Which implementation of the Camera protocol serves it."""
        return "genicam" if self.folder is None else "folder"

    @model_validator(mode="after")
    def _one_kind(self) -> CameraSettings:
        if (self.folder is None) == (self.genicam is None):
            found = "neither" if self.folder is None else "both"
            raise ValueError(
                f"found {found} of the tables [camera.folder] and [camera.genicam]; expected exactly one"
            )
        return self


class Roi(Section):
    """The part of the frame that the model sees, in pixels of the frame."""

    x: Register
    y: Register
    width: Pixels
    height: Pixels


class Recipe(Section):
    """What an integrator calls a product."""

    number: Register = 1
    method: Literal["paper", "restore", "feature"] | None = None
    preset: Literal["tiny", "small", "paper"] = "small"
    backbone: str = ""
    backbone_weights: FilePath | None = None
    symmetries: tuple[Literal["flip-x", "flip-y", "turn-90", "turn"], ...] = ()
    exposure: Literal["even", "as-is"] | None = None
    roi: Roi | None = None
    false_reject_rate: Fraction = 0.005
    confidence: Fraction = 0.95

    @model_validator(mode="after")
    def _backbone_is_for_feature(self) -> Recipe:
        if self.method not in (None, "feature") and (self.backbone or self.backbone_weights is not None):
            raise ValueError('backbone and backbone_weights need method = "feature"')
        return self

    @property
    def region(self) -> tuple[int, int, int, int] | None:
        """The roi as x, y, width, height."""
        return None if self.roi is None else (self.roi.x, self.roi.y, self.roi.width, self.roi.height)


class EngineSettings(Section):
    """Where and how the model runs."""

    device: Device = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    runtime: Literal["torch", "openvino"] = "torch"

    @model_validator(mode="after")
    def _openvino_is_for_the_cpu(self) -> EngineSettings:
        if self.runtime == "openvino" and (self.device.startswith("cuda") or self.precision != "float32"):
            raise ValueError('runtime = "openvino" needs the CPU and precision = "float32"')
        return self


class Logging(Section):
    """Log lines of the process itself (decisions are in the audit log)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Metrics(Section):
    """Figures for Prometheus, on the loopback address."""

    enabled: bool = False
    port: Annotated[int, Field(ge=1, le=65535)] = 9464


class Retrain(Section):
    """Training anew at night, from what the line has collected."""

    enabled: bool = True
    days: Annotated[int, Field(ge=1, le=3650)] = 30
    min_parts: Annotated[int, Field(ge=4, le=1_000_000)] = 100
    parts: Annotated[int, Field(ge=4, le=1_000_000)] = 500
    floor: Annotated[float, Field(ge=0, le=1)] = 0.2
    start: Literal["scratch", "warm"] = "scratch"
    auroc_margin: Annotated[float, Field(ge=0, le=1)] = 0.02
    escape_margin: Annotated[float, Field(ge=0, le=1)] = 0.05
    reject_margin: Annotated[float, Field(ge=0, le=1)] = 0.05
    require_gpu: bool = False


class Settings(Section):
    """A whole station."""

    station: Station = Station()
    log: Log = Log()
    plc: Plc = Plc()
    engine: EngineSettings = EngineSettings()
    logging: Logging = Logging()
    metrics: Metrics = Metrics()
    retrain: Retrain = Retrain()
    camera: Annotated[tuple[CameraSettings, ...], AfterValidator(some)]
    recipe: Annotated[dict[Name, Recipe], AfterValidator(some)]

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        _refuse_twins("[[camera]] tables", {f"camera[{i + 1}]": c.name for i, c in enumerate(self.camera)})
        _refuse_twins("recipes", {f"recipe.{name}": one.number for name, one in self.recipe.items()})
        for camera in self.camera:
            if camera.recipe not in self.recipe:
                raise ValueError(
                    f"camera '{camera.name}': found recipe = \"{camera.recipe}\"; expected a recipe that has "
                    f"its table here: {', '.join(sorted(self.recipe))}"
                )
            if camera.trigger == "plc" and not self.plc.enabled:
                raise ValueError(
                    f"camera '{camera.name}': found trigger = \"plc\" with plc.enabled = false; expected "
                    "plc.enabled = true, or another trigger"
                )
        if self.plc.heartbeat_ms >= 1000 * self.plc.heartbeat_timeout_s:
            raise ValueError(
                f"plc.heartbeat_timeout_s: found {self.plc.heartbeat_timeout_s:g}; expected more than "
                f"plc.heartbeat_ms ({self.plc.heartbeat_ms} ms): the PLC's heartbeat is read at that pace"
            )
        if self.plc.poll_ms > self.plc.heartbeat_ms:
            raise ValueError(
                f"plc.poll_ms: found {self.plc.poll_ms}; expected plc.heartbeat_ms ({self.plc.heartbeat_ms}) "
                "at most: our heartbeat is written between two polls"
            )
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


class _Loaded(BaseSettings, Settings):
    """Settings that are read: the environment wins over the file, which arrives as arguments."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=overrides.PREFIX, env_nested_delimiter="__"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return overrides.Environment(settings_cls), init_settings


def _refuse_twins(what: str, values: Mapping[str, str | int]) -> None:
    """Names tell cameras apart in the log, numbers tell recipes apart on the PLC."""
    seen: dict[str | int, str] = {}
    for where, value in values.items():
        if value in seen:
            key = "name" if isinstance(value, str) else "number"
            raise ValueError(
                f"{where}.{key}: found {value!r}, which {seen[value]} has; expected a {key} of its own"
            )
        seen[value] = where


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
                    raise ValueError(
                        f"{where}: found {coil}, which {coils[coil]} has; expected a coil of its own"
                    )
                coils[coil] = where
    blocks.sort()
    for base, length, where in blocks:
        if base + length > 65536:
            raise ValueError(
                f"{where}: found {base}; expected at most {65536 - length}, as {length} registers follow it"
            )
    for (low, length, first), (high, _, second) in pairwise(blocks):
        if low + length > high:
            raise ValueError(
                f"{second}: found {high}; expected a base outside of registers {low} to {low + length - 1}, "
                f"which {first} = {low} takes"
            )


def config_path(given: Path | None) -> Path:
    """The file to read: the argument, else INSPECTOR_CONFIG, else ./station.toml."""
    return given or Path(os.environ.get(ENV_FILE_KEY, "station.toml"))


def load(path: Path) -> Settings:
    """Read and check a station file. Relative paths in it count from the file's own folder.

    Raises SettingsError naming file, key, what was found and what was expected.
    """
    table = read(path, Settings.model_fields)
    overrides.refuse_unknown(path, table, Settings.model_fields)
    try:
        settings = _Loaded(**table)
    except ValidationError as error:
        problems = explain(Settings, error)
        raise SettingsError(
            "\n".join(f"{overrides.origin(path, at)}: {text}" for at, text in problems)
        ) from None
    except NotJsonError as error:
        raise SettingsError(overrides.not_json(error, Settings.model_fields)) from None
    return _anchored(settings, path.resolve().parent)


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Make every path absolute, so that the daemon may be started from anywhere."""

    def camera(one: CameraSettings) -> CameraSettings:
        if one.folder is not None:
            moved = one.folder.model_copy(update={"path": folder / one.folder.path})
            return one.model_copy(update={"folder": moved})
        if one.genicam is not None and one.genicam.producer is not None:
            producer = folder / one.genicam.producer
            return one.model_copy(update={"genicam": one.genicam.model_copy(update={"producer": producer})})
        return one

    def recipe(one: Recipe) -> Recipe:
        if one.backbone_weights is None:
            return one
        return one.model_copy(update={"backbone_weights": folder / one.backbone_weights})

    return settings.model_copy(
        update={
            "station": settings.station.model_copy(update={"data": folder / settings.station.data}),
            "camera": tuple(camera(one) for one in settings.camera),
            "recipe": {name: recipe(one) for name, one in settings.recipe.items()},
        }
    )
