"""The store: what goes in comes out whole or not at all, in a folder or behind a URL, and can be looked after."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from filelock import FileLock
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from test_harness import outcome
from typer.testing import CliRunner
from watching import sentence, watch

from clbench.cli import app
from clbench.errors import ClbenchError, WorkFailed
from clbench.protocol import task_sequence as sequences
from clbench.runner import harness
from clbench.runner.config import Options
from clbench.runner.engine.inline import Inline
from clbench.runner.engine.loop import work_off
from clbench.runner.prepare import prepare
from clbench.runner.units import setup_of
from clbench.storage.open import open_store
from clbench.storage.remote import MAX_COPIES, RemoteStore, modification_time
from clbench.storage.store import Store, recipe_key

DAY = 86400.0
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5
)


@pytest.mark.parametrize(
    ("suffix", "content"), [(".json", b"{"), (".safetensors", b"\2\0\0\0\0\0\0\0{}{"), (".000.png", b"\x89PNG")]
)
def test_a_file_that_cannot_be_read_back_is_not_kept(tmp_path, suffix, content):
    store, key = Store(tmp_path), recipe_key("kind", {})
    with pytest.raises(WorkFailed, match=r"cannot be read back|cannot write"):
        store.put(key, suffix, lambda path: path.write_bytes(content))
    assert not store.has(key, suffix)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture
def url():
    """A place in this process's memory, which fsspec opens."""
    yield "memory://bucket/store"
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["folder", "url"])
def store(request, tmp_path, url) -> Store:
    return open_store(tmp_path / "store" if request.param == "folder" else url)


def run(shop: str, output: Path, methods=("merge_init",), **options):
    """A sweep of the mock suite with this store."""
    given = {"quick": True, "device": "cpu", "workers": 1, "output": output, "store": shop, **options}
    return harness.sweep(methods, ["styles"], "mock", **given)


# --- one artifact ---


@given(value=VALUES, recipe=st.dictionaries(st.text(), VALUES))
def test_what_is_put_is_got_until_it_is_dropped(tmp_path_factory, value, recipe):
    store, key = Store(tmp_path_factory.mktemp("store")), recipe_key("thing", recipe)
    assert store.get_json(key) is None
    store.put_json(key, value)
    assert store.has(key, ".json")
    assert Store(store.root).get_json(key) == value
    store.drop(key, ".json")
    assert not store.has(key, ".json")
    assert not [path for path in store.root.rglob("*") if path.is_file()]


def test_a_store_at_a_url_gives_to_others_what_one_put(url):
    first, second = RemoteStore(url), RemoteStore(url)
    first.put_json("thing-00", 1)
    assert second.get_json("thing-00") == 1
    second.drop("thing-00", ".json")
    assert first.get_json("thing-00") is None, "although it has a copy"


def test_an_artifact_is_put_again_over_an_older_one(store):
    store.put_json("thing-00", 1)
    store.put_json("thing-00", 2)
    assert store.get_json("thing-00") == 2


def test_a_writer_that_fails_leaves_nothing(store):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        store.put("thing-00", ".json", fail)
    assert not store.has("thing-00", ".json")
    assert not list(store.root.rglob("*.tmp"))


def test_work_of_earlier_processes_does_not_count_where_it_is_not_wanted(store, tmp_path, url):
    store.put_json("thing-00", 1)
    fresh = type(store)(store.root if type(store) is Store else url, reuse=False)
    assert fresh.get_json("thing-00") is None
    fresh.put_json("thing-00", 2)
    assert fresh.get_json("thing-00") == 2


def test_an_artifact_that_another_process_sets_aside_at_this_moment_is_missing_and_no_error(tmp_path, monkeypatch):
    store = Store(tmp_path)
    path = store.put("thing-00", ".json", lambda path: path.write_text("1"))

    def gone(path: Path) -> str:
        path.unlink()
        return "another"

    monkeypatch.setattr("clbench.storage.store.file_sha256", gone)
    assert store.get_json("thing-00") is None
    assert not path.exists()


