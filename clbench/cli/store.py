"""Commands about the store."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from clbench.cli.options import Json, app, explain_missing_extra, out, progress_bar
from clbench.utils.formatting import format_bytes

store_app = typer.Typer(help="What runs keep: every training, state and cell, so that nothing is done twice.")
app.add_typer(store_app, name="store")

Place = Annotated[str, typer.Argument(help="The store's folder, or its URL.")]
HERE = "runs/store"


@store_app.command("ls", epilog="Example: `clbench store ls runs/store --json`")
def ls(place: Place = HERE, as_json: Json = False) -> None:
    """List what lies in the store: by track, method and kind; as JSON every artifact."""
    with explain_missing_extra():
        from clbench.storage.maintenance import artifacts, read_provenance
        from clbench.storage.open import open_store
    store = open_store(place)
    found = artifacts(store)
    told = read_provenance(store, found)
    if as_json:
        rows = [
            {
                "key": one.key,
                "file": store.location_of(one.file.name),
                "bytes": one.file.size,
                "modified": one.file.modified,
                **told[one.file.name],
            }
            for one in found
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    groups = defaultdict(list)
    for one in found:
        story = told[one.file.name]
        groups[(story.get("suite"), story.get("track"), story.get("method"), one.kind)].append(one.file)
    table = Table("Suite", "Track", "Made for", "Kind", "Count", "Size", "Newest", box=SIMPLE, collapse_padding=True)
    for names, group in sorted(groups.items(), key=lambda item: [str(name or "") for name in item[0]]):
        newest = datetime.fromtimestamp(max(one.modified for one in group), UTC)
        size = format_bytes(sum(one.size for one in group))
        table.add_row(*(Text(str(name or "–")) for name in names), str(len(group)), size, f"{newest:%Y-%m-%d %H:%M}")
    out.print(table)


@store_app.command("du", epilog="Example: `clbench store du runs/store`")
def du(place: Place = HERE, as_json: Json = False) -> None:
    """Say how much space each kind of artifact takes."""
    with explain_missing_extra():
        from clbench.storage.maintenance import artifacts
        from clbench.storage.open import open_store
    counts, sizes = defaultdict(int), defaultdict(int)
    for one in artifacts(open_store(place)):
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
def check(place: Place = HERE, as_json: Json = False) -> None:
    """Read every artifact and compare its checksum; set aside what is damaged, and exit 1 if anything was."""
    with explain_missing_extra():
        from clbench.storage.maintenance import artifacts, is_damaged
        from clbench.storage.open import open_store
    store = open_store(place)
    found = artifacts(store)
    with progress_bar(transient=True) as progress:
        bad = [
            store.location_of(one.file.name)
            for one in progress.track(found, description="reading")
            if is_damaged(store, one)
        ]
    if as_json:
        typer.echo(json.dumps({"artifacts": len(found), "damaged": bad}, indent=1))
    else:
        out.print(Text(f"{len(found)} artifacts read, {len(bad)} damaged", "red" if bad else "green"))
    if bad:
        raise typer.Exit(1)


@store_app.command(
    "gc", epilog="Examples:\n\n`clbench store gc runs/store --dry-run`\n\n`clbench store gc runs/store --stale`"
)
def gc(
    place: Place = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and leave it.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Also what other versions of the software made.")] = False,
    older_than: Annotated[
        float | None, typer.Option(help="Also all that was not written for so many days.", min=0)
    ] = None,
    as_json: Json = False,
) -> None:
    """Clear away what killed processes left, what was set aside, and locks, a day old, that nobody holds."""
    with explain_missing_extra():
        from clbench.storage.maintenance import find_garbage
        from clbench.storage.open import open_store
    store = open_store(place)
    found = find_garbage(store, stale=stale, older_than=older_than)
    if not dry_run:
        with progress_bar(transient=True) as progress:
            for one in progress.track(found, description="removing"):
                store.remove(one.file.name)
    size = sum(one.file.size for one in found)
    if as_json:
        rows = [{"file": store.location_of(one.file.name), "bytes": one.file.size, "why": one.why} for one in found]
        typer.echo(json.dumps({"dry_run": dry_run, "bytes": size, "files": rows}, indent=1))
        return
    for why, count in sorted(Counter(one.why for one in found).items()):
        out.print(Text(f"{count} files: {why}"))
    out.print(Text(f"{'would free' if dry_run else 'freed'} {format_bytes(size)}"))
