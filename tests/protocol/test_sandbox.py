"""A plugin can only train: what it finds in its process, what survives a task, and how its process may end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from watching import Events, sentence, wait_until

from clbench.errors import WorkFailed
from clbench.plugins import get_method
from clbench.protocol.describe import describe
from clbench.protocol.method_host import MethodProcess
from clbench.protocol.sandbox import landlock
from clbench.protocol.task_sequence import TaskSequence
from clbench.protocol.track_runtime import TrackRuntime
from clbench.state import State
from clbench.storage.store import Store

HEAD = """
import gc, inspect, json, os, signal, subprocess, sys, tempfile
from pathlib import Path

import torch
from clbench import Method, State


def noted(state, found):
    return state.with_extra(found=torch.frombuffer(bytearray(json.dumps(found).encode()), dtype=torch.uint8))


class Mine(Method):
    name = "mine"
"""


@pytest.fixture
def sequence(runtime, tmp_path):
    """A sequence of a method of these hooks, or of a registered one, which this process does not import."""

    def make(body: str = "", name: str = "mine", store: Store | None = None) -> TaskSequence:
        plugins = []
        if body:
            (tmp_path / "mine.py").write_text(HEAD + body)
            plugins = [tmp_path / "mine.py"]
        own = TrackRuntime(runtime.suite, "styles", store or runtime.store, models=runtime.models)
        return TaskSequence(own, MethodProcess(describe(name, {}, plugins), {}), "forward", 0)

    return make


def found(state: State):
    return json.loads(bytes(state.extra["found"].tolist()))


SPY = """
    def end_task(self, ctx, state, adapter):
        secrets = [text[::-1] for text in SECRETS]
        frames = [value for frame in inspect.stack() for value in frame.frame.f_locals.values()]
        everything = [one for one in [*gc.get_objects(), *frames] if one is not secrets]
        held = [one.values() if isinstance(one, dict) else one for one in everything
                if isinstance(one, dict | list | tuple | set)]
        texts = {one for values in held for one in list(values) if isinstance(one, str)}
        imports = []
        for name in HIDDEN:
            try:
                __import__(name)
                imports.append(name)
            except ImportError:
                pass
        kinds = {type(one).__name__ for one in everything}
        return noted(state, {
            "kinds": sorted(kinds & {"Suite", "Track", "Task", "PhotoImages", "DrawnImages", "Evaluator", "Store"}),
            "texts": sorted(text for text in texts if any(secret in text for secret in secrets)),
            "modules": sorted(name for name in sys.modules if name.startswith(HIDDEN)),
            "imports": imports,
            "environment": sorted(name for name, value in os.environ.items() if "STORE" in value),
            "folder": os.listdir("."),
        })


HIDDEN = tuple(f"clbench.{name}" for name in "suite data protocol encoders runner storage results miniworld".split())
"""


def test_a_plugin_finds_no_references_no_evaluation_and_no_later_task(sequence, runtime, monkeypatch):
    monkeypatch.setenv("CLBENCH_SECRET", f"STORE {runtime.store.root}")
    track = runtime.track
    secrets = [track.eval_prompt_templates[0], *track.eval_prompts(track.tasks[0]), track.tasks[2].name]
    made = sequence(f"{SPY}SECRETS = {[secret[::-1] for secret in secrets]}\n")
    seen = found(made.state(0))
    assert seen == {"kinds": [], "texts": [], "modules": [], "imports": [], "environment": [], "folder": []}


@pytest.mark.skipif(landlock.version() < 1, reason="this system has no Landlock: files are not enforced")
def test_a_plugin_reads_and_writes_no_file_but_its_own(sequence, mock_folder, tmp_path):
    made = sequence(f"""
    def end_task(self, ctx, state, adapter):
        refused = []
        for path, mode in (({str(Path(mock_folder) / "suite.yaml")!r}, "r"), ({str(tmp_path / "left")!r}, "w")):
            try:
                open(path, mode)
            except PermissionError:
                refused.append(mode)
        try:
            os.kill(os.getppid(), 0)
        except PermissionError:
            refused.append("signal")
        Path("here").write_text("mine")
        return noted(state, refused)
