"""Commands about what there is: suites, tracks, methods, models and data."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from clbench.cli.options import (
    DataRoot,
    Json,
    Plugins,
    app,
    err,
    explain_missing_extra,
    import_harness,
    out,
    progress_bar,
    split_list,
)
from clbench.data.locate import (
    Asset,
    AssetPaths,
    AssetStatus,
    default_data_root,
    list_assets,
    locate_asset,
    select_assets,
)
from clbench.errors import ClbenchError
from clbench.suite import Suite, list_suites, load_suite, suite_folder

data_app = typer.Typer(help="The models and data sets that a suite needs.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.command("list", epilog="Example: `clbench list methods --json`")
def list_(
    what: Annotated[str, typer.Argument(help="`suites`, `tracks`, `methods` or `metrics`.")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List what there is."""
    from clbench.errors import did_you_mean
    from clbench.metrics import METRICS
    from clbench.plugins import list_methods

    def tracks() -> list[dict[str, str]]:
        return [
            {
                "suite": name,
                "track": track.name,
                "tasks": ", ".join(track.task_names),
                "metrics": ", ".join(track.metrics),
            }
            for name in list_suites()
            for track in load_suite(name).tracks.values()
        ]

    rows = {
        "suites": lambda: [suite_row(load_suite(name)) for name in list_suites()],
        "tracks": tracks,
        "methods": lambda: [
            {"method": name, "about": (method.__doc__ or "").strip().splitlines()[0] if method.__doc__ else ""}
            for name, method in list_methods(plugin or ()).items()
        ],
        "metrics": lambda: [{"metric": name, "label": m.label, "about": m.description} for name, m in METRICS.items()],
    }
    if what not in rows:
        raise ClbenchError(f"nothing is listed under {what!r}{did_you_mean(what, list(rows))}")
    listed = rows[what]()
    if as_json:
        typer.echo(json.dumps(listed, indent=1))
        return
    table = Table(*listed[0].keys())
    for row in listed:
        table.add_row(*[Text(value) for value in row.values()])
    out.print(table)


@app.command("new-suite", epilog="Example: `clbench new-suite my-cats --like sdxl-v1`")
def new_suite(
    folder: Annotated[Path, typer.Argument(help="Where to write it; its name becomes the suite's.")],
    like: Annotated[str, typer.Option(help="The suite to begin from.")] = "sdxl-v1",
) -> None:
    """Write a commented suite of your own, to be changed and run with `--suite FOLDER`."""
    from clbench.data.suite_template import write_suite_template

    for path in write_suite_template(folder, like):
        out.print(Text(f"wrote {path}"), soft_wrap=True)


@data_app.command("status", epilog="Example: `clbench data status --suite sdxl-v1`")
def data_status(
    suite: Annotated[str, typer.Option(help="A suite, or your own's folder.")] = "mini-v2",
    item: Annotated[list[str] | None, typer.Option(help="One item only; repeatable.")] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Say of each model and data set whether it is there, where, and whether it is whole; exit 1 if one is not."""
    _report_data(suite, item, data_root, as_json, locate_asset, progress_bar(transient=True))


@data_app.command("fetch", epilog="Example: `clbench data fetch --suite sdxl-v1`")
def data_fetch(
    suite: Annotated[str, typer.Option(help="A suite, or your own's folder.")] = "mini-v2",
    item: Annotated[list[str] | None, typer.Option(help="One item only; repeatable.")] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Get what is missing from the Hugging Face hub; what arrived before is not fetched again."""
    from clbench.data.download import fetch

    _report_data(suite, item, data_root, as_json, fetch, None)  # the hub's client draws its own bars


def _report_data(
    suite: str,
    names: list[str] | None,
    root: Path | None,
    as_json: bool,
    work: Callable[[Asset, AssetPaths], AssetStatus],
    progress: Any | None,
) -> None:
    """Do something to each item and print what was found."""
    from clbench.utils.formatting import format_bytes

    definition, places = load_suite(suite), AssetPaths(root or default_data_root(), suite_folder(suite))
    wanted = select_assets(list_assets(definition, suite), names)
    found: list[AssetStatus] = []
    with explain_missing_extra(), progress or nullcontext():
        bar = progress.add_task("", total=len(wanted)) if progress else None
        for item in wanted:
            if progress:
                progress.update(bar, description=item.name)
            else:
                err.print(Text(f"{item.name}: {item.place}", style="dim"), soft_wrap=True)
            found.append(work(item, places))
            if progress:
                progress.advance(bar)
    if as_json:
        typer.echo(json.dumps([_data_row(one) for one in found], indent=1))
    else:
        for one in found:
            state = Text("ready    ", style="green") if one.problem is None else Text("not ready", style="bold red")
            known = f"checksums on record: {one.compared}, all fit" if one.compared else "no checksum on record"
            told = one.problem or f"{one.files} files, {format_bytes(one.size)}, {known}; {one.origin}: {one.folder}"
            out.print(Text.assemble(state, f"  {one.item.name}: {told}"), soft_wrap=True)
        out.print(Text(f"data root: {places.root} (--data-root or CLBENCH_DATA_ROOT)"), soft_wrap=True)
    if any(one.problem for one in found):
        raise typer.Exit(1)


def _data_row(found: AssetStatus) -> dict[str, Any]:
    """An item for machines."""
    return {
        "item": found.item.name,
        "source": found.item.place,
        "revision": found.item.spec.revision,
        "ready": found.problem is None,
        "problem": found.problem,
        "origin": found.origin,
        "folder": str(found.folder) if found.folder else None,
        "files": found.files,
        "bytes": found.size,
        "checksums_on_record": found.compared,
        "sha256": found.sha256 or None,
    }


def suite_row(suite: Suite) -> dict[str, str]:
    counts = [f"{len(track.tasks)} {track.name}" for track in suite.tracks.values()]
    return {"suite": suite.name, "version": suite.version, "tracks": ", ".join(counts), "sha256": suite.sha256[:12]}


@app.command("pretrain-mini", epilog="Example: `clbench pretrain-mini --output pretraining --stages vae,clip`")
def pretrain_mini(
    output: Annotated[Path, typer.Option(help="Folder for weights and checkpoints; a second call goes on.")],
    stages: Annotated[str | None, typer.Option(help="Some of vae, text, clip, csd, dino, unet; default all.")] = None,
    start: Annotated[Path | None, typer.Option(help="Earlier `weights` to begin from; not for text.")] = None,
    scale: Annotated[float, typer.Option(help="Multiplies every stage's number of steps.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    device: Annotated[str, typer.Option(help="`cpu` or `cuda`.")] = "cpu",
) -> None:
    """Train the bundled suite's models from nothing (about three hours on two cores), and measure them."""
    import_harness()
    from clbench.miniworld.pretrain import STAGES, pretrain

    pretrain(output, tuple(split_list(stages) or STAGES), scale, seed, device, start)
    if stages is None or start is not None:
        from clbench.miniworld.quality import write_model_card

        out.print(Text(f"wrote {write_model_card(output)}"), soft_wrap=True)


@app.command(epilog="Example: `clbench env --json`")
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
