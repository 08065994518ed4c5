"""One run through a sequence of tasks: what is shared with other runs, and what is waited for."""

import threading

import pytest
from paths import FILES
from watching import watch

from clbench.backbones.sdxl import Backbone
from clbench.plugins import get_method
from clbench.protocol import task_sequence as sequences
from clbench.protocol.task_sequence import Sequence
from clbench.storage.store import Store


def test_a_state_that_another_makes_again_is_waited_for(bench, monkeypatch):
    sequence, store = Sequence(bench, get_method("merge_init"), "forward", 0), bench.store
    sequence.state(0)
    path = store.path(sequence.state_key(0), ".safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    held, asked = threading.Event(), threading.Event()

    def make_it_again() -> None:
        with Store(store.root).lock(sequence.state_key(0)):
            held.set()
            asked.wait()
            path.write_bytes(whole)

    other, fits = threading.Thread(target=make_it_again), watch(monkeypatch, sequences, "fit")
    other.start()
    held.wait()
    watch(monkeypatch, store, "try_lock", lambda count: asked.set())
    sequence.forget()
    with pytest.warns(UserWarning, match="does not fit its checksum"):
        sequence.state(0)
    other.join()
    assert not fits


def test_methods_share_the_first_training_the_base_row_and_equal_cells(bench, monkeypatch):
    fits, cells = watch(monkeypatch, sequences, "fit"), watch(monkeypatch, Backbone, "generate")
    naive, *others = (
        Sequence(bench, get_method(name), "forward", 0) for name in ("naive", "merge_init", "merge_ortho", "magmax")
    )
    naive.run()
    assert (len(fits), len(cells)) == (3, 3 + 1 + 2 + 3)
    for sequence in others:
        bench.base_row()
        assert sequence.row(0).scores == naive.row(0).scores
    assert (len(fits), len(cells)) == (3, 9)
    others[0].row(1)
    assert (len(fits), len(cells)) == (4, 11)


def test_orders_share_what_they_have_in_common(bench, monkeypatch):
    bench.track = bench.track.model_copy(update={"orders": {"a": (0, 1, 2), "b": (0, 2, 1)}})
    fits = watch(monkeypatch, sequences, "fit")
    for order in ("a", "b"):
        Sequence(bench, get_method("merge_init"), order, 0).state(2)
    assert len(fits) == 5


def test_training_that_a_method_shapes_is_its_own(bench, monkeypatch):
    fits = watch(monkeypatch, sequences, "fit")
    for name, settings in (("naive", {}), ("ewc", {}), ("ewc", {"strength": 1.0}), ("merge_init", {})):
        Sequence(bench, get_method(name, settings, FILES), "forward", 0).state(0)
    assert len(fits) == 3
