"""One command per job. Heavy imports live inside the command that needs them."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from inspector import __version__, cli_models
from inspector.cli_options import Config, RecipeName
from inspector.cli_options import one_recipe as _one_recipe
from inspector.cli_options import settings as _settings
from inspector.errors import InspectorError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Inspect parts on a line: camera, model, verdict, PLC, log.",
)


def main() -> None:
    """Entry point: a user's mistake ends in one line on standard error, never in a traceback."""
    try:
        sys.exit(app(standalone_mode=False))
    except InspectorError as error:
        typer.echo(f"inspector: {error}", err=True)
        sys.exit(error.exit_code)
    except typer.Abort:
        typer.echo("inspector: interrupted", err=True)
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"inspector: {error.filename}: {error.strerror}", err=True)
        sys.exit(1)
    except Exception as error:
        _exit_with_usage(error)
        raise


def _exit_with_usage(error: Exception) -> None:
    """Typer's own errors (unknown option, missing argument) print their usage and exit 2."""
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is not None and code is not None:
        show()
        sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"inspector {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def check(config: Config = None) -> None:
    """Validate a station file, its folders and its bundles without touching the line."""
    from inspector.check import check_station

    for line in check_station(_settings(config)):
        typer.echo(line)


@app.command()
def doctor(config: Config = None) -> None:
    """Probe everything that the station needs, and say what to do about what is wrong."""
    from inspector import doctor as doctor_

    raise typer.Exit(doctor_.report(doctor_.examine(_settings(config))))


@app.command()
def train(
    images: Annotated[Path, typer.Option(help="Folder of pictures of normal parts.")],
    config: Config = None,
    recipe: RecipeName = None,
    method: Annotated[str | None, typer.Option(help="Instead of the recipe's method.")] = None,
    preset: Annotated[str | None, typer.Option(help="Instead of the recipe's preset.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pictures.")] = None,
    seed: Annotated[int, typer.Option(help="Of the initialisation and the shuffling.")] = 0,
) -> None:
    """Learn a recipe from normal parts; can be stopped (Ctrl-C) and is resumed by the same command.

    On several GPUs: torchrun --nproc-per-node N -m inspector train …
    """
    from inspector.commands import train_recipe

    settings = _settings(config)
    name = _one_recipe(settings, recipe)
    for line in train_recipe(settings, name, images, method, preset, epochs, seed):
        typer.echo(line)


@app.command()
def calibrate(
    config: Config = None,
    recipe: RecipeName = None,
    images: Annotated[Path | None, typer.Option(help="Folder of pictures of normal parts.")] = None,
    camera: Annotated[str | None, typer.Option(help="The next frames of this camera.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many frames of the camera.")] = 300,
    log: Annotated[
        bool, typer.Option("--log", help="Stored frames of parts that passed or are labelled normal.")
    ] = False,
    since: Annotated[datetime | None, typer.Option(help="Of the log: from then on, local time.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Of the log: before then, local time.")] = None,
    defects: Annotated[
        Path | None, typer.Option(help="Folder of known defects, to see where they fall.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="False-reject rate instead of the recipe's.")] = None,
    confidence: Annotated[float | None, typer.Option(help="Confidence instead of the recipe's.")] = None,
    tail: Annotated[
        bool, typer.Option("--tail", help="With too few parts for a proof: extrapolate a fitted tail.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compute, show and draw; change nothing.")
    ] = False,
) -> None:
    """Set the threshold of the active model from normal parts: --images, --camera or --log."""
    from inspector.calibration import Asked, calibrate_recipe

    settings = _settings(config)
    name = _one_recipe(settings, recipe)
    asked = Asked(
        images=images,
        camera=camera,
        log=log,
        frames=frames,
        since=since,
        until=until,
        defects=defects,
        rate=rate,
        confidence=confidence,
        tail=tail,
        dry_run=dry_run,
    )
    for line in calibrate_recipe(settings, name, asked):
        typer.echo(line)


cli_models.register(app)


@app.command()
def run(config: Config = None) -> None:
    """Inspect: the daemon. Ends cleanly on SIGTERM and Ctrl-C, finishing the part in hand."""
    from inspector.commands import run_station

    run_station(_settings(config))


@app.command()
def status(
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="The whole snapshot as one JSON object.")] = False,
) -> None:
    """Ask the running daemon for its state, counts, latency and health; exit 1 when none runs."""
    from inspector.inquiry import ask

    now = ask(_settings(config).station.data)
    if json:
        import json as json_

        typer.echo(json_.dumps(now, indent=2, ensure_ascii=False))
        return
    from inspector.status_view import show as show_

    try:
        show_(now)
    except (KeyError, TypeError):
        raise InspectorError(
            f"the daemon is inspector {now.get('version', 'of an unknown version')}, this is {__version__}: "
            "restart the daemon (systemctl restart inspector), or ask with --json"
        ) from None


