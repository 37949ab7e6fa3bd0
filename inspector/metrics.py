"""The figures of `inspector status` for Prometheus, on a loopback port: [metrics] in station.toml."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from inspector.settings import Metrics
from inspector.status import Status
from inspector.tally import BUCKETS_MS, Counts

logger = structlog.get_logger()

HOST = "127.0.0.1"  # nobody on the network may ask the line PC; a Prometheus agent on it can
_WHY = {
    errno.EADDRINUSE: "is taken; choose another",
    errno.EACCES: "is not this user's to open; choose one above 1023",
}
STATES = ("starting", "inspecting", "fault", "stopping")


class Exporter:
    """Serves the metrics from threads of its own. A port that is taken costs the metrics, not the line."""

    def __init__(self, settings: Metrics, status: Status) -> None:
        self._settings = settings
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(status))
        self._server: Any = None

    def start(self) -> None:
        """Begin to serve, if [metrics] says so."""
        if not self._settings.enabled:
            return
        try:
            self._server, _ = start_http_server(self._settings.port, HOST, self._registry)
        except OSError as error:
            where = f"{HOST}:{self._settings.port}"
            why = _WHY.get(error.errno or 0, "cannot be had")
            logger.warning(f"no metrics: the port of [metrics] {why}", at=where, error=error.strerror)

    def close(self) -> None:
        """End."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Figures(Collector):
    """Makes metrics of a snapshot, at each question anew."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        """Nothing in advance: there is no station yet when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        now = self._status.snapshot()
        yield from _station(now)
        yield from _storage(now)
        if now["plc"]["enabled"]:
            yield from _plc(now["plc"])
        yield from _cameras(now["cameras"])
        yield _latencies({one["name"]: self._status.counts(one["name"]) for one in now["cameras"]})


def _station(now: dict[str, Any]) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "inspector", "The station.", {"version": now["version"], "station": now["station"]}
    )
    states = GaugeMetricFamily("inspector_state", "1 for the state that the station is in.", labels=["state"])
    for state in STATES:
        states.add_metric([state], now["state"] == state)
    yield states
    yield _gauge("inspector_uptime_seconds", "Since the daemon started.", now["uptime_s"])


def _storage(now: dict[str, Any]) -> Iterator[Metric]:
    log, disk, frames = now["log"], now["disk"], now["frames"]
    yield _gauge("inspector_log_ok", "1 while rows can be committed.", log["ok"])
    yield _gauge("inspector_rows_owed", "Rows that wait for the log.", log["rows_owed"])
    yield _gauge("inspector_frames_ok", "1 while frames can be stored.", frames["ok"])
    yield _gauge("inspector_frames_waiting", "Frames that wait for the disk.", frames["waiting"])
    yield CounterMetricFamily(
        "inspector_frames_given_up", "Frames that found the queue full.", frames["given_up"]
    )
    yield _gauge("inspector_disk_free_bytes", "Under the frames.", disk["free_mib"] << 20)
    yield _gauge("inspector_disk_floor_bytes", "Below it every part is FAULT.", disk["floor_mib"] << 20)


def _plc(plc: dict[str, Any]) -> Iterator[Metric]:
    yield _gauge("inspector_plc_connected", "1 while the PLC answers.", plc["connected"])
    yield _gauge(
        "inspector_plc_round_trip_seconds", "Of the last request.", (plc["round_trip_ms"] or 0) / 1000
    )
    yield CounterMetricFamily("inspector_plc_errors", "Requests that failed.", plc["errors"])
    yield CounterMetricFamily("inspector_plc_reconnects", "Connections after the first.", plc["reconnects"])


def _cameras(cameras: list[dict[str, Any]]) -> Iterator[Metric]:
    for name, text, value in (
        ("ready", "1 while parts can pass.", lambda one: one["ready"]),
        ("camera_ok", "1 while the camera is open.", lambda one: not one["problem"]),
        ("model_ok", "1 while the model may judge.", lambda one: one["model"]["ok"]),
        ("undelivered_verdicts", "Waiting for the PLC.", lambda one: one["undelivered"]),
        (
            "plc_heartbeat_still",
            "1 when the PLC's heart stands still.",
            lambda one: one["plc_heartbeat_still"],
        ),
        ("heartbeat_gap_seconds", "Our longest of late.", lambda one: one["heartbeat_gap_ms"] / 1000),
        ("late_in_a_row", "Verdicts not in time, the last ones.", lambda one: one["late_in_a_row"]),
    ):
        gauge = GaugeMetricFamily(f"inspector_{name}", text, labels=["camera"])
        for one in cameras:
            gauge.add_metric([one["name"]], value(one))
        yield gauge
    for name, text, value in (
        ("frames", "Frames of the camera.", lambda one: one["frames"]),
        ("camera_respawns", "Camera processes started anew.", lambda one: one["respawns"]),
        ("overruns", "Triggers while a part was in work.", lambda one: one["overruns"]),
    ):
        counter = CounterMetricFamily(f"inspector_{name}", text, labels=["camera"])
        for one in cameras:
            counter.add_metric([one["name"]], value(one))
        yield counter
    yield from _drifts(cameras)
    for name, label, key in (
        ("verdicts", "verdict", "verdicts"),
        ("faults", "reason", "faults"),
        ("frames_lost", "reason", "lost"),
    ):
        counter = CounterMetricFamily(f"inspector_{name}", f"By {label}.", labels=["camera", label])
        for one in cameras:
            for what, count in one[key].items():
                counter.add_metric([one["name"], what], count)
        yield counter


def _drifts(cameras: list[dict[str, Any]]) -> Iterator[Metric]:
    labels = ["camera", "quantity"]
    moved = GaugeMetricFamily("inspector_drift", "1 when parts have moved in this.", labels=labels)
    far = GaugeMetricFamily(
        "inspector_drift_distance", "Kolmogorov-Smirnov, to the calibration parts.", labels=labels
    )
    for one in cameras:
        for name, found in one["drift"]["quantities"].items():
            moved.add_metric([one["name"], name], found["moved"])
            if found["distance"] is not None:
                far.add_metric([one["name"], name], found["distance"])
    yield moved
    yield far


def _latencies(cameras: dict[str, Counts]) -> Metric:
    histogram = HistogramMetricFamily(
        "inspector_latency_seconds", "Trigger or frame to verdict written, of inspections.", labels=["camera"]
    )
    for name, counts in cameras.items():
        total, buckets = 0, []
        for limit in BUCKETS_MS:
            total += counts.buckets[limit]
            buckets.append((str(limit / 1000), total))
        inspected = counts.verdicts["PASS"] + counts.verdicts["REJECT"]
        histogram.add_metric([name], [*buckets, ("+Inf", inspected)], counts.latency_sum_ms / 1000)
    return histogram


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)
