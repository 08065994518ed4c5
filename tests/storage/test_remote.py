"""A store behind a URL serves as a folder does, whatever the connection does."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from builders import outcome
from folders import DAY, aged, files
from fsspec.implementations.memory import MemoryFileSystem
from watching import Events, sentence

from clbench.errors import ClbenchError, WorkFailed
from clbench.storage.remote import MAX_COPIES, RemoteStore, modification_time


def test_a_store_at_a_url_gives_to_others_what_one_put(url):
    first, second = RemoteStore(url), RemoteStore(url)
    first.put_json("thing-00", 1)
    assert second.get_json("thing-00") == 1
    second.drop("thing-00", ".json")
    assert first.get_json("thing-00") is None, "although it has a copy"


@pytest.mark.long
def test_a_sweep_with_its_store_behind_a_url_gives_the_results_of_a_folder(sweep, url, tmp_path):
    methods = ("naive", "merge_ortho")
    expected = [outcome(result) for result in sweep(str(tmp_path / "store"), tmp_path / "here", methods)]
    assert [outcome(result) for result in sweep(url, tmp_path / "there", methods)] == expected
    assert not (tmp_path / "there" / "store").exists()
    seen = Events()
    again = sweep(url, tmp_path / "again", methods, on_event=seen.append)
    assert [outcome(result) for result in again] == expected
    assert not seen.trainings


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


@pytest.mark.long
def test_a_damaged_object_behind_a_url_is_set_aside_and_made_again(sweep, url, tmp_path):
    (expected,) = sweep(url, tmp_path / "runs")
    fs = fsspec.filesystem("memory")
    rows = [name for name in fs.find("/bucket/store/row") if name.endswith(".json")]
    states = [name for name in fs.find("/bucket/store/state") if name.endswith(".safetensors")]
    for name in (*rows, *states):
        fs.pipe_file(name, bytes([fs.cat_file(name)[0] ^ 1]) + fs.cat_file(name)[1:])
    with pytest.warns(UserWarning, match="set aside as .* done again"):
        (result,) = sweep(url, tmp_path / "runs")
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
def test_a_url_that_cannot_be_reached_is_one_sentence(sweep, tmp_path, url, says, code):
    with pytest.raises(ClbenchError) as caught:
        sweep(url, tmp_path)
    assert sentence(caught).startswith(says)
    assert caught.value.exit_code == code


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
