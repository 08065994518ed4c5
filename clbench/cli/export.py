"""Commands that make something of what runs left in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from clbench.cli.options import (
    RESULTS,
    DataRoot,
    Plugins,
    ResultSuite,
    Store,
    app,
    fork_server,
    import_harness,
    out,
    store_of,
)
from clbench.errors import ClbenchError
from clbench.suite import load_suite

Output = Annotated[Path | None, typer.Option(help="Folder that the run wrote to; default: that of the result.")]
Run = Annotated[int, typer.Option(help="Which run, counted from 1.")]
Rank = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Largest rank of a LoRA; default the tasks' number times the suite's rank. The smallest that loses less "
        "than 1e-6 is taken.",
    ),
]
Dtype = Annotated[str, typer.Option(help="Of the exported weights: `fp32`, `fp16` or `bf16`.")]


@app.command(
    rich_help_panel=RESULTS, epilog="Example: `clbench samples runs/mini-v2/styles/merge_init.json --to grids`"
)
def samples(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    output: Output = None,
    store: Store = None,
    to: Annotated[Path, typer.Option(help="Folder for the grid.")] = Path("docs/samples"),
    run: Run = 1,
    suite: ResultSuite = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
) -> None:
    """Show one run as a picture: what each task looked like after every later one."""
    from clbench.results.io import load_result

    fork_server()
    loaded = load_result(result)
    import_harness()
    from clbench.runner.reopen import reopen
    from clbench.runner.sample_grid import draw_grid

    with reopen(loaded, suite, store_of(result, output, store), plugin, None, data_root) as (runtime, sequences):
        path = draw_grid(runtime, sequences, to, loaded.variant, run)
    out.print(Text(f"wrote {path}"), soft_wrap=True)


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples:\n\n`clbench export runs/mini-v2/styles/merge_init.json --task 10 --to merge_init-last`\n\n"
    "`clbench export runs/mini-v2/styles/merge_init.json --task 10 --format lora --to merge_init-lora`\n\n"
    "`clbench export runs/mini-v2/styles/merge_init.json --format eee --to merge_init-eee.json`",
)
def export(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    task: Annotated[str | None, typer.Option(help="A task's name, or its number in the run's order.")] = None,
    images: Annotated[bool, typer.Option("--images", help="All scored images instead, for `clbench verify`.")] = False,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="`diffusers`: a LoRA where the method hands on one, else a merged U-Net; `lora`: a LoRA of merged "
            "weights too, by SVD (minutes for SDXL); `eee`: the result as an Every Eval Ever record.",
        ),
    ] = "diffusers",
    rank: Rank = None,
    to: Annotated[Path | None, typer.Option(help="Folder for what is written, or the record's file.")] = None,
    run: Run = 1,
    output: Output = None,
    store: Store = None,
    dtype: Dtype = "fp32",
    suite: ResultSuite = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
) -> None:
    """Write the model after a task for diffusers, all scored images for `verify`, or a record for other registries.

    For diffusers that is a LoRA for `load_lora_weights`, or a merged U-Net. What lies in the place of a file stays.
    """
    from clbench.results.io import load_result

    fork_server()
    loaded = load_result(result)
    if form not in ("diffusers", "lora", "eee"):
        raise ClbenchError(f"there is no format {form!r} (known: diffusers, lora, eee)")
    if form == "eee":
        if task is not None or images:
            raise ClbenchError("--format eee takes neither --task nor --images: it is the whole result")
        _export_record(loaded, load_suite(suite or loaded.suite.name), to or result.with_suffix(".eee.json"))
        return
    to = to or Path("export")
    if (task is None) != images:
        raise ClbenchError("give either --task, --images or --format eee")
    import_harness()
    from clbench.runner.export import export_model
    from clbench.runner.reopen import reopen
    from clbench.runner.verify import write_images

    with reopen(loaded, suite, store_of(result, output, store), plugin, None, data_root) as (runtime, sequences):
        if task is None:
            written = str(write_images(runtime, sequences, to))
        else:
            model = export_model(runtime, sequences, task, to, run, dtype, form, rank)
            about = f" (LoRA of rank {model.rank}, relative error {model.relative_error:.1e})" if model.rank else ""
            written = f"{model.path}{about}"
    out.print(Text(f"wrote {written}"), soft_wrap=True)


def _export_record(loaded: Any, definition: Any, to: Path) -> None:
    from clbench.results.eee import eee_record
    from clbench.utils.files import free_path, write_text

    write_text(
        free_path(to), json.dumps(eee_record(loaded, definition), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    out.print(Text(f"wrote {to}"), soft_wrap=True)
