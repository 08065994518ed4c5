"""The command that publishes a run's model on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from clbench.cli.export import Dtype, Output, Rank, Run
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


@app.command(
    rich_help_panel=RESULTS,
    epilog="Example: `clbench push runs/mini-v2/styles/merge_init.json me/my-styles --dry-run`",
)
def push(
    result: Annotated[Path, typer.Argument(help="A result file.")],
    repo: Annotated[str, typer.Argument(help="The hub repository, `<owner>/<name>`; it is created if need be.")],
    task: Annotated[
        str | None,
        typer.Option(help="The last task that was learned: name, or number in the run's order; default all."),
    ] = None,
    run: Run = 1,
    rank: Rank = None,
    dtype: Dtype = "fp32",
    licence: Annotated[
        str | None, typer.Option(help="The LoRA's licence, as the hub names it; default the base model's.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a repository that only you can see.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder (`--to`), and upload nothing.")] = False,
    to: Annotated[Path | None, typer.Option(help="A new folder for a copy; default `push` with --dry-run.")] = None,
    output: Output = None,
    store: Store = None,
    suite: ResultSuite = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
) -> None:
    """Publish the model after a task on the Hugging Face hub: LoRA, model card with scores, sample images, result.

    The token is that of `hf auth login`, or HF_TOKEN. A LoRA of merged weights is made by SVD, as by
    `clbench export --format lora`.
    """
    from clbench.results.validation import load_valid

    fork_server()
    method = load_valid(result, suite, allow_partial=True)
    import_harness()
    from clbench.runner.push import PushRequest, require_login, upload, write_folder
    from clbench.runner.reopen import reopen
    from clbench.utils.files import free_path

    if not dry_run:
        require_login()  # before the work
    request = PushRequest(repo, task, run, rank, dtype, licence)
    with tempfile.TemporaryDirectory() as temporary:
        folder = free_path(to or Path("push")) if to or dry_run else Path(temporary)
        place = store_of(result, output, store)
        with reopen(method.result, suite, place, plugin, None, data_root) as (runtime, sequences):
            write_folder(request, method, runtime, sequences, folder)
        if to or dry_run:
            out.print(Text(f"wrote {folder}"), soft_wrap=True)
        if not dry_run:
            out.print(Text(f"pushed to {upload(folder, repo, private)}"), soft_wrap=True)