# --- behind a URL ---


def test_a_sweep_with_its_store_behind_a_url_gives_the_results_of_a_folder(shared_models, url, tmp_path, monkeypatch):
    methods = ("naive", "merge_ortho")
    expected = [outcome(result) for result in run(str(tmp_path / "store"), tmp_path / "here", methods)]
    assert [outcome(result) for result in run(url, tmp_path / "there", methods)] == expected
    assert not (tmp_path / "there" / "store").exists()
    fits = watch(monkeypatch, sequences, "fit")
    assert [outcome(result) for result in run(url, tmp_path / "again", methods)] == expected
    assert not fits


def test_a_download_that_breaks_off_is_begun_again_and_damages_nothing(tmp_path, url, recwarn):
    RemoteStore(url).put_json("thing-00", 7)
    store = RemoteStore(url)
    get_file = store.fs.get_file

    def breaks_off(source: str, target: str) -> None:
        if source.endswith(".json"):
            Path(target).write_text("")
            raise ConnectionError("the line is dead")
        get_file(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.fs, "get_file", breaks_off)
        with pytest.raises(WorkFailed, match=r"cannot be reached: .*the line is dead"):
            store.get_json("thing-00")
    assert store.get_json("thing-00") == 7
    assert not [one for one in recwarn if "checksum" in str(one.message)]


def test_a_damaged_object_behind_a_url_is_set_aside_and_made_again(shared_models, url, tmp_path):
    (expected,) = run(url, tmp_path / "runs")
    fs = fsspec.filesystem("memory")
    rows = [name for name in fs.find("/bucket/store/row") if name.endswith(".json")]
    states = [name for name in fs.find("/bucket/store/state") if name.endswith(".safetensors")]
    for name in (*rows, *states):
        fs.pipe_file(name, bytes([fs.cat_file(name)[0] ^ 1]) + fs.cat_file(name)[1:])
    with pytest.warns(UserWarning, match="set aside as .* done again"):
        (result,) = run(url, tmp_path / "runs")
    assert outcome(result) == outcome(expected)
    assert all(fs.exists(name + ".damaged") for name in (*rows, *states))


def test_of_what_passes_through_only_the_last_copies_stay_here(url):
    store = RemoteStore(url)
    for number in range(20):
        store.put_json(f"thing-{number:02d}", number)
    assert [store.get_json(f"thing-{number:02d}") for number in range(20)] == list(range(20))
    assert len(files(store.root) - {store.root / "in-use"}) == 2 * MAX_COPIES


