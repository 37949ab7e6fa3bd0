"""Log lines of the process: JSON under systemd or in a pipe, readable on a terminal."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress

import structlog

from inspector.settings import Logging


def configure(settings: Logging) -> None:
    """Set up structlog for this process; every line goes to standard error, with UTC time."""
    level = getattr(logging, settings.level.upper())
    json = settings.format == "json" or (settings.format == "auto" and _unattended())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if json:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(_Lossy()),  # type: ignore[arg-type]  # write, flush
        cache_logger_on_first_use=True,
    )


class _Lossy:
    """Standard error, whose lines are lost where its disk is full or its reader gone: that stops no part."""

    def write(self, text: str) -> int:
        """All of it, or as much as there is room for."""
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """What could be kept is written."""
        with suppress(OSError):
            sys.stderr.flush()


def _unattended() -> bool:
    return "JOURNAL_STREAM" in os.environ or not sys.stderr.isatty()
