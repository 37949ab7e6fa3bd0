"""A station file as it is written, whatever it says."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from inspector.errors import SettingsError


def read(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The file's tables. known: names that one may have. Raises SettingsError naming the file."""
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors put a mark in front
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file; expected a station file (give one with --config, or copy station.toml)"
        ) from None
    except IsADirectoryError:
        raise SettingsError(f"{path}: is a folder; expected a station file such as station.toml") from None
    except PermissionError:
        raise SettingsError(f"{path}: may not be read by this user; expected a readable file") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); expected a station file") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: not a station file: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}: not UTF-8 text (at line {line}); expected a TOML file") from None
    for key in table:
        if key not in known and key.startswith("_"):  # pydantic-settings has such arguments
            raise SettingsError(f"{path}: {key}: unknown key; expected one of {', '.join(known)}")
    return table
