"""The command that checks a result more deeply than its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from clbench.cli.options import (
    BOARD,
    DataRoot,
    Json,
    Plugins,
    ResultSuite,
    app,
    fork_server,
    import_harness,
    out,
    progress_bar,
    store_of,
)
from clbench.errors import ClbenchError, WorkFailed
from clbench.utils.formatting import counted

if TYPE_CHECKING:
    from clbench.results.reproduction import Rerun
    from clbench.results.schema import Result
    from clbench.results.verification import Checked


@app.command(
    rich_help_panel=BOARD,
    epilog="Examples:\n\n`clbench verify runs/mini-v2/styles/merge_init.json`\n\n"
    "`clbench verify submissions/mini-v2/styles/magmax.json --level rerun`",
)
def verify(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    level: Annotated[str, typer.Option(help="`recomputed`, `artifacts` or `rerun`.")] = "recomputed",
    images: Annotated[Path | None, typer.Option(help="Folder of images with a manifest, for `artifacts`.")] = None,
    runs: Annotated[int, typer.Option(help="How many whole runs `rerun` repeats.", min=1)] = 1,
    cells: Annotated[int, typer.Option(help="How many last-row cells of other runs `rerun` repeats.", min=0)] = 3,
    seed: Annotated[
        int | None, typer.Option(help="Which runs and cells, to repeat a verification; default: drawn now.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the store of `rerun`.")] = Path("verify"),
    note: Annotated[Path | None, typer.Option("--record", help="Maintainers' file to note the level in.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to run again; default: what is there.")] = None,
    suite: ResultSuite = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Check a result more deeply: recompute it, score its images, or run a part of it again.

    `rerun` repeats a whole run and some last cells of others, drawn at random, and compares them within what the
    method is known to differ from itself: one honest result in a hundred fails.
    """
    from clbench.errors import did_you_mean
    from clbench.results import verification
    from clbench.results.environment import describe, describe_machine
    from clbench.results.find import replicate_number
    from clbench.results.validation import load_valid

    if level not in verification.LEVELS:
        raise ClbenchError(f"there is no level {level!r}{did_you_mean(level, list(verification.LEVELS))}")
    if level == "artifacts" and images is None:
        raise ClbenchError("--level artifacts needs --images FOLDER, as `clbench export --images` writes it")
    fork_server()
    loaded = load_valid(result, suite, allow_partial=True).result
    checked: list[Checked] = []
    rerun, environment = None, describe_machine()
    if level != "recomputed":
        import_harness()
        from clbench.runner import verify as verifying
        from clbench.runner.reopen import reopen
        from clbench.storage.open import default_store

        known = [store_of(result)]
        with (
            progress_bar() as progress,
            reopen(loaded, suite, default_store(output), plugin, device, data_root, known) as (runtime, sequences),
        ):
            bar = progress.add_task("loading the models", total=None)
            environment = describe(runtime.config.device)
            if level == "artifacts" and images is not None:
                checked = list(verifying.score_images(loaded, runtime, images))
            else:
                checked, rerun = verifying.rerun(
                    loaded, sequences, runs, cells, seed, lambda what: progress.update(bar, description=what)
                )
    worst = max(checked, key=lambda one: one.difference, default=None)
    limit = verification.tolerance(loaded)
    if as_json:
        content = {
            "level": level,
            "largest": worst.difference if worst else 0.0,
            "tolerance": None if rerun else limit,
            "checked": [vars(one) | {"difference": one.difference} for one in checked],
            "rerun": rerun and rerun.model_dump(mode="json"),
        }
        typer.echo(json.dumps(content, indent=1))
    elif rerun:
        _show(loaded, rerun)
    elif worst:
        out.print(f"{len(checked)} scores compared: largest difference {worst.difference:.2g}, tolerance {limit:.2g}")
    if worst and not (rerun.holds if rerun else worst.difference <= limit):
        wrong = [f"{one.name} of {one.metric}" for one in rerun.figures if not one.holds] if rerun else []
        raise WorkFailed(
            f"{result} does not hold{', by ' * bool(wrong)}{', '.join(wrong)}: run {worst.run}, {worst.metric} of "
            f"{worst.task!r} after task {worst.row} is {worst.submitted:.4f} in the file, but {worst.found:.4f} here"
        )
    if note is not None:
        number = replicate_number(result)
        verification.record(note, loaded, level, checked, number=number, rerun=rerun, environment=environment)
    if not as_json:
        out.print(Text(f"{result}: {level}", style="green"))


def _show(result: Result, rerun: Rerun) -> None:
    """Print what was run again, what was found, and how sure that is."""
    from clbench.results.reproduction import how_sure

    runs = ", ".join(f"order {order} with seed {seed}" for order, seed in rerun.runs)
    out.print(Text(f"repeated {runs}, and {counted(len(rerun.cells), 'last cell')} of other runs; seed {rerun.seed}"))
    for one in rerun.figures:
        verdict = "" if one.holds else ": differs"
        out.print(Text(f"{one.name} ({one.metric}): {one.value:+.2g}, tolerance {one.tolerance:.2g}{verdict}"))
    out.print(Text(f"tolerances: {rerun.reproducibility}; {how_sure(result, rerun)}"), soft_wrap=True)