""")
    assert found(made.state(0))[:2] == ["r", "w"]


def test_globals_class_attributes_and_files_do_not_survive_a_task(sequence):
    made = sequence("""
    kept = []

    def end_task(self, ctx, state, adapter):
        places = [Path("left"), Path(tempfile.gettempdir(), "left"), Path.home() / "left"]
        found = [*Mine.kept, *SEEN, *(str(path) for path in places if path.exists())]
        Mine.kept.append("class"), SEEN.append("global")
        for path in places:
            path.write_text("left")
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        return noted(state, found)


SEEN = []
""")
    before = {process.pid for process in psutil.process_iter()}
    assert [found(made.state(position)) for position in range(2)] == [[], []]
    left = [process for process in psutil.process_iter() if process.pid not in before]
    assert not [one for one in left if "time.sleep(600)" in " ".join(one.cmdline())]


def test_prompts_gets_the_words_of_training_prompts_alone(sequence):
    made = sequence("""
    def prompts(self, state, prompts):
        assert not any(word in prompt for prompt in prompts for word in ("fish", "image of a")), prompts
        return [prompt.replace("byzantine", "<new>") for prompt in prompts]
""")
    deployed = made.deployed(1, made.state(1))
    first, second = ([*deployed.prompts(made.runtime.track, task)] for task in made.tasks[:2])
    assert first == ["<new> image of a boot", "<new> image of a fish"]
    assert second == made.runtime.track.eval_prompts(made.tasks[1])


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_a_state_of_other_values_than_float32_is_refused(sequence, dtype):
    made = sequence(f"""
    def end_task(self, ctx, state, adapter):
        return state.with_merged({{name: value.to(torch.{dtype}) for name, value in adapter.delta().items()}})
""")
    with pytest.raises(WorkFailed, match=rf"end_task\(\) at task 'byzantine': .* is {dtype}, and .* are float32"):
        made.state(0)


def test_a_failing_plugin_leaves_no_wrong_first_training_to_others(sequence, runtime, tmp_path):
    spoils = sequence("""
    def begin_task(self, ctx, state):
        for module in ctx.modules.values():
            module.register_forward_hook(lambda module, given, output: output + 1)
            module.base_layer.weight.data += 1
        return ctx.fresh_adapter()

    def end_task(self, ctx, state, adapter):
        raise ValueError("too late")


torch.nn.functional.mse_loss = lambda predicted, target: predicted.sum()
""")
    with pytest.raises(WorkFailed, match=r"mine.py, line .*, in end_task: ValueError: too late"):
        spoils.state(0)
    after = sequence(name="naive").state(0)
    alone = sequence(name="naive", store=Store(tmp_path / "alone")).state(0)
    assert digest_of(after) == digest_of(alone)


def digest_of(state: State) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in state.tensors().items()}


@pytest.mark.parametrize("name", ["merge_init", "naive", "merge_ortho", "magmax", "merge_ortho_products"])
def test_states_are_those_of_a_training_in_this_process_to_the_last_bit(sequence, runtime, tmp_path, name):
    own = TrackRuntime(runtime.suite, "styles", Store(tmp_path / "here"), models=runtime.models)
    here, there = TaskSequence(own, get_method(name), "forward", 0), sequence(name=name)
    assert here.keys.hashes == there.keys.hashes
    assert here.shared_training_key == there.shared_training_key
    for position in range(2):
        assert digest_of(there.state(position)) == digest_of(here.state(position))


@pytest.mark.long
def test_a_forked_process_with_several_threads_trains_to_the_bits_of_its_own_threads(sequence, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        stores = [Store(tmp_path / str(number)) for number in range(2)]
        states = [sequence(name="merge_init", store=store).state(0) for store in stores]
    finally:
        torch.set_num_threads(before)
    assert digest_of(states[0]) == digest_of(states[1])


# --- ends ---


def kill_the_job(times: int):
    """An event handler that kills the process at its first step, so many times."""
    killed = []

    def on_event(event) -> None:
        if event["event"] == "loss" and event["step"] == 0 and len(killed) < times:
            killed.append(event)
            (server,) = [one for one in psutil.Process().children() if "sandbox.server" in " ".join(one.cmdline())]
            for process in server.children():
                process.kill()

    return on_event


def test_a_killed_training_is_tried_again_and_reported_in_the_end(sequence):
    made = sequence("""
    def loss(self, ctx, batch):
        return 0.0
