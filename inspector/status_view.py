"""`inspector status` for people: the snapshot of a running daemon as a page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

COLOURS = {"inspecting": "bold green", "starting": "yellow", "stopping": "yellow", "fault": "bold red"}


def show(now: dict[str, Any], console: Console | None = None) -> None:
    """Print it; problems first."""
    console = console or Console(highlight=False)
    state, up = now["state"], timedelta(seconds=round(now["uptime_s"]))
    console.print(
        f"[{COLOURS[state]}]{state}[/]  station {escape(now['station'])}, up {up}, "
        f"inspector {now['version']}, pid {now['pid']}"
    )
    for problem in now["problems"]:
        console.print(f"[red]FAULT[/] {escape(problem)}", soft_wrap=True)
    for warning in now["warnings"]:
        console.print(f"[yellow]WARNING[/] {escape(warning)}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for subject, text in (*_cameras(now["cameras"]), *_rest(now)):
        table.add_row(subject, escape(text))
    console.print(table)


def _cameras(cameras: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for one in cameras:
        verdicts, latency, model = one["verdicts"], one["latency_ms"], one["model"]
        lost = sum(one["lost"].values())
        ready = "ready" if one["ready"] else "not ready"
        yield (
            f"camera {one['name']}",
            f"{ready}, {one['state']}, {one['device'] or 'no device'}; trigger {one['trigger']}, "
            f"{one['frames']} frames, {lost} lost, {one['respawns']} respawns",
        )
        yield (
            "  verdicts",
            f"{verdicts['PASS']} pass, {verdicts['REJECT']} reject, {verdicts['FAULT']} fault"
            + _listed(one["faults"])
            + f"; {one['overruns']} overruns, {one['undelivered']} undelivered",
        )
        if latency["of"]:
            yield (
                "  latency",
                f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, max {latency['max']:.1f} ms "
                f"(the last {latency['of']} inspections)",
            )
        if one["last"]:
            last, score = one["last"], one["last"]["score"]
            why = f" ({last['reason']})" if last["reason"] else "" if score is None else f" at {score:.6g}"
            yield (
                "  last",
                f"sequence {last['sequence']}, part {last['part_id']}: {last['verdict']}{why} "
                f"at {last['time']}",
            )
        threshold = "not calibrated" if model["threshold"] is None else f"threshold {model['threshold']:.6g}"
        bundle = f"bundle {model['bundle'][:12]}, {threshold}" if model["bundle"] else "no bundle"
        yield (
            "  model",
            f"{'ok' if model['ok'] else 'FAULT'}, recipe {model['recipe']}, {bundle}, {model['where']}",
        )
        if model["promise"]:
            yield "  threshold", model["promise"]
        drift = one["drift"]
        state = "MOVED" if drift["moved"] else drift["state"]
        yield "  drift", f"{state}, {drift['message']} ({drift['parts_today']} parts today)"


def _rest(now: dict[str, Any]) -> Iterator[tuple[str, str]]:
    plc, log, disk, frames = now["plc"], now["log"], now["disk"], now["frames"]
    if not plc["enabled"]:
        yield "PLC", "not used (plc.enabled = false)"
    else:
        trip = "" if plc["round_trip_ms"] is None else f", {plc['round_trip_ms']:.1f} ms a request"
        yield (
            "PLC",
            f"{'connected' if plc['connected'] else 'NOT CONNECTED'} to {plc['address']}{trip}, "
            f"{plc['errors']} errors, {plc['reconnects']} reconnects",
        )
        still = [one["name"] for one in now["cameras"] if one["plc_heartbeat_still"]]
        gap = max(one["heartbeat_gap_ms"] for one in now["cameras"])
        yield (
            "  heartbeats",
            f"the PLC's {'STILL beside ' + ', '.join(still) if still else 'beats'}, "
            f"our longest pause {gap} ms",
        )
        if plc["last_error"]:
            yield "  last error", plc["last_error"]
    yield "log", f"{'ok' if log['ok'] else 'FAULT'}, {log['file']}, {log['rows_owed']} rows owed"
    for name in log["set_aside"]:
        yield "  set aside", f"{name}: a damaged log, kept (`sqlite3 {name} .recover` reads what is left)"
    yield (
        "disk",
        f"{'ok' if disk['ok'] else 'FAULT'}, {disk['free_mib']} MiB free, "
        f"the floor is {disk['floor_mib']} MiB",
    )
    yield (
        "frames",
        f"{'ok' if frames['ok'] else 'FAULT'}, {frames['waiting']} wait for the disk, "
        f"{frames['given_up']} given up",
    )


def _listed(faults: dict[str, int]) -> str:
    return f" ({', '.join(f'{count} {reason}' for reason, count in faults.items())})" if faults else ""
