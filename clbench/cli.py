"""The command line: thin; each command reads its arguments, calls one function and prints.

Exit codes: 0 = done, 1 = the work failed, 2 = bad usage or input.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clbench import data
from clbench.data import Found, Item, Places
from clbench.errors import ClbenchError, WorkFailed
from clbench.suite import Suite, list_suites, load_suite, suite_folder

app = typer.Typer(
    help="Continual low-rank personalization of diffusion models: a benchmark and its leaderboard.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="The models and data sets that a suite needs.", no_args_is_help=True)
app.add_typer(data_app, name="data")
out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
DataRoot = Annotated[
    Path | None, typer.Option(envvar="CLBENCH_DATA_ROOT", help="Folder of your own copies of models and data sets.")
]
OwnSuite = Annotated[str | None, typer.Option("--suite", help="The folder of your own suite that made the result.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with methods; repeatable.")]


def main() -> None:
    """Entry point: every ClbenchError becomes one sentence on stderr and its exit code."""
    warnings.showwarning = lambda message, *rest, **more: err.print(Text(f"warning: {message}", style="yellow"))
    try:
        code = app(standalone_mode=False)  # what a command raised as typer.Exit comes back as a number
        if code == 130:
            raise KeyboardInterrupt
        if code:
            sys.exit(code)
    except ClbenchError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped; the same command goes on from here", 130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own usage errors
            message = error.format_message()  # type: ignore[attr-defined]
            if not message:  # no arguments: the help was printed
                sys.exit(2)
            context = getattr(error, "ctx", None)
            hint = f" (see `{context.command_path} --help`)" if context else ""
            _fail(f"{message}{hint}", getattr(error, "exit_code", 2))
        raise


def _fail(message: str, code: int) -> None:
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    sys.exit(code)


@app.command(
    epilog="Examples:\n\n`clbench run --method merge_init --track styles`\n\n"
    "`clbench run --method naive --track objects --quick`\n\n"
    "`clbench run --method mine --plugin mine.py --track styles --set strength=0.5`\n\n"
    "`clbench run --method merge_init --track styles --suite sdxl-v1 --data-root ~/data`"
)
def run(
    method: Annotated[str, typer.Option(help="A registered method: `clbench list methods`.")],
    track: Annotated[str, typer.Option(help="A track of the suite: `clbench list tracks`.")],
    suite: Annotated[str, typer.Option(help="A suite of `clbench list suites`, or your own's folder.")] = "mini-v1",
    orders: Annotated[str | None, typer.Option(help="Task orders, e.g. `0,5`; default all.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, e.g. `0`; default all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One order and one seed: a partial result.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for the result and the store.")] = Path("runs"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A hyper-parameter, `key=value`; repeatable.")
    ] = None,
    plugin: Plugins = None,
    device: Annotated[str | None, typer.Option(help="`cpu` or `cuda`; default: what is there.")] = None,
    precision: Annotated[str | None, typer.Option(help="`fp32` or `bf16`; default what the suite says.")] = None,
    memory: Annotated[
        str, typer.Option(help="`low` saves memory for time; `auto` does where it must; `high`.")
    ] = "auto",
    keep: Annotated[str | None, typer.Option(help="`states` of all tasks, all `images`, or `states,images`.")] = None,
    data_root: DataRoot = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the work; default one a core.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use what earlier runs left in the store.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Run a method through the ten-task protocol and write a result."""
    definition = load_suite(suite)  # bad input is told before torch is loaded
    definition.track(track)
    from clbench.method import get_method

    plugins = tuple(plugin or ())
    chosen, seed_values = _settings(settings or []), _numbers(seeds)
    get_method(method, chosen, plugins)
    harness = _import_harness()
    from clbench.show import result_table

    with _progress() as progress:
        bar = progress.add_task("starting", total=None)
        result = harness.run(
            method,
            track,
            suite,
            orders=_words(orders),
            seeds=seed_values,
            quick=quick,
            output=output,
            settings=chosen,
            plugins=plugins,
            device=device,
            precision=precision,
            memory=memory,
            keep=_words(keep) or (),
            data_root=data_root,
            resume=resume,
            announce=lambda sentence: progress.console.print(Text(sentence, style="dim"), soft_wrap=True),
            started=lambda work: progress.update(bar, total=work),
            workers=workers,
            report=lambda done, what: progress.update(bar, completed=done, description=what),
        )
    path = harness.result_path(output, result)
    if as_json:
        typer.echo(path.read_text(), nl=False)
        return
    out.print(result_table(result))
    if result.partial:
        out.print(Text("partial: not all runs of the protocol, so it cannot be submitted", style="yellow"))
    out.print(Text(f"result: {path}"), soft_wrap=True)


