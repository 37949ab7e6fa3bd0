"""Coils that the PLC refuses, looked after in the line loop: told once, tried again until they are off."""

from __future__ import annotations

import time

from inspector.channel import Channel
from inspector.delivery import Delivery
from inspector.journal import Journal
from inspector.plc.registers import NO_VERDICT


class CoilWatch:
    """Every verdict tries the coils as well; a line that waits for READY would send no part for that."""

    def __init__(self, delivery: Delivery, journal: Journal, pause_s: float) -> None:
        self._delivery = delivery
        self._journal = journal
        self._pause_s = pause_s
        self._tried: dict[str, float] = {}
        self._told: set[str] = set()

    def look(self, channel: Channel) -> None:
        """Try to switch both off, once in pause_s at most; tell what has changed. Raises PlcError."""
        now = time.monotonic()
        if channel.coils_refused and now - self._tried.get(channel.name, float("-inf")) >= self._pause_s:
            self._tried[channel.name] = now
            self._switch_off(channel)
        refused, told = channel.coils_refused, channel.name in self._told
        if refused and not told:
            self._told.add(channel.name)
            self._journal.note("coils", "error", f"every part is FAULT: {refused}", channel.name)
        elif told and not refused:
            self._told.remove(channel.name)
            self._journal.note("coils", "info", "the PLC takes the coils again", channel.name)

    def _switch_off(self, channel: Channel) -> None:
        """A verdict that is just being given needs no help: coils of its own follow it."""
        if not channel.lock.acquire(blocking=False):
            return
        try:
            if channel.coils_refused:
                self._delivery.write_coils(channel, NO_VERDICT, on=channel.taken_up)
        finally:
            channel.lock.release()
