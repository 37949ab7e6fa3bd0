"""Figures as tables, JSON and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PERCENTILES = ("p50", "p99", "max")


def show(figures: dict[str, Any], out: Path | None, plot: Path | None) -> None:
    """Print the figures; write the JSON and the picture where they are asked for."""
    console = Console()
    tables = station(figures) if "stages_ms" in figures else engine(figures)
    if "station" in figures:
        tables += station(figures["station"])
    for table in tables:
        console.print(table)
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n")
    if plot is not None:
        from training.charts import bars  # matplotlib takes a second

        plot.write_bytes(bars(*_drawn(figures)))


def station(figures: dict[str, Any]) -> list[Table]:
    """Where the time of a part goes in the daemon."""
    title = (
        f"{figures['verdicts']} parts of {figures['frame'][0]} × {figures['frame'][1]} pixels from "
        f"{figures['cameras']} cameras at {figures['fps']:g}/s each, scorer {figures['scorer'][:12]} "
        "(ms, frame ready → verdict written)"
    )
    table = _table(title, "stage")
    for stage, values in figures["stages_ms"].items():
        if stage == "total":
            table.add_section()
        table.add_row(stage, *(f"{values[name]:.2f}" for name in PERCENTILES))
    table.add_section()
    bare = (f"{figures['disk_ms'][name]:.2f}" for name in PERCENTILES)
    table.add_row("a bare write and fdatasync on this disk", *bare)
    return [table]


def engine(figures: dict[str, Any]) -> list[Table]:
    """What a part costs in the engine, beside its rivals and its floor."""
    a, least = figures["architecture"], figures["floor"]
    table = _table(
        f"{a['method']} at {a['size']} pixels on {figures['device']}, {figures['precision']}, "
        f"{figures['threads']} threads, {figures['runtime']} (ms, picture → score and map; in turns)",
        "what",
    )
    table.add_column("p50 on the processors", justify="right")
    for name, values in figures["in_turns_ms"].items():
        table.add_row(name, *(f"{values[key]:.2f}" for key in (*PERCENTILES, "cpu_p50")))
    table.add_row("floor", f"{least['ms']:.2f}", "", "", f"{least['cpu_ms']:.2f}")
    table.add_section()
    for name, values in figures["batches_ms_a_part"].items():
        table.add_row(
            f"a part in a batch of {name}", *(f"{values[key]:.2f}" for key in (*PERCENTILES, "cpu_p50"))
        )
    table.add_section()
    for name, values in figures["flat_out_ms"].items():
        table.add_row(f"flat out, {name}", *(f"{values[key]:.2f}" for key in PERCENTILES), "")
    for key, name in (("cadence_ms", "at {fps:g}/s"), ("after_idle_ms", "after {idle_s:g} s of rest")):
        values = figures[key]
        table.add_row(name.format(**values), *(f"{values[k]:.2f}" for k in (*PERCENTILES, "cpu_p50")))
    ratios = _table("ratios", "of the engine")
    ratios.columns[1:] = []
    ratios.add_column("on the clock", justify="right")
    ratios.add_column("on the processors", justify="right")
    for name, value in figures["ratios"].items():
        if "_cpu" not in name:
            other = figures["ratios"]["_cpu".join(_parted(name))]
            ratios.add_row(name.replace("_", " "), f"{value:.2f}", f"{other:.2f}")
    return [table, ratios]


def _parted(name: str) -> tuple[str, str]:
    """Where "_cpu" stands in the name of the same ratio on the processors."""
    head, space, rival = name.partition(" ")
    return head, space + rival


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in PERCENTILES:
        table.add_column(name, justify="right")
    return table


def _drawn(figures: dict[str, Any]) -> tuple[dict[str, dict[str, float]], float | None, str]:
    """Bars, the line of the floor, and the title."""
    if "stages_ms" in figures:
        return figures["stages_ms"], None, "ms of each stage, frame ready → verdict written"
    return figures["in_turns_ms"], figures["floor"]["ms"], "ms of one part, picture → score and map"