@app.command("list", epilog="Example: `clbench list methods --json`")
def list_(
    what: Annotated[str, typer.Argument(help="`suites`, `tracks`, `methods` or `metrics`.")],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List what there is."""
    from clbench.errors import did_you_mean
    from clbench.method import list_methods
    from clbench.metrics import METRICS

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
        "suites": lambda: [_suite_row(load_suite(name)) for name in list_suites()],
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


@app.command(epilog="Example: `clbench show runs/mini-v1/styles/merge_init.json --run 1`")
def show(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    run: Annotated[int | None, typer.Option(help="One run, counted from 1; default the mean over runs.")] = None,
    suite: OwnSuite = None,
    as_json: Json = False,
) -> None:
    """Show a result: its score matrices as heatmaps and its summary."""
    from clbench.result import load_result
    from clbench.show import render_result
    from clbench.validation import check_result

    loaded = load_result(result)
    definition = load_suite(suite or loaded.suite.name)
    findings = check_result(loaded, definition, allow_partial=True)
    if findings:
        raise ClbenchError(f"{result} is not valid: {findings[0].code} {findings[0].message}")
    if as_json:
        typer.echo(loaded.model_dump_json(include={"method", "track", "summary", "partial"}, indent=1))
        return
    render_result(loaded, definition, out, run=run)


@app.command(epilog="Example: `clbench validate submissions/mini-v1/*/*.json`")
def validate(
    files: Annotated[list[Path], typer.Argument(help="Result files.")],
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Accept a part of the protocol's runs.")
    ] = False,
    suite: OwnSuite = None,
    as_json: Json = False,
) -> None:
    """Check result files; exit 0 only if every one is valid."""
    from clbench.submission import check_file

    verdicts = {str(path): check_file(path, suite, allow_partial=allow_partial) for path in files}
    invalid = sum(bool(found) for found in verdicts.values())
    if as_json:
        rows = {name: [vars(finding) for finding in found] for name, found in verdicts.items()}
        typer.echo(json.dumps(rows, indent=1))
    else:
        for name, found in verdicts.items():
            for finding in found:
                out.print(Text(f"{name}: {finding.code} {finding.message}"), soft_wrap=True)
            if len(files) == 1 or found:
                out.print(Text(f"{name}: {'invalid' if found else 'valid'}"), soft_wrap=True)
        if len(files) > 1:
            out.print(Text(f"{len(files) - invalid} of {len(files)} files are valid", "red" if invalid else "green"))
    if invalid:
        raise typer.Exit(2)


@app.command(epilog="Example: `clbench submit runs/mini-v1/styles/mine.json --submitter 'A. Lab'`")
def submit(
    result: Annotated[Path, typer.Argument(help="A complete, valid result file.")],
    submitter: Annotated[str, typer.Option(help="Who submits it.")],
    submissions: Annotated[Path, typer.Option(help="Folder of all submissions.")] = Path("submissions"),
    replace: Annotated[bool, typer.Option("--replace", help="Replace what is there.")] = False,
    board: Annotated[
        Path | None, typer.Option("--leaderboard", help="Folder of the tables; default beside the submissions.")
    ] = None,
    samples: Annotated[Path, typer.Option(help="Folder of sample grids to embed.")] = Path("docs/samples"),
) -> None:
    """Check a result, file it as `submissions/<suite>/<track>/<method>.json`, and rebuild the tables."""
    from clbench import submission
    from clbench.leaderboard.aggregate import build_leaderboard
    from clbench.leaderboard.published import load_published
    from clbench.verify import read_verified

    place, filed = submission.submit(result, submitter, submissions, replace)
    out.print(Text(f"filed as {place}"), soft_wrap=True)
    board = board or submissions.parent / "leaderboard"
    verified = read_verified(submissions / "VERIFIED.json")
    written = build_leaderboard(submissions, board, samples=samples, published=load_published(), verified=verified)
    out.print(Text(f"rebuilt {len(written)} files under {board}"), soft_wrap=True)
    for line in ("", *submission.next_steps(place, filed, written)):
        out.print(Text(line), soft_wrap=True)


@app.command(epilog="Example: `clbench compare submissions/mini-v1/styles/magmax.json runs/mini-v1/styles/mine.json`")
def compare(
    first: Annotated[Path, typer.Argument(help="A result file.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same track.")],
    suite: OwnSuite = None,
    as_json: Json = False,
) -> None:
    """Compare two results on the runs they share: every statistic, the paired test, the matrices' difference."""
    from clbench.compare import compare_results, render_comparison
    from clbench.result import load_result
    from clbench.submission import check_file, known_suite

    for path in (first, second):
        if findings := check_file(path, suite, allow_partial=True):
            raise ClbenchError(f"{path} is not valid: {findings[0].code} {findings[0].message}")
    results = load_result(first), load_result(second)
    comparison = compare_results(*results, known_suite(suite or results[0].suite.name))
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=1))
        return
    render_comparison(comparison, out)