def test_copies_that_a_killed_process_left_go_when_the_next_store_is_opened(url, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    in_use = RemoteStore(url)
    in_use.put_json("thing-00", 1)
    left, young = tmp_path / "clbench-store-left", tmp_path / "clbench-store-young"
    for folder in (left, young):
        (folder / "state").mkdir(parents=True)
    for folder in (left, in_use.root):
        aged(folder, 1)
    RemoteStore(url)
    assert not left.exists()
    assert young.exists()
    assert in_use.get_json("thing-00") == 1
    assert files(in_use.root)


class Buckets(MemoryFileSystem):
    """A driver whose places are in buckets, and that makes those it does not know."""

    protocol = "abfss"

    @classmethod
    def _strip_protocol(cls, path):
        return path.removeprefix("abfss://")


class Unreachable(MemoryFileSystem):
    """A server that is away."""

    protocol = "unreachable"

    def info(self, path, **options):
        raise TimeoutError("nobody\nanswers")

    exists = info


class Refusing(MemoryFileSystem):
    """A driver that wants credentials."""

    protocol = "refusing"

    def __init__(self, **options):
        raise RuntimeError("no credentials")


for driver in (Buckets, Unreachable, Refusing):
    fsspec.register_implementation(driver.protocol, driver, clobber=True)


@pytest.mark.parametrize(
    ("url", "says", "code"),
    [
        ("nosuch://x", "the store nosuch://x cannot be opened: Protocol not known: nosuch", 2),
        ("abfss://misspelt/x", "the store abfss://misspelt/x cannot be opened: there is no bucket 'misspelt'", 2),
        ("refusing://x", "the store refusing://x cannot be opened: RuntimeError: no credentials", 2),
        ("unreachable://x", "the store unreachable://x cannot be reached: TimeoutError: nobody answers", 1),
    ],
)
def test_a_url_that_cannot_be_reached_is_one_sentence(shared_models, tmp_path, url, says, code):
    with pytest.raises(ClbenchError) as caught:
        run(url, tmp_path)
    assert sentence(caught).startswith(says)
    assert caught.value.exit_code == code


def test_a_file_url_is_the_folder_itself_with_its_locks(tmp_path):
    store = open_store(f"file://{tmp_path}/store")
    with store.try_lock("thing-00") as mine, Store(tmp_path / "store").try_lock("thing-00") as other:
        assert (mine, other) == (True, False)


def test_a_store_that_cannot_be_written_is_told_before_any_work(shared_models, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    fits = watch(monkeypatch, sequences, "fit")
    with pytest.raises(ClbenchError) as caught:
        run(str(tmp_path / "file" / "store"), tmp_path / "runs")
    assert sentence(caught) == f"--store {tmp_path}/file/store is no folder that can be written: Not a directory"
    assert caught.value.exit_code == 2
    assert not fits


# --- looking after it ---


def command(*arguments, code: int = 0) -> str:
    """What a command about the store prints."""
    done = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.stdout


def aged(path: Path, days: float) -> Path:
    """A file, made if it is not there, that was last written so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def kept(shared_models, tmp_path) -> Store:
    """The store of a finished run."""
    run(str(tmp_path / "store"), tmp_path / "runs")
    return Store(tmp_path / "store")


def artifact(store: Store, kind: str) -> Path:
    return next(path for path in sorted((store.root / kind).glob("*/*")) if path.suffix != ".sha256")


def test_ls_tells_of_every_artifact_what_it_was_made_for_and_by_which_software(kept):
    listed = json.loads(command("ls", kept.root, "--json"))
    assert {row["file"] for row in listed} == {
        str(path) for path in kept.root.glob("*/??/*") if path.suffix != ".sha256"
    }
    assert all(row["bytes"] == Path(row["file"]).stat().st_size for row in listed)
    (last,) = [row for row in listed if row["key"].startswith("state-")]
    told = {name: last[name] for name in ("suite", "track", "method", "order", "seed", "task")}
    assert told == {
        "suite": "mock",
        "track": "styles",
        "method": "merge_init",
        "order": "forward",
        "seed": 0,
        "task": last["task"],
    }
    assert {"clbench", "torch", "diffusers", "peft"} <= set(last)
    shown = command("ls", kept.root)
    assert all(kind in shown for kind in ("state", "row", "cell", "base", "controls", "merge_init"))


def test_du_counts_what_ls_lists(kept):
    listed = json.loads(command("ls", kept.root, "--json"))
    used = json.loads(command("du", kept.root, "--json"))
    assert sum(row["artifacts"] for row in used) == len(listed)
    assert sum(row["bytes"] for row in used) == sum(row["bytes"] for row in listed)
    assert "all" in command("du", kept.root)


@pytest.mark.parametrize("what", ["artifact", "checksum", "no checksum"])
def test_check_sets_aside_what_is_damaged_and_exits_1(kept, what):
    assert json.loads(command("check", kept.root, "--json"))["damaged"] == []
    path = artifact(kept, "row")
    checksum = path.with_name(path.name + ".sha256")
    if what == "no checksum":
        checksum.unlink()
    else:
        hurt = path if what == "artifact" else checksum
        hurt.write_bytes(b"\xff" + hurt.read_bytes()[1:])
    with pytest.warns(UserWarning, match="set aside"):
        assert json.loads(command("check", kept.root, "--json", code=1))["damaged"] == [str(path)]
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").exists()
    assert "0 damaged" in command("check", kept.root)


@pytest.fixture
def littered(kept) -> dict[str, Path]:
    """What others left in the store; the first letter says whether it can go."""
    damaged, sha = artifact(kept, "cell"), "0" * 64
    aside = damaged.with_name(damaged.name + ".damaged")
    damaged.rename(aside)
    return {
        "+tmp": aged(kept.root / "row" / "00" / f".{sha}.json.1234.tmp", 0.1),
        "+checksum": aged(kept.root / "row" / "00" / f"{sha}.json.sha256", 0.1),
        "+damaged": aside,
        "+lock": aged(kept.root / "locks" / f"row-{sha}", 2),
        "+sign": kept.put("sign-" + sha, ".json", lambda path: path.write_text("true")),
        "-tmp": aged(kept.root / "row" / "00" / f".{sha}.json.5678.tmp", 0),
        "-checksum": aged(kept.root / "row" / "00" / f"{sha[:-1]}1.json.sha256", 0),
        "-lock": aged(kept.root / "locks" / "row-fresh", 0.5),
        "-held": aged(kept.root / "locks" / "row-held", 2),
        "-other": aged(kept.root / "notes" / "mine.tmp", 9),
        "-others": aged(kept.root / "notes" / "of" / "mine.tmp", 9),
    }


def test_gc_clears_what_killed_processes_left_and_nothing_that_somebody_needs(kept, littered):
    before, goes = files(kept.root), {path for name, path in littered.items() if name[0] == "+"}
    goes |= {littered["+sign"].with_name(littered["+sign"].name + ".sha256")}
    with FileLock(littered["-held"]):
        planned = json.loads(command("gc", kept.root, "--dry-run", "--json"))
        assert files(kept.root) == before
        done = json.loads(command("gc", kept.root, "--json"))
    assert {Path(row["file"]) for row in planned["files"]} == goes
    assert done == {**planned, "dry_run": False}
    assert done["bytes"] == sum(row["bytes"] for row in done["files"]) > 0
    assert files(kept.root) == before - goes
    assert "freed 0" in command("gc", kept.root)


def test_gc_leaves_the_sign_of_a_sweep_that_goes_on(shared_models, tmp_path):
    options = Options(quick=True, output=tmp_path, device="cpu", workers=1)
    prepared = prepare(["naive"], ["styles"], "mock", {}, options)
    store = prepared.workshop.store
    with setup_of(prepared.workshop) as setup:
        command("gc", store.root)
        command("gc", store.root, "--older-than", "0")
        assert store.has(json.loads(setup)["sign"], ".json")
        assert work_off(prepared.plan.units, Inline(prepared.workshop), lambda event: None) == {}
    assert not store.has(json.loads(setup)["sign"], ".json")


def test_a_lock_that_is_taken_after_gc_looked_is_not_removed(tmp_path):
    store = Store(tmp_path)
    with store.try_lock("row-1") as mine:
        assert mine
        store.remove("locks/row-1")
        with Store(tmp_path).try_lock("row-1") as second:
            assert not second
    store.remove("locks/row-1")
    assert not list((tmp_path / "locks").iterdir())


def test_gc_of_what_is_stale_or_old_leaves_the_rest(kept):
    kept.provenance = {"clbench": "0.0.1", "torch": "1.0"}
    stale = kept.put("row-" + "1" * 64, ".json", lambda path: path.write_text("1"))
    old = aged(artifact(kept, "cell"), 8)
    before = files(kept.root)

    def went(*options: str) -> set[Path]:
        command("gc", kept.root, *options)
        return {path for path in before - files(kept.root) if path.suffix != ".sha256"}

    assert went() == set()
    assert went("--stale") == {stale}
    assert went("--older-than", "9") == {stale}
    assert went("--older-than", "7") == {stale, old}
    assert not [path for path in files(kept.root) if path.suffix == ".sha256" and not path.with_suffix("").exists()]


def test_a_store_behind_a_url_is_looked_after_like_a_folder(shared_models, url, tmp_path):
    run(url, tmp_path / "runs")
    fs, base = fsspec.url_to_fs(url)
    listed = json.loads(command("ls", url, "--json"))
    named = {name.replace(base, url) for name in fs.find(base)}
    assert {row["file"] for row in listed} == {name for name in named if not name.endswith(".sha256")}
    assert all(row["bytes"] == fs.size(row["file"]) and time.time() - row["modified"] < 600 for row in listed)
    assert {row["method"] for row in listed if row["key"].startswith("state-")} == {"merge_init"}
    used = json.loads(command("du", url, "--json"))
    assert sum(row["bytes"] for row in used) == sum(row["bytes"] for row in listed)

    hurt = next(row["file"] for row in listed if row["key"].startswith("row-"))
    fs.pipe_file(hurt, b"\xff" + fs.cat_file(hurt)[1:])
    with pytest.warns(UserWarning, match=f"{hurt} does not fit its checksum"):
        assert json.loads(command("check", url, "--json", code=1))["damaged"] == [hurt]
    sign = f"{url}/sign/00/{'0' * 64}.json"
    fs.pipe_file(sign, b"true")
    before = set(fs.find(base))
    planned = json.loads(command("gc", url, "--dry-run", "--json"))
    assert set(fs.find(base)) == before
    done = json.loads(command("gc", url, "--json"))
    assert [row["file"] for row in done["files"]] == [f"{hurt}.damaged"]
    assert done == {**planned, "dry_run": False}
    assert before - set(fs.find(base)) == {f"{hurt}.damaged".replace(url, base)}
    assert fs.exists(sign), "a sweep that goes on elsewhere may have left it"
    store = open_store(url)
    store.provenance = {"clbench": "0.0.1"}
    store.put_json("row-" + "1" * 64, 1)
    stale = json.loads(command("gc", url, "--stale", "--json"))
    assert [row["file"].removeprefix(url) for row in stale["files"]] == [
        f"/row/11/{'1' * 64}.json",
        f"/row/11/{'1' * 64}.json.sha256",
    ]


@pytest.mark.parametrize(
    ("told", "age"),
    [
        (lambda now: {"LastModified": datetime.fromtimestamp(now, UTC) - timedelta(hours=1)}, 3600),
        (lambda now: {"mtime": now - 60}, 60),
        (lambda now: {"updated": datetime.fromtimestamp(now - 2 * DAY, UTC).isoformat()}, 2 * DAY),
        (lambda now: {"created": None, "name": "x"}, 0),
        (lambda now: {"updated": "yesterday"}, 0),
    ],
)
def test_every_driver_s_word_for_when_a_file_was_written_is_understood(told, age):
    now = time.time()
    assert now - modification_time(told(now)) == pytest.approx(age, abs=5)


@pytest.mark.parametrize("what", ["ls", "du", "check", "gc"])
def test_a_folder_that_is_no_store_is_one_sentence_and_left_alone(tmp_path, what):
    mine = aged(tmp_path / "src" / "ab" / "mine.tmp", 9)
    for place, says in [
        (tmp_path, f"there is no store at {tmp_path}; runs make one at <output>/store"),
        (tmp_path / "nowhere", f"there is no store at {tmp_path / 'nowhere'}"),
        ("memory://bucket/store", "there is no store at memory://bucket/store"),
    ]:
        done = CliRunner().invoke(app, ["store", what, str(place)])
        assert isinstance(done.exception, ClbenchError)
        assert str(done.exception).startswith(says)
    assert mine.exists()
