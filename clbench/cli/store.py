"""The `clbench store` commands."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from clbench.cli.options import SETUP, Json, app, explain_missing_extra, out, progress_bar
from clbench.utils.formatting import format_bytes
from clbench.utils.tables import FittedTable, FoldingText, RankedColumn

if TYPE_CHECKING:
    from clbench.storage.store import Store

store_app = typer.Typer(help="Stored training, states and images of runs, so that no work is done twice.")
app.add_typer(store_app, name="store", rich_help_panel=SETUP)

Location = Annotated[str, typer.Argument(help="The store's folder or URL.")]
DEFAULT_LOCATION = "runs/store"


def _open(location: str) -> tuple[ModuleType, Store]:
    """`clbench.storage.maintenance`, and the store."""
    with explain_missing_extra():
        from clbench.storage import maintenance
        from clbench.storage.open import open_store
    return maintenance, open_store(location)


@store_app.command("ls", epilog="Example: `clbench store ls runs/store --json`")
def ls(location: Location = DEFAULT_LOCATION, as_json: Json = False) -> None:
    """List the store's content by track, method and kind; with --json every artifact."""
    maintenance, store = _open(location)
    found = maintenance.artifacts(store)
    provenance = maintenance.read_provenance(store, found)
    if as_json:
        rows = [
            {
                "key": one.key,
                "file": store.location_of(one.file.name),
                "bytes": one.file.size,
                "modified": one.file.modified,
                **provenance[one.file.name],
            }
            for one in found
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    groups = defaultdict(list)
    for one in found:
        made_for = provenance[one.file.name]
        groups[(made_for.get("suite"), made_for.get("track"), made_for.get("method"), one.kind)].append(one.file)
    table = Table(
        RankedColumn("Suite", rank=4),
        RankedColumn("Track", rank=1),
        RankedColumn("Made for", rank=2),
        Column("Kind", no_wrap=True),
        Column("Count", no_wrap=True),
        Column("Size", no_wrap=True),
        RankedColumn("Newest", no_wrap=True, rank=3),
        box=SIMPLE,
        collapse_padding=True,
    )
    for names, group in sorted(groups.items(), key=lambda item: [str(name or "") for name in item[0]]):
        newest = datetime.fromtimestamp(max(one.modified for one in group), UTC)
        size = format_bytes(sum(one.size for one in group))
        known = (FoldingText(str(name or "–")) for name in names)
        table.add_row(*known, str(len(group)), size, f"{newest:%Y-%m-%d %H:%M}")
    out.print(FittedTable(table))


@store_app.command("du", epilog="Example: `clbench store du runs/store`")
def du(location: Location = DEFAULT_LOCATION, as_json: Json = False) -> None:
    """Show the disk space that each kind of artifact takes."""
    maintenance, store = _open(location)
    counts, sizes = defaultdict(int), defaultdict(int)
    for one in maintenance.artifacts(store):
        counts[one.kind] += 1
        sizes[one.kind] += one.file.size
    rows = [{"kind": kind, "artifacts": counts[kind], "bytes": sizes[kind]} for kind in sorted(sizes)]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("Kind", "Artifacts", "Size")
    for kind in sorted(sizes, key=lambda kind: -sizes[kind]):
        table.add_row(kind, str(counts[kind]), format_bytes(sizes[kind]))
    table.add_row("all", str(sum(counts.values())), format_bytes(sum(sizes.values())))
    out.print(table)


@store_app.command("check", epilog="Example: `clbench store check runs/store`")
def check(location: Location = DEFAULT_LOCATION, as_json: Json = False) -> None:
    """Compare every artifact with its checksum; set damaged ones aside, and exit 1 if there are any."""
    maintenance, store = _open(location)
    found = maintenance.artifacts(store)
    with progress_bar(transient=True) as progress:
        each = progress.track(found, description="reading")
        damaged = [store.location_of(one.file.name) for one in each if maintenance.is_damaged(store, one)]
    if as_json:
        typer.echo(json.dumps({"artifacts": len(found), "damaged": damaged}, indent=1))
    else:
        out.print(Text(f"{len(found)} artifacts read, {len(damaged)} damaged", "red" if damaged else "green"))
    if damaged:
        raise typer.Exit(1)


@store_app.command(
    "gc", epilog="Examples:\n\n`clbench store gc runs/store --dry-run`\n\n`clbench store gc runs/store --stale`"
)
def gc(
    location: Location = DEFAULT_LOCATION,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and keep it.")] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Also delete what other software versions than the installed ones made.")
    ] = False,
    older_than: Annotated[
        float | None, typer.Option(help="Also delete artifacts last written more than this many days ago.", min=0)
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete leftovers of killed processes, damaged artifacts, and day-old locks that nobody holds."""
    maintenance, store = _open(location)
    found = maintenance.find_garbage(store, stale=stale, older_than=older_than)
    if not dry_run:
        with progress_bar(transient=True) as progress:
            for one in progress.track(found, description="removing"):
                store.remove(one.file.name)
    size = sum(one.file.size for one in found)
    if as_json:
        rows = [{"file": store.location_of(one.file.name), "bytes": one.file.size, "why": one.reason} for one in found]
        typer.echo(json.dumps({"dry_run": dry_run, "bytes": size, "files": rows}, indent=1))
        return
    for reason, count in sorted(Counter(one.reason for one in found).items()):
        out.print(Text(f"{count} files: {reason}"))
    out.print(Text(f"{'would free' if dry_run else 'freed'} {format_bytes(size)}"))
