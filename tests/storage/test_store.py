"""The store: what goes in comes out whole or not at all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watching import Events, sentence

from clbench.errors import ClbenchError, WorkFailed
from clbench.storage.open import open_store
from clbench.storage.store import Store, recipe_key

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5
)


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


@pytest.mark.parametrize(
    ("suffix", "content"), [(".json", b"{"), (".safetensors", b"\2\0\0\0\0\0\0\0{}{"), (".000.png", b"\x89PNG")]
)
def test_a_file_that_cannot_be_read_back_is_not_kept(tmp_path, suffix, content):
    store, key = Store(tmp_path), recipe_key("kind", {})
    with pytest.raises(WorkFailed, match=r"cannot be read back|cannot write"):
        store.put(key, suffix, lambda path: path.write_bytes(content))
    assert not store.has(key, suffix)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


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


def test_a_file_url_is_the_folder_itself_with_its_locks(tmp_path):
    store = open_store(f"file://{tmp_path}/store")
    with store.try_lock("thing-00") as mine, Store(tmp_path / "store").try_lock("thing-00") as other:
        assert (mine, other) == (True, False)


def test_a_store_that_cannot_be_written_is_told_before_any_work(sweep, tmp_path):
    (tmp_path / "file").touch()
    seen = Events()
    with pytest.raises(ClbenchError) as caught:
        sweep(str(tmp_path / "file" / "store"), tmp_path / "runs", on_event=seen.append)
    assert sentence(caught) == f"--store {tmp_path}/file/store is no folder that can be written: Not a directory"
    assert caught.value.exit_code == 2
    assert not seen.trainings
