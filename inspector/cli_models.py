"""The commands about a recipe's models: list, activate, go back, train anew."""

from __future__ import annotations

from typing import Annotated

import typer

from inspector.cli_options import Config, RecipeName, one_recipe
from inspector.cli_options import settings as settings_of

models_app = typer.Typer(invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(models_app, name="models")
    app.command()(retrain)
    app.command()(rollback)


@models_app.callback()
def models(
    context: typer.Context,
    config: Config = None,
    recipe: RecipeName = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """List a recipe's bundles: lineage, threshold and what it proves, what the nightly gate found."""
    if context.invoked_subcommand is None:
        from inspector.models import show

        settings = settings_of(config)
        show(settings, one_recipe(settings, recipe), json)


@models_app.command()
def activate(
    bundle: Annotated[str, typer.Argument(metavar="ID", help="Id of the bundle, or its beginning.")],
    config: Config = None,
    recipe: RecipeName = None,
    force: Annotated[bool, typer.Option("--force", help="Even one that may not judge here.")] = False,
) -> None:
    """Make this bundle the active one; a running daemon takes it between two parts."""
    from inspector.models import activate as activate_

    settings = settings_of(config)
    for line in activate_(settings, one_recipe(settings, recipe), bundle, force=force):
        typer.echo(line)


def rollback(config: Config = None, recipe: RecipeName = None) -> None:
    """Go back to the bundle that was active before."""
    from inspector.models import rollback as rollback_

    settings = settings_of(config)
    for line in rollback_(settings, one_recipe(settings, recipe)):
        typer.echo(line)


def retrain(
    config: Config = None,
    recipe: RecipeName = None,
    nightly: Annotated[
        bool, typer.Option("--nightly", help="As the timer does: nothing where retrain.enabled is false.")
    ] = False,
    warm: Annotated[
        bool | None, typer.Option("--warm/--scratch", help="Where to start; default: retrain.start.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pictures.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all chance; default: the date.")] = None,
) -> None:
    """Train anew on parts that passed, and promote what is not worse than the active bundle.

    All recipes that cameras run, or one. Exit codes: 0 promoted, 3 another one runs, 4 too few parts, 5 too
    little disk, 6 no GPU, 7 refused. The pictures of the first `inspector train` are kept in
    <data>/commissioning/RECIPE and are among those learned from each time. Pictures in
    <data>/golden/RECIPE/normal and defect are never learned from; a candidate must tell them apart.
    """
    settings = settings_of(config)
    if nightly and not settings.retrain.enabled:
        typer.echo("retrain.enabled is false: nothing is trained")
        return
    from inspector.nightly.retrain import retrain as retrain_

    running = sorted({camera.recipe for camera in settings.camera})
    names = running if recipe is None else [one_recipe(settings, recipe)]
    start = None if warm is None else "warm" if warm else "scratch"
    for line in retrain_(settings, names, epochs=epochs, seed=seed, start=start):
        typer.echo(line)
