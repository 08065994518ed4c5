"""Commands that list suites and methods, manage models and data sets, and describe the environment."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from clbench.cli.options import (
    SETUP,
    DataRoot,
    Json,
    Plugins,
    SuiteName,
    app,
    err,
    explain_missing_extra,
    import_harness,
    out,
    progress_bar,
    split_list,
)
from clbench.data import locate
from clbench.errors import ClbenchError, did_you_mean
from clbench.method import FAMILIES, Method
from clbench.plugins import list_methods
from clbench.suite import Suite, list_suites, load_suite, suite_folder
from clbench.utils.formatting import format_bytes
from clbench.utils.tables import FittedTable, FoldingText, RankedColumn

data_app = typer.Typer(help="The models and data sets that a suite needs.", no_args_is_help=True)
app.add_typer(data_app, name="data", rich_help_panel=SETUP)

WRAPPED = ("method", "tracks", "tasks", "metrics", "passes on", "about")
"""Columns of `clbench list` whose text may go over several lines."""
NARROW_RANKS = {"family": 1, "year": 1, "passes on": 2, "version": 1, "metrics": 1, "label": 1, "sha256": 2}
"""Columns of `clbench list` that a narrow terminal need not show, as `RankedColumn.rank`."""
LEAST_WIDTHS = {"method": 21, "about": 28}
"""Width that columns of `clbench list` keep in a narrow terminal; other columns are left out before."""
Items = Annotated[list[str] | None, typer.Option("--item", help="Only this model or data set; repeatable.")]


@app.command("list", rich_help_panel=SETUP, epilog="Example: `clbench list methods --json`")
def list_(
    what: Annotated[str, typer.Argument(help="`suites`, `tracks`, `methods` or `metrics`.")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List suites, tracks, methods or metrics."""
    from clbench.metrics import METRICS

    def tracks() -> list[dict[str, str]]:
        return [
            {"suite": name, "track": key, "tasks": ", ".join(track.task_names), "metrics": ", ".join(track.metrics)}
            for name in list_suites()
            for key, track in load_suite(name).tracks.items()
        ]

    rows = {
        "suites": lambda: [suite_row(load_suite(name)) for name in list_suites()],
        "tracks": tracks,
        "methods": lambda: sorted(map(method_row, list_methods(plugin or ()).values()), key=_family_rank),
        "metrics": lambda: [{"metric": name, "label": m.label, "about": m.description} for name, m in METRICS.items()],
    }
    if what not in rows:
        raise ClbenchError(f"{what!r} cannot be listed{did_you_mean(what, list(rows))}")
    listed = rows[what]()
    if as_json:
        typer.echo(json.dumps(listed, indent=1))
        return
    columns = [
        RankedColumn(
            name, no_wrap=name not in WRAPPED, rank=NARROW_RANKS.get(name, 0), min_width=LEAST_WIDTHS.get(name)
        )
        for name in listed[0]
    ]
    table = Table(*columns)
    for row, following in zip(listed, [*listed[1:], {}], strict=True):
        name, *about = row.values()
        table.add_row(FoldingText(name), *map(Text, about), end_section=row.get("family") != following.get("family"))
    out.print(FittedTable(table))


@app.command(
    "new-suite",
    rich_help_panel=SETUP,
    epilog="Examples:\n\n`clbench new-suite my-suite --like sdxl-v1`\n\n`clbench new-suite my-cats --photos ~/cats`",
)
def new_suite(
    folder: Annotated[Path, typer.Argument(help="The folder to write; its name becomes the suite's.")],
    like: Annotated[str, typer.Option(help="The suite to copy.")] = "sdxl-v1",
    photos: Annotated[
        Path | None,
        typer.Option(
            help="A folder with a folder of photos for each task, which are copied. Its metadata.jsonl may give token "
            'and class: {"file_name": "my_cat/1.jpg", "token": "sks", "class": "cat"}.'
        ),
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="With --photos: the track with the prompts; default the first.")
    ] = None,
) -> None:
    """Write a suite of your own, to change and run with `--suite FOLDER`: a commented copy, or one of your photos."""
    from clbench.data.photo_suite import write_photo_suite
    from clbench.data.suite_template import write_suite_template

    if track is not None and photos is None:
        raise ClbenchError("--track goes with --photos; without them all tracks are copied")
    written = write_photo_suite(folder, like, photos, track) if photos else write_suite_template(folder, like)
    for path in written:
        out.print(Text(f"wrote {path}"), soft_wrap=True)


@app.command(
    "new-method",
    rich_help_panel=SETUP,
    epilog="Examples:\n\n`clbench new-method my_method`\n\n`clbench new-method my_ewc --like ewc --to my_methods`",
)
def new_method(
    name: Annotated[str, typer.Argument(help="The method's name: letters, digits and `_`.")],
    like: Annotated[
        str | None,
        typer.Option(
            help="The registered method to copy; default a plain one, with all other hooks as comments.",
            autocompletion=lambda: list(list_methods()),
        ),
    ] = None,
    to: Annotated[Path, typer.Option(help="The folder to write into.")] = Path(),
) -> None:
    """Write the file of a method of your own, commented, and its test; both work at once, and are there to change."""
    from clbench.runner.method_template import write_method_template

    for path in write_method_template(name, like, to):
        out.print(Text(f"wrote {path}"), soft_wrap=True)