@app.command("install-service")
def install_service(
    config: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit and commands; do nothing.")
    ] = False,
) -> None:
    """Put the systemd unit in place, with the paths of this installation and station file."""
    from inspector.service import install
    from inspector.settings import config_path

    for line in install(_settings(config), config_path(config), dry_run=dry_run):
        typer.echo(line)


@app.command("plc-sim")
def plc_sim(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: [plc] host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on; default: [plc] port.")
    ] = None,
    line: Annotated[bool, typer.Option("--line", help="Play a line: trigger, part id, ack.")] = False,
    period: Annotated[float, typer.Option(min=0.01, help="Seconds from part to part of --line.")] = 1.0,
    parts: Annotated[int | None, typer.Option(min=1, help="Stop --line after so many parts.")] = None,
) -> None:
    """A Modbus TCP server to develop against; shows its registers live."""
    from inspector.commands import simulate_plc

    simulate_plc(_settings(config), host, port, line, period, parts)


@app.command("log")
def log_(
    config: Config = None,
    since: Annotated[datetime | None, typer.Option(help="Only from then on, local time.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only before then, local time.")] = None,
    verdict: Annotated[str | None, typer.Option(help="pass, reject or fault.")] = None,
    camera: Annotated[str | None, typer.Option(help="Only this camera.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only faults for this reason.")] = None,
    part: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Only this part id.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Only scores from here up.")] = None,
    label: Annotated[str | None, typer.Option(help="Only parts labelled normal or defect.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    events: Annotated[bool, typer.Option("--events", help="List events instead of decisions.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List decisions, the newest first."""
    from inspector import listing

    settings = _settings(config)
    if events:
        listing.show_events(settings, since, until, camera, limit, json)
        return
    listing.show_inspections(
        settings, since, until, verdict, camera, reason, part, min_score, label, limit, json
    )


@app.command()
def show(
    inspection: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="Of the decision, from `inspector log`.")
    ],
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="PNG to write; default: inspection-ID.png.")] = None,
) -> None:
    """Print one decision, and write its frame and heatmap as one PNG."""
    from inspector import listing

    listing.show_one(_settings(config), inspection, out or Path(f"inspection-{inspection}.png"))


@app.command("label")
def label_(
    inspection: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="Of the decision, from `inspector log`.")
    ],
    label: Annotated[str, typer.Argument(metavar="normal|defect", help="What the part is.")],
    config: Config = None,
    by: Annotated[str | None, typer.Option(help="Who says so.")] = None,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Say what a part really is; nothing is overwritten, the latest label holds."""
    from inspector import listing

    typer.echo(listing.label_part(_settings(config), inspection, label, by, note))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where parts, model and log go.")] = Path("demo"),
    parts: Annotated[int, typer.Option(min=4, help="Parts on the line.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the parts.")] = 0,
) -> None:
    """Everything once, without camera, PLC or GPU: draw parts, train, calibrate, run the daemon."""
    from inspector.demo.run import run_demo

    run_demo(folder, parts, seed)


@app.command()
def bench(
    config: Config = None,
    recipe: RecipeName = None,
    stub: Annotated[bool, typer.Option("--stub", help="No model: the station's own overhead.")] = False,
    parts: Annotated[int, typer.Option(min=10, help="Parts to measure.")] = 500,
    fps: Annotated[float, typer.Option(min=0.1, help="Parts a second, of each camera.")] = 20.0,
    size: Annotated[int, typer.Option(min=16, help="Width and height of the frames, pixels.")] = 384,
    cameras: Annotated[int, typer.Option(min=1, max=32, help="Cameras of the station.")] = 1,
    engine: Annotated[
        bool, typer.Option("--engine", help="The model alone: beside its floor, at --fps, after idling.")
    ] = False,
    method: Annotated[
        str | None, typer.Option(help="With --engine: random weights of this method, no station file.")
    ] = None,
    preset: Annotated[str, typer.Option(help="The size that goes with --method.")] = "small",
    compare: Annotated[
        bool, typer.Option("--compare", help="With --engine: beside anomalib's models.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="With --engine: then the station with this model, in one run.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures here as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them into this PNG.")] = None,
) -> None:
    """Measure each stage from frame ready to verdict written, or the engine alone: p50, p99 and maximum."""
    from inspector.bench.command import bench as bench_
    from inspector.bench.command import bench_engine

    settings = _settings(config) if config or not (stub or method) else None
    if engine or method:
        bench_engine(settings, recipe, method, preset, parts, fps, size, cameras, compare, whole, json, plot)
    else:
        bench_(settings, recipe, stub, parts, fps, size, cameras, json, plot)
