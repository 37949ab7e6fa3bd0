"""The simulator's registers on a terminal: live where there is one, a line for each change where not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from queue import Empty
from threading import Event
from typing import Final

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from inspector.plc.registers import FAULT, NO_VERDICT, PASS, REJECT, InspectorBlock, Status
from inspector.plc.simulator import Seen, Simulator
from inspector.plc.simulator_line import Line

_VERDICTS: Final = {
    NO_VERDICT: ("none yet", "dim"),
    PASS: ("PASS", "bold green"),
    REJECT: ("REJECT", "bold red"),
    FAULT: ("FAULT", "bold yellow"),
}
_LATEST: Final = 8
_REFRESH_HZ: Final = 10


def show(simulator: Simulator, lines: Sequence[Line], console: Console, stop: Event) -> None:
    """Show the simulator until `stop` is set: redrawn in place on a terminal, else line by line."""
    if console.is_terminal:
        _live(simulator, lines, console, stop)
    else:
        _plain(simulator, console, stop)


def render(simulator: Simulator, lines: Sequence[Line]) -> RenderableType:
    """The registers of every camera, raw and decoded, its latest verdicts and its line's counts."""
    playing = {line.camera: line for line in lines}
    return Group(*(_camera(simulator, name, playing.get(name)) for name in simulator.cameras))


def describe(seen: Seen) -> str:
    """One verdict as a line of text."""
    block = seen.block
    name = _VERDICTS.get(block.verdict, (str(block.verdict), ""))[0]
    return (
        f"{seen.camera}: {name} sequence {block.sequence} part {block.part_id} score {_number(block.score)} "
        f"threshold {_number(block.threshold)} recipe {block.recipe} latency {_latency(block)}"
    )


def _live(simulator: Simulator, lines: Sequence[Line], console: Console, stop: Event) -> None:
    with Live(render(simulator, lines), console=console, refresh_per_second=_REFRESH_HZ) as live:
        while not stop.wait(1 / _REFRESH_HZ):
            live.update(render(simulator, lines))


def _plain(simulator: Simulator, console: Console, stop: Event) -> None:
    verdicts = simulator.listen()
    alive: dict[str, bool] = {}
    status: dict[str, Status] = {}
    while not stop.is_set() or not verdicts.empty():
        with contextlib.suppress(Empty):
            _line(console, describe(verdicts.get(timeout=0.1)))
        for name in simulator.cameras:
            if alive.get(name) != (now := simulator.alive(name)):
                alive[name] = now
                _line(console, f"{name}: heartbeat {'alive' if now else 'STILL'}")
            flags = simulator.inspector(name).status & ~Status.BUSY
            if status.get(name) != flags:
                status[name] = flags
                _line(console, f"{name}: status {_status(flags)}")


def _line(console: Console, text: str) -> None:
    stamp = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    console.print(f"{stamp} {text}", highlight=False, markup=False, soft_wrap=True)


def _camera(simulator: Simulator, name: str, line: Line | None) -> RenderableType:
    tables = [_inspector(simulator, name), _plc(simulator, name), _latest(simulator, name)]
    body: list[RenderableType] = [Columns(tables, padding=(0, 2))]
    if line is not None:
        body.append(_counts(line))
    if simulator.torn:
        body.append(Text(f"{simulator.torn} writes tore a verdict from its sequence", "bold red"))
    return Panel(Group(*body), title=f"{name}  {simulator.host}:{simulator.port}", title_align="left")


def _inspector(simulator: Simulator, name: str) -> Table:
    raw = simulator.inspector_registers(name)
    block = InspectorBlock.decode(raw, simulator.order)
    verdict, style = _VERDICTS.get(block.verdict, (f"{block.verdict}: not PASS", "bold red"))
    table = _registers(f"inspector writes, base {simulator.cameras[name].inspector_base}")
    _row(table, raw, 0, 1, "heartbeat", _heartbeat(simulator, name))
    _row(table, raw, 1, 1, "status", _status(block.status))
    _row(table, raw, 2, 1, "verdict", Text(verdict, style))
    _row(table, raw, 3, 1, "sequence", str(block.sequence))
    _row(table, raw, 4, 2, "part id", str(block.part_id))
    _row(table, raw, 6, 2, "score", _number(block.score))
    _row(table, raw, 8, 2, "threshold", _number(block.threshold))
    _row(table, raw, 10, 1, "recipe", str(block.recipe))
    _row(table, raw, 11, 1, "latency", _latency(block))
    _row(table, raw, 12, 1, "overruns", str(block.overruns))
    return table


def _plc(simulator: Simulator, name: str) -> Table:
    raw, block = simulator.plc_registers(name), simulator.plc(name)
    table = _registers(f"PLC writes, base {simulator.cameras[name].plc_base}")
    _row(table, raw, 0, 1, "heartbeat", str(block.heartbeat))
    _row(table, raw, 1, 1, "trigger", str(block.sequence))
    _row(table, raw, 2, 2, "part id", str(block.part_id))
    _row(table, raw, 4, 1, "recipe", str(block.recipe))
    _row(table, raw, 5, 1, "ack", str(block.ack))
    return table


def _registers(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("", "hex", "meaning", "value"):
        table.add_column(heading, no_wrap=True, style="dim" if heading in ("", "hex") else "")
    return table


def _row(table: Table, raw: list[int], at: int, width: int, meaning: str, value: str | Text) -> None:
    offset = str(at) if width == 1 else f"{at}–{at + width - 1}"
    table.add_row(offset, " ".join(f"{register:04X}" for register in raw[at : at + width]), meaning, value)


def _latest(simulator: Simulator, name: str) -> Table:
    table = Table(title="latest verdicts", title_justify="left", box=None, pad_edge=False)
    for heading in ("ago", "sequence", "part", "verdict", "score", "latency"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=True)
    now = time.monotonic_ns()
    mine = [seen for seen in simulator.verdicts if seen.camera == name]
    for seen in reversed(mine[-_LATEST:]):
        block = seen.block
        verdict, style = _VERDICTS.get(block.verdict, (str(block.verdict), "bold red"))
        ago = f"{(now - seen.seen_ns) / 1e9:.1f} s"
        score, latency = _number(block.score), _latency(block)
        table.add_row(ago, str(block.sequence), str(block.part_id), Text(verdict, style), score, latency)
    return table


def _counts(line: Line) -> Text:
    text = Text()
    for field in fields(line.counts):
        value = getattr(line.counts, field.name)
        wrong = value and field.name in ("unanswered", "late", "repeated", "sequence_errors")
        text.append(f"{field.name.replace('_', ' ')} ", "dim")
        text.append(f"{value}   ", "bold red" if wrong else "bold")
    return text


def _heartbeat(simulator: Simulator, name: str) -> Text:
    if simulator.alive(name):
        return Text("alive", "green")
    age = simulator.heartbeat_age_s(name)
    return Text("STILL: never seen" if age is None else f"STILL for {age:.0f} s", "bold red")


def _status(status: Status) -> str:
    return (
        " ".join((bit.name or "").lower().replace("_", " ") for bit in Status if bit in status)
        or "no bit set"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _latency(block: InspectorBlock) -> str:
    return f"{block.latency_ms:.0f} ms"