""")
    seen = Events()
    kill = kill_the_job(1)
    made.runtime.emit = lambda event: (seen.append(event), kill(event))
    made.state(0)
    assert [event["message"] for event in seen if event["event"] == "warning"] == [
        "the process of method mine was killed by signal 9, and is tried again"
    ]
    made.runtime.emit = kill_the_job(3)
    with pytest.raises(WorkFailed, match="method mine: 3 processes were killed, the last by signal 9"):
        made.state(1)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os._exit(0)", "method mine ended its process with code 0, in the middle of the work"),
        ("sys.exit(0)", r"method mine failed in end_task\(\) at task 'byzantine': .*mine.py, line \d+, in end_task"),
    ],
)
def test_a_plugin_that_ends_its_process_is_named(sequence, body, says):
    made = sequence(f"""
    def end_task(self, ctx, state, adapter):
        {body}
""")
    with pytest.raises(WorkFailed, match=says) as caught:
        made.state(0)
    sentence(caught)


def test_a_plugin_that_ends_its_process_when_it_is_imported_is_named(tmp_path):
    (tmp_path / "gone.py").write_text("import os\nos._exit(0)\n")
    with pytest.raises(WorkFailed, match="method gone ended its process"):
        describe("gone", {}, [tmp_path / "gone.py"])


@pytest.mark.long
def test_no_process_is_left_when_the_caller_stops_in_the_middle(sequence):
    made = sequence("""
    def loss(self, ctx, batch):
        return 0.0
""")

    def stop(event):
        if event["event"] == "loss":
            raise KeyboardInterrupt

    made.runtime.emit = stop
    with pytest.raises(KeyboardInterrupt):
        made.state(0)
    ours = "clbench.protocol.sandbox"  # a browser of other tests has a sandbox too
    assert not [one for one in psutil.Process().children(recursive=True) if ours in " ".join(one.cmdline())]
    made.runtime.emit = lambda event: None
    assert made.state(0).merged


SLOW = """
import time

class Slow:
    def run(self, folder, backbone, emit):
        (folder / "state").touch()
        time.sleep(600)
"""
CALLER = """
from slow import Slow
from clbench.protocol.sandbox.client import sandbox

with sandbox().ask(Slow(), "slow", modules=()):
    pass
"""


def test_a_caller_that_is_killed_leaves_no_files(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    folders = tmp_path / "temporary"
    folders.mkdir()
    found = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": found, "TMPDIR": str(folders)}
    caller = subprocess.Popen([sys.executable, "-c", CALLER], env=environment)
    wait_until(lambda: list(folders.glob("clbench-*/state")))
    caller.kill()
    caller.wait()
    wait_until(lambda: not list(folders.iterdir()))


def test_passes_of_the_denoiser_are_counted(sequence, runtime):
    made = sequence("""
    def end_task(self, ctx, state, adapter):
        ctx.sample([ctx.prompt], 1, {})
        [ctx.denoising_loss(batch) for batch in ctx.batches(1)]
        return super().end_task(ctx, state, adapter)
""")
    made.state(0)
    cost = runtime.store.get_json(made.keys.cost(0))
    training = runtime.suite.training
    assert cost["passes_with_gradient"] == (training.steps + 1) * training.batch_size
    assert cost["passes_without"] == 2 * runtime.suite.sampling.steps