@data_app.command("status", epilog="Example: `clbench data status --suite sdxl-v1`")
def data_status(
    suite: SuiteName = "mini-v2", item: Items = None, data_root: DataRoot = None, as_json: Json = False
) -> None:
    """Show where each model and data set is, and whether it is complete; exit 1 if one is not."""
    assets, paths = _select_assets(suite, item, data_root)
    with explain_missing_extra(), progress_bar(transient=True) as progress:
        found = [locate.locate_asset(asset, paths) for asset in progress.track(assets, description="checking")]
    _print_status(found, paths, as_json)


@data_app.command("fetch", epilog="Example: `clbench data fetch --suite sdxl-v1`")
def data_fetch(
    suite: SuiteName = "mini-v2", item: Items = None, data_root: DataRoot = None, as_json: Json = False
) -> None:
    """Get what is missing from the Hugging Face hub; what arrived before is not fetched again."""
    from clbench.data.download import fetch

    assets, paths = _select_assets(suite, item, data_root)
    found = []
    for asset in assets:  # the hub's client shows its own progress bars
        err.print(Text(f"{asset.name}: {asset.source}", style="dim"), soft_wrap=True)
        with explain_missing_extra():
            found.append(fetch(asset, paths))
    _print_status(found, paths, as_json)


def _select_assets(
    suite: str, names: list[str] | None, root: Path | None
) -> tuple[list[locate.Asset], locate.AssetPaths]:
    assets = locate.select_assets(locate.list_assets(load_suite(suite), suite), names)
    return assets, locate.AssetPaths(root or locate.default_data_root(), suite_folder(suite))


def _print_status(found: list[locate.AssetStatus], paths: locate.AssetPaths, as_json: bool) -> None:
    """Print the outcome for each asset; exit 1 if one cannot be used."""
    if as_json:
        typer.echo(json.dumps([_asset_row(status) for status in found], indent=1))
    else:
        for status in found:
            state = Text("ready    ", style="green") if status.problem is None else Text("not ready", style="bold red")
            checksums = (
                f"checksums on record: {status.verified}, all fit" if status.verified else "no checksum on record"
            )
            files = f"{status.files} files, {format_bytes(status.size)}"
            about = status.problem or f"{files}, {checksums}; {status.origin}: {status.folder}"
            out.print(Text.assemble(state, f"  {status.asset.name}: {about}"), soft_wrap=True)
        out.print(Text(f"data root: {paths.root} (--data-root or CLBENCH_DATA_ROOT)"), soft_wrap=True)
    if any(status.problem for status in found):
        raise typer.Exit(1)


def _asset_row(status: locate.AssetStatus) -> dict[str, Any]:
    return {
        "item": status.asset.name,
        "source": status.asset.source,
        "revision": status.asset.spec.revision,
        "ready": status.problem is None,
        "problem": status.problem,
        "origin": status.origin,
        "folder": str(status.folder) if status.folder else None,
        "files": status.files,
        "bytes": status.size,
        "checksums_on_record": status.verified,
        "sha256": status.sha256 or None,
    }


def method_row(method: type[Method]) -> dict[str, str]:
    """A method's row in `clbench list methods`."""
    text = (method.__doc__ or "").strip()
    about, passed_on = (
        text.partition("\n")[0],
        re.search(r"^\s*Passed on: (.*?)\.(?=\s)", text, re.MULTILINE | re.DOTALL),
    )
    return {
        "method": method.name,
        "family": method.family,
        "year": method.year,
        "passes on": " ".join(passed_on[1].split()) if passed_on else "",
        "about": about,
    }


def _family_rank(row: dict[str, str]) -> int:
    """Where a method's family stands among `FAMILIES`."""
    return FAMILIES.index(row["family"]) if row["family"] in FAMILIES else len(FAMILIES)


def suite_row(suite: Suite) -> dict[str, str]:
    """A suite's row in `clbench list suites`."""
    counts = [f"{len(track.tasks)} {track.name}" for track in suite.tracks.values()]
    return {"suite": suite.name, "version": suite.version, "tracks": ", ".join(counts), "sha256": suite.sha256[:12]}


@app.command(
    "pretrain-mini",
    rich_help_panel=SETUP,
    epilog="Example: `clbench pretrain-mini --output pretraining --stages vae,clip`",
)
def pretrain_mini(
    output: Annotated[Path, typer.Option(help="Folder for weights and checkpoints; a second call continues there.")],
    stages: Annotated[str | None, typer.Option(help="Some of vae, text, clip, csd, dino, unet; default all.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="A `weights` folder to start from; not possible for the text stage.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Multiplies every stage's number of steps.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    device: Annotated[str, typer.Option(help="`cpu` or `cuda`.")] = "cpu",
) -> None:
    """Train the bundled suite's models from scratch (about three hours on two cores), and measure them."""
    import_harness()
    from clbench.miniworld.pretrain import STAGES, pretrain

    pretrain(output, tuple(split_list(stages) or STAGES), scale, seed, device, start)
    if stages is None or start is not None:
        from clbench.miniworld.quality import write_model_card

        out.print(Text(f"wrote {write_model_card(output)}"), soft_wrap=True)


@app.command(rich_help_panel=SETUP, epilog="Example: `clbench env --json`")
def env(as_json: Json = False) -> None:
    """Show this machine and the installed packages, as results record them."""
    import_harness()
    from clbench.results.environment import describe

    described = describe("cpu").model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    for name, value in described.items():
        out.print(Text(f"{name}: {value}"), soft_wrap=True)
