"""The model card of a pushed LoRA: what the hub, its search and its evaluation tables read of it.

The metadata are those of https://huggingface.co/docs/hub/model-cards, with the scores as `model-index`. (The newer
files below `.eval_results/` are for benchmarks that are data sets on the hub, as no suite is.) Texts of results and
suites enter as YAML values or escaped, never as markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from clbench.leaderboard.tables import Cell, Column, Table, code_span, escape, to_markdown
from clbench.results.analysis import Analysis
from clbench.results.schema import Run
from clbench.results.table import spread_text
from clbench.suite import Suite, Task
from clbench.utils.formatting import counted

TAGS = ("text-to-image", "lora", "template:sd-lora", "continual-learning", "clbench")
SDXL_TAGS = ("stable-diffusion-xl", "stable-diffusion-xl-diffusers")


@dataclass(frozen=True)
class PushedLora:
    """The facts about a LoRA that a result does not have."""

    repo: str
    """The hub repository, `<owner>/<name>`."""
    licence: str
    """The hub's name of its licence."""
    run: Run
    """The run that it is of."""
    learned: tuple[Task, ...]
    """The tasks that were learned, in their order."""
    samples: tuple[tuple[str, str], ...]
    """A prompt, and the file of its image, relative to the card."""
    rank: int
    relative_error: float
    """Of its weights, as `clbench.runner.export` measures it."""


def model_card(method: Analysis, suite: Suite, lora: PushedLora) -> str:
    """The text of README.md, metadata first."""
    base = hub_base(suite)
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        license=lora.licence,
        tags=[*TAGS, *(SDXL_TAGS if base else ())],
        instance_prompt=method.track.train_prompt(lora.learned[-1]),
        widget=[{"text": prompt, "output": {"url": file}} for prompt, file in lora.samples],
        model_name=lora.repo.rsplit("/", 1)[-1],
        eval_results=list(_scores(method, suite)) or None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(method, suite, lora, base)}"))


def hub_base(suite: Suite) -> str | None:
    """The base model's hub id; None where it does not come from the hub."""
    name = suite.backbone.source.removeprefix("hub:")
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name if suite.backbone.source.startswith("hub:") else None


def _scores(method: Analysis, suite: Suite) -> Iterator[EvalResult]:
    """A result for each metric and statistic: the mean over runs."""
    for metric, statistic, estimate in method.estimates():
        yield EvalResult(
            task_type="text-to-image",
            task_name="Continual personalization",
            dataset_type=f"clbench-{suite.name}",
            dataset_name=f"{suite.name} {method.track.name}",
            dataset_config=method.track.name,
            dataset_args={"version": suite.version, "sha256": suite.sha256},
            metric_type=f"{metric.name}.{statistic.name}",
            metric_name=f"{metric.label} {statistic.title}",
            metric_value=estimate.spread.mean,
            metric_args=estimate.spread.model_dump(include={"n", "std"}, exclude_none=True),
        )


def _text(method: Analysis, suite: Suite, lora: PushedLora, base: str | None) -> str:
    """The card's visible part."""
    result, tasks = method.result, counted(len(lora.learned), "task")
    begin = f"A LoRA of {code_span(base or result.backbone.id)} that learned {tasks} one after another by"
    lines = [
        f"# {escape(method.variant)}: {escape(method.track.name)} of {escape(suite.name)}",
        "",
        "<Gallery />",
        "",
        f"{begin} {code_span(method.configuration)}, a method of continual low-rank personalization. Made and scored "
        "with clbench.",
        "",
        *(_usage(base, lora.repo) if base else ("The base model is bundled with clbench; the hub does not have it.",)),
        "",
        "## Tasks",
        "",
        to_markdown(_task_table(method, lora)),
        "",
        "## Scores",
        "",
        f"Mean ± standard deviation over {counted(len(result.runs), 'run')}{' (partial)' if result.partial else ''} of "
        f"{len(method.track.tasks)} tasks each. This LoRA is of one run: order {code_span(lora.run.order)}, seed "
        f"{lora.run.seed}, after {tasks}. `result.json` has all scores.",
        "",
        to_markdown(_score_table(method)),
        "",
        "## Details",
        "",
        f"- Rank {lora.rank}; relative error of the weights against those that were scored: {lora.relative_error:.1e}",
        f"- Regime: {escape(lora.run.regime)}",
        f"- Suite: {code_span(suite.name)} {escape(suite.version)}, sha256 {code_span(suite.sha256)}",
        f"- Base model: {code_span(result.backbone.id)} at {code_span(result.backbone.revision)}",
        f"- Method's source: sha256 {code_span(result.method.source_sha256)}",
        f"- Settings: {code_span(json.dumps(result.method.config, sort_keys=True))}",
        f"- Made by {code_span(result.command)}",
    ]
    if origin := result.submission:
        lines += [f"- {name}: <{link}>" for name, link in (("Paper", origin.paper), ("Code", origin.code)) if link]
    return "\n".join(lines) + "\n"


def _usage(base: str, repo: str) -> tuple[str, ...]:
    return (
        "```python",
        "import torch",
        "from diffusers import DiffusionPipeline",
        "",
        f'pipeline = DiffusionPipeline.from_pretrained("{base}", torch_dtype=torch.bfloat16).to("cuda")',
        f'pipeline.load_lora_weights("{repo}")',
        "```",
    )


def _task_table(method: Analysis, lora: PushedLora) -> Table:
    rows = (
        (Cell(str(number)), Cell(task.name), Cell(method.track.train_prompt(task)))
        for number, task in enumerate(lora.learned, start=1)
    )
    return Table((Column("Learned"), Column("Task", "left"), Column("Prompt of its training", "left")), tuple(rows))


def _score_table(method: Analysis) -> Table:
    rows = (
        (Cell(metric.label), Cell(statistic.title), Cell(spread_text(estimate.spread, statistic)))
        for metric, statistic, estimate in method.estimates()
    )
    return Table((Column("Metric", "left"), Column("Statistic", "left"), Column("Value")), tuple(rows))
