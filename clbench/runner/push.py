"""Publish a run's model on the Hugging Face hub: a folder with LoRA, card, images and result, and its upload."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import logging, validate_repo_id
from PIL import Image

from clbench.data.download import hub_reason
from clbench.data.images import image_suffix
from clbench.data.published import LICENCES
from clbench.errors import ClbenchError, WorkFailed
from clbench.leaderboard.model_card import PushedLora, model_card
from clbench.protocol.rows import Row
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.results.analysis import Analysis
from clbench.results.io import save_result
from clbench.runner.export import export_model, task_position
from clbench.runner.reopen import run_numbered
from clbench.suite import Suite
from clbench.utils.files import write_atomic, write_text


@dataclass(frozen=True)
class PushRequest:
    """What is published, and under which name."""

    repo: str
    """The hub repository, `<owner>/<name>`."""
    task: str | None = None
    """The last task that the model learned: its name or number; default the run's last."""
    run: int = 1
    rank: int | None = None
    """As `export_model` takes it."""
    dtype: str = "fp32"
    licence: str | None = None
    """The hub's name of the licence; default that of the base model."""


def check_request(request: PushRequest, suite: Suite) -> str:
    """The licence that a request comes to.

    Raises:
        ClbenchError: the repository's name is none, or no licence is known.
    """
    try:
        validate_repo_id(request.repo)
    except HFValidationError:
        raise ClbenchError(
            f"{request.repo!r} is not the name of a hub repository; give one such as me/my-lora"
        ) from None
    if request.repo.count("/") != 1:
        raise ClbenchError(f"{request.repo!r} does not say whose repository it is; give one such as me/my-lora")
    licence = request.licence or LICENCES.get(suite.backbone.source)
    if licence is None:
        raise ClbenchError(
            f"the licence of the base model {suite.backbone.source} is not on record; give that of the LoRA with "
            f"--licence, as the hub names it, e.g. apache-2.0"
        )
    return licence


def write_folder(
    request: PushRequest, method: Analysis, runtime: TrackRuntime, sequences: list[TaskSequence], folder: Path
) -> None:
    """Fill an empty folder with what is uploaded: LoRA, README.md, images and result.json.

    Raises:
        ClbenchError: as `check_request` and `export_model`, the method has a model for each task, or the store does not
            hold the run's images.
    """
    licence = check_request(request, runtime.suite)
    sequence = run_numbered(sequences, request.run)
    if sequence.is_told:
        raise ClbenchError(
            f"{sequence.host.name} is told which task to draw: it has a model for each, and its scores are not of one; "
            f"`clbench export --task` writes them one by one"
        )
    position = len(sequence.tasks) - 1 if request.task is None else task_position(sequence, request.task)
    task = sequence.tasks[position].name
    exported = export_model(
        runtime, sequences, task, folder, request.run, request.dtype, form="lora", rank=request.rank
    )
    lora = PushedLora(
        repo=request.repo,
        licence=licence,
        run=method.result.runs[request.run - 1],
        learned=tuple(sequence.tasks[: position + 1]),
        samples=tuple(_write_samples(runtime, sequence, position, folder)),
        rank=exported.rank or 0,
        relative_error=exported.relative_error,
    )
    save_result(method.result, folder / "result.json")
    write_text(folder / "README.md", model_card(method, runtime.suite, lora))


def _write_samples(runtime: TrackRuntime, sequence: TaskSequence, position: int, folder: Path) -> list[tuple[str, str]]:
    """An image of each task after the last one learned, each of another evaluation prompt: (prompt, file)."""
    row, state = Row.read(runtime, sequence.keys.row(position), position), sequence.stored_state(position)
    if row is None or state is None:
        raise ClbenchError(f"{runtime.store.location} does not hold the images of this run; run it again")
    deployed, samples = sequence.deployed(position, state), []
    for number, (task, cell) in enumerate(zip(sequence.tasks[: position + 1], row.cells, strict=False)):
        prompts, file = deployed.prompts(runtime.track, task), f"images/{number + 1:02d}.png"
        image = _image(runtime, cell, number % len(prompts), len(prompts))
        if image is not None:
            write_atomic(folder / file, lambda path, image=image: image.save(path, format="PNG"))
            samples.append((prompts[number % len(prompts)], file))
    return samples


def _image(runtime: TrackRuntime, cell: str, prompt: int, prompts: int) -> Image.Image | None:
    """A cell's first image of a prompt: whole where the run kept it, else its thumbnail; None where neither is."""
    whole = runtime.store.get(cell, image_suffix(prompt * runtime.suite.sampling.images_per_prompt))
    if whole is not None:
        return Image.open(whole)
    strip = runtime.store.get(cell, ".png")
    if strip is None:
        return None
    thumbnails = Image.open(strip)
    side = thumbnails.width // prompts
    return thumbnails.crop((prompt * side, 0, (prompt + 1) * side, thumbnails.height))


def require_login() -> None:
    """Raise a ClbenchError where there is no token for the hub."""
    if get_token() is None:
        raise ClbenchError("nobody is logged in to the hub: call `hf auth login`, or set HF_TOKEN")


def upload(folder: Path, repo: str, private: bool, hub: HfApi | None = None) -> str:
    """Upload a folder to a repository of models, which is created if need be; returns its address.

    Args:
        hub: default the hub, and the user, that the environment names.

    Raises:
        ClbenchError: the hub refuses, or the repository is public although `private`. WorkFailed: the hub cannot be
            reached.
    """
    logging.set_verbosity_error()
    hub = hub or HfApi()
    try:
        address = hub.create_repo(repo, private=private or None, exist_ok=True)
        if private and not hub.model_info(repo).private:
            raise ClbenchError(f"{repo} exists and is public; make it private on the hub, or give another name")
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a LoRA made with clbench")
    except ClbenchError:
        raise
    except Exception as error:  # the client's, its HTTP library's (which depends on its version) or the system's
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403, 404):
            raise ClbenchError(
                f"the hub does not let this user write to {repo}: {hub_reason(error)}; give a repository of your own "
                f"and a token with write access"
            ) from None
        raise WorkFailed(f"cannot push to {repo}: {hub_reason(error)}; the same command tries again") from error
    return str(address)