@app.command(
    epilog="Examples:\n\n`clbench verify submissions/mini-v1/styles/magmax.json --level rerun --cells 3`\n\n"
    "`clbench verify mine.json --level artifacts --images mine-images`"
)
def verify(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    level: Annotated[str, typer.Option(help="`recomputed`, `artifacts` or `rerun`.")] = "recomputed",
    images: Annotated[Path | None, typer.Option(help="Folder of images with a manifest, for `artifacts`.")] = None,
    cells: Annotated[int, typer.Option(help="How many cells to run again.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Which cells are chosen.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the store of `rerun`.")] = Path("verify"),
    note: Annotated[Path | None, typer.Option("--record", help="Maintainers' file to note the level in.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to run again; default: what is there.")] = None,
    suite: OwnSuite = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Check a result more deeply: recompute it, score its images, or run chosen cells again."""
    from clbench import verify as verifying
    from clbench.errors import did_you_mean
    from clbench.result import load_result
    from clbench.submission import check_file

    if level not in verifying.LEVELS:
        raise ClbenchError(f"there is no level {level!r}{did_you_mean(level, list(verifying.LEVELS))}")
    if level == "artifacts" and images is None:
        raise ClbenchError("--level artifacts needs --images FOLDER, as `clbench export --images` writes it")
    if findings := check_file(result, suite, allow_partial=True):
        raise ClbenchError(f"{result} is not valid: {findings[0].code} {findings[0].message}")
    loaded, checked = load_result(result), []
    if level != "recomputed":
        _import_harness()
        from clbench.again import open_again

        with (
            _progress() as progress,
            open_again(loaded, suite, output, plugin, device, data_root) as (bench, sequences),
        ):
            bar = progress.add_task("loading the models", total=None)
            if level == "artifacts" and images is not None:
                found = verifying.score_images(loaded, bench, images)
            else:
                found = verifying.run_again(
                    loaded, sequences, cells, seed, lambda what: progress.update(bar, description=what)
                )
            checked = list(found)
    limit = verifying.tolerance(loaded, level)
    worst = max((one.difference for one in checked), default=0.0)
    wrong = [one for one in checked if one.difference > limit]
    if as_json:
        rows = [vars(one) | {"difference": one.difference} for one in checked]
        typer.echo(json.dumps({"level": level, "tolerance": limit, "largest": worst, "checked": rows}, indent=1))
    elif checked:
        out.print(Text(f"{len(checked)} scores compared: largest difference {worst:.2g}, noise on record {limit:.2g}"))
    if wrong:
        one = wrong[0]
        raise WorkFailed(
            f"{result} does not hold: run {one.run}, {one.metric} of {one.task!r} after task {one.row} is "
            f"{one.submitted:.4f} in the file, but {one.found:.4f} here"
        )
    if note is not None:
        verifying.record(note, loaded, level, checked)
    if not as_json:
        out.print(Text(f"{result}: {level}", style="green"))


@app.command(
    epilog="Examples:\n\n`clbench leaderboard --submissions submissions --output leaderboard`\n\n"
    "`clbench leaderboard --site site`"
)
def leaderboard(
    submissions: Annotated[Path, typer.Option(help="Folder of submitted results.")] = Path("submissions"),
    output: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("leaderboard"),
    samples: Annotated[Path, typer.Option(help="Folder of sample grids to embed.")] = Path("docs/samples"),
    site: Annotated[Path | None, typer.Option(help="Also a static site, in this folder: open its index.html.")] = None,
    as_json: Json = False,
) -> None:
    """Turn submissions into ranked tables (a page a suite and track, as CSV, JSON and LaTeX too), and into a site."""
    from clbench.leaderboard.aggregate import read_submissions, write_tables
    from clbench.leaderboard.published import load_published
    from clbench.leaderboard.site import build_site
    from clbench.verify import read_verified, status

    boards, published = read_submissions(submissions, load_suite), load_published()
    verified = read_verified(submissions / "VERIFIED.json")
    paths = write_tables(boards, output, samples=samples, published=published, verified=verified)
    if site is not None:
        levels = {(*key, one.method.name): status(verified, one) for key, results in boards.items() for one in results}
        build_site(boards, site, samples=samples, published=published, verified=levels)
        paths.append(site / "index.html")
    if as_json:
        typer.echo(json.dumps([str(path) for path in paths]))
        return
    for path in paths:
        out.print(Text(f"wrote {path}"), soft_wrap=True)


@app.command(epilog="Example: `clbench samples --method naive --track styles`")
def samples(
    method: Annotated[str, typer.Option(help="A method whose run is in the store.")],
    track: Annotated[str, typer.Option(help="A track of the suite.")],
    suite: Annotated[str, typer.Option(help="A suite.")] = "mini-v1",
    output: Annotated[Path, typer.Option(help="Folder that holds the store.")] = Path("runs"),
    to: Annotated[Path, typer.Option(help="Folder for the grid.")] = Path("docs/samples"),
    device: Annotated[str | None, typer.Option(help="Where the run was made; default as for a run.")] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
) -> None:
    """Show one run as a picture: what each task looked like after every later one."""
    load_suite(suite).track(track)
    _import_harness()
    from clbench.samples import draw_grid

    path = draw_grid(method, track, suite, output, to, tuple(plugin or ()), device, data_root)
    out.print(Text(f"wrote {path}"), soft_wrap=True)


@app.command(epilog="Example: `clbench export runs/mini-v1/styles/naive.json --task winter --to naive-winter`")
def export(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    task: Annotated[str | None, typer.Option(help="A task's name, or its number in the run's order.")] = None,
    images: Annotated[bool, typer.Option("--images", help="All scored images instead, for `clbench verify`.")] = False,
    to: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("export"),
    run: Annotated[int, typer.Option(help="Which run, counted from 1.")] = 1,
    output: Annotated[Path, typer.Option(help="Folder that holds the store.")] = Path("runs"),
    dtype: Annotated[str, typer.Option(help="Of a merged U-Net: `fp32`, `fp16` or `bf16`.")] = "fp32",
    suite: OwnSuite = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
) -> None:
    """Write the model after a task for diffusers: an adapter for `load_lora_weights`, or a merged U-Net."""
    from clbench.result import load_result

    loaded = load_result(result)
    if (task is None) != images:
        raise ClbenchError("give either --task or --images")
    _import_harness()
    from clbench.again import open_again
    from clbench.export import export_model
    from clbench.verify import write_images

    with open_again(loaded, suite, output, plugin, None, data_root) as (bench, sequences):
        if task is None:
            path = write_images(bench, sequences, to)
        else:
            path = export_model(bench, sequences, task, to, run, dtype)
    out.print(Text(f"wrote {path}"), soft_wrap=True)


@app.command("new-suite", epilog="Example: `clbench new-suite my-cats --like sdxl-v1`")
def new_suite(
    folder: Annotated[Path, typer.Argument(help="Where to write it; its name becomes the suite's.")],
    like: Annotated[str, typer.Option(help="The suite to begin from.")] = "sdxl-v1",
) -> None:
    """Write a commented suite of your own, to be changed and run with `--suite FOLDER`."""
    from clbench import newsuite

    for path in newsuite.new_suite(folder, like):
        out.print(Text(f"wrote {path}"), soft_wrap=True)


@data_app.command("status", epilog="Example: `clbench data status --suite sdxl-v1`")
def data_status(
    suite: Annotated[str, typer.Option(help="A suite, or your own's folder.")] = "mini-v1",
    item: Annotated[list[str] | None, typer.Option(help="One item only; repeatable.")] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Say of each model and data set whether it is there, where, and whether it is whole; exit 1 if one is not."""
    _report_data(suite, item, data_root, as_json, data.inspect, _progress(transient=True))


@data_app.command("fetch", epilog="Example: `clbench data fetch --suite sdxl-v1`")
def data_fetch(
    suite: Annotated[str, typer.Option(help="A suite, or your own's folder.")] = "mini-v1",
    item: Annotated[list[str] | None, typer.Option(help="One item only; repeatable.")] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Get what is missing from the Hugging Face hub; what arrived before is not fetched again."""
    from clbench.fetch import fetch

    _report_data(suite, item, data_root, as_json, fetch, None)  # the hub's client draws its own bars


def _report_data(
    suite: str,
    names: list[str] | None,
    root: Path | None,
    as_json: bool,
    work: Callable[[Item, Places], Found],
    progress: Any | None,
) -> None:
    """Do something to each item and print what was found."""
    from clbench.human import human_bytes

    definition, places = load_suite(suite), data.Places(root or data.default_root(), suite_folder(suite))
    wanted = data.choose(data.items(definition, suite), names)
    found: list[Found] = []
    with _needing_extras(), progress or nullcontext():
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
            told = one.problem or f"{one.files} files, {human_bytes(one.size)}, {known}; {one.origin}: {one.folder}"
            out.print(Text.assemble(state, f"  {one.item.name}: {told}"), soft_wrap=True)
        out.print(Text(f"data root: {places.root} (--data-root or CLBENCH_DATA_ROOT)"), soft_wrap=True)
    if any(one.problem for one in found):
        raise typer.Exit(1)


def _data_row(found: Found) -> dict[str, Any]:
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
    _import_harness()
    from clbench.miniworld.pretrain import STAGES, pretrain

    pretrain(output, tuple(_words(stages) or STAGES), scale, seed, device, start)
    if stages is None or start is not None:
        from clbench.miniworld.quality import write_card

        out.print(Text(f"wrote {write_card(output)}"), soft_wrap=True)


@app.command(epilog="Example: `clbench env --json`")
def env(as_json: Json = False) -> None:
    """Show this machine and the installed packages, as results record them."""
    harness = _import_harness()
    described = harness.describe("cpu").model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(described, indent=1))
        return
    for name, value in described.items():
        out.print(Text(f"{name}: {value}"), soft_wrap=True)


def _import_harness() -> Any:
    """The part that needs torch, or the sentence that says how to install it."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with _needing_extras():
        import transformers

        from clbench import harness
    import logging

    import diffusers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    return harness


@contextmanager
def _needing_extras() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ClbenchError(f"{error.name} is not installed; this needs `pip install 'clbench[run]'`") from None


def _progress(transient: bool = False) -> Any:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=transient)


def _suite_row(suite: Suite) -> dict[str, str]:
    counts = [f"{len(track.tasks)} {track.name}" for track in suite.tracks.values()]
    return {"suite": suite.name, "version": suite.version, "tracks": ", ".join(counts), "sha256": suite.sha256[:12]}


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(word) for word in _words(text) or []]
    except ValueError:
        raise ClbenchError(f"--seeds takes whole numbers with commas between, e.g. 0,5, not {text!r}") from None


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs; a value is read as JSON where it is JSON, else as text."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ClbenchError(f"--set takes key=value, not {pair!r}")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return settings
