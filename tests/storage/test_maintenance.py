"""`clbench store`: what a store holds is listed, checked and cleared, and what somebody needs stays."""

import json
import shutil
import time
from pathlib import Path

import fsspec
import pytest
from filelock import FileLock
from folders import aged, files
from typer.testing import CliRunner

from clbench.cli import app
from clbench.errors import ClbenchError
from clbench.runner.config import RunConfig
from clbench.runner.engine.inline import InlinePool
from clbench.runner.engine.loop import execute
from clbench.runner.executor import executor_setup
from clbench.runner.prepare import prepare
from clbench.storage.open import open_store
from clbench.storage.store import Store
from clbench.variants import Variant


def command(*arguments, code: int = 0) -> str:
    """What a command about the store prints."""
    done = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture
def kept(finished, tmp_path) -> Store:
    """The store of a finished run."""
    return Store(shutil.copytree(finished, tmp_path / "store"))


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


@pytest.mark.long
def test_gc_leaves_the_sign_of_a_sweep_that_goes_on(mock_folder, models, tmp_path):
    options = RunConfig.of(quick=True, output=tmp_path, device="cpu", workers=1)
    prepared = prepare([Variant.of("naive")], ["styles"], mock_folder, options, models=models)
    store = prepared.executor.store
    with executor_setup(prepared.executor) as setup:
        command("gc", store.root)
        command("gc", store.root, "--older-than", "0")
        assert store.has(json.loads(setup)["sign"], ".json")
        assert execute(prepared.graph.units, InlinePool(prepared.executor), lambda event: None) == {}
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


@pytest.mark.long
def test_a_store_behind_a_url_is_looked_after_like_a_folder(sweep, url, tmp_path):
    sweep(url, tmp_path / "runs")
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
