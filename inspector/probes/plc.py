"""The PLC: reachable, how fast, alive. Reads only."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from inspector.doctor import FAIL, OK, WARN, Finding
from inspector.errors import PlcError
from inspector.plc.link import Link
from inspector.plc.registers import Order
from inspector.settings import CameraSettings, Plc, Settings

READS = 10


def plc(settings: Settings) -> Iterator[Finding]:
    """Reads each camera's two register blocks, times it, and watches the PLC's heartbeat."""
    if not settings.plc.enabled:
        advice = "set plc.enabled = true when the line is connected"
        yield Finding(WARN, "plc", "switched off: verdicts go to the log alone", advice)
        return
    to = settings.plc
    order = Order(to.word_order, to.byte_order)
    timeout_s = to.timeout_ms / 1000
    with Link(to.host, to.port, device_id=to.device_id, timeout_s=timeout_s, order=order) as link:
        try:
            times = [_round_trip(link, camera) for camera in settings.camera for _ in range(READS)]
        except PlcError as error:
            yield Finding(FAIL, "plc", str(error))
            return
        yield _reachable(link.address, to, times)
        for camera in settings.camera:
            yield _heartbeat(link, camera, to.heartbeat_timeout_s)


def _round_trip(link: Link, camera: CameraSettings) -> float:
    """Milliseconds for one read of the PLC's block; the inspector's must be there as well."""
    link.read_inspector(camera.inspector_base)
    link.read_plc(camera.plc_base)
    return link.round_trip_ms or 0.0


def _reachable(address: str, plc: Plc, times: list[float]) -> Finding:
    median, worst = statistics.median(times), max(times)
    message = f"{address} answers in {median:.1f} ms (median of {len(times)}), {worst:.1f} ms at worst"
    if worst > plc.timeout_ms / 2:
        advice = (
            f"too near to plc.timeout_ms = {plc.timeout_ms}: raise it, or give the PLC a network of its own"
        )
        return Finding(WARN, "plc", message, advice)
    return Finding(OK, "plc", message)


def _heartbeat(link: Link, camera: CameraSettings, timeout_s: float) -> Finding:
    subject, register = f"plc {camera.name}", camera.plc_base
    end = time.monotonic() + timeout_s
    first = link.read_plc(register).heartbeat
    while time.monotonic() < end:
        time.sleep(min(0.05, timeout_s / 10))
        if link.read_plc(register).heartbeat != first:
            return Finding(OK, subject, f"heartbeat of the PLC counts (register {register})")
    message = f"heartbeat of the PLC (register {register}) stands still at {first} for {timeout_s:g} s"
    return Finding(
        WARN, subject, message, "the PLC's program must count it up; the daemon will raise an alarm"
    )
