"""Low-rank algebra: closed forms equal the textbook's, and a merged model is the base plus the adapter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils._python_dispatch import TorchDispatchMode

from clbench.lora import Adapter, Delta, low_rank, max_magnitude, orthogonal_columns, product
from clbench.state import State, digest


def by_svd(A: torch.Tensor) -> torch.Tensor:
    """The definition: each column's last right singular vector, by LAPACK."""
    return torch.stack([torch.linalg.svd(column.reshape(1, -1)).Vh[-1] for column in A.T], dim=1)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- orthogonal columns ---


@pytest.mark.parametrize("r", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonal_columns_are_the_last_right_singular_vectors_sign_included(r, dtype):
    A = random(r, 40, seed=r, dtype=dtype)
    A[:, 3] = 0
    A[0, 4] = 0
    A[1:, 5] = 0
    A[:, 6] = -A[:, 7]
    result = orthogonal_columns(A)
    assert result.dtype == dtype
    torch.testing.assert_close(result, by_svd(A), atol=1e-6 if dtype == torch.float32 else 1e-14, rtol=0)


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-30, 1e-20, 1e20, 1e38])
def test_orthogonal_columns_of_tiny_and_huge_columns(size):
    A = random(4, 20).clamp(-3, 3) * size
    torch.testing.assert_close(orthogonal_columns(A), by_svd(A), atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6).flatmap(
        lambda r: arrays(np.float32, (r, 3), elements=st.floats(allow_nan=False, allow_infinity=False, width=32))
    )
)
def test_orthogonal_columns_equal_the_svd_for_any_finite_columns(values):
    # A first entry this small beside the rest decides the sign, and underflows where LAPACK scales its input.
    values[0, np.abs(values[0]) < 1e-30 * np.abs(values).max(axis=0)] = 0
    A = torch.from_numpy(values)
    torch.testing.assert_close(orthogonal_columns(A), by_svd(A), atol=2e-6, rtol=0)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 32), st.integers(1, 20), st.integers(0, 1000))
def test_orthogonal_columns_are_unit_vectors_orthogonal_to_the_given_columns(r, n, seed):
    A = random(r, n, seed=seed)
    result = orthogonal_columns(A)
    torch.testing.assert_close(result.norm(dim=0), torch.ones(n), atol=1e-5, rtol=0)
    torch.testing.assert_close((result * A / A.norm(dim=0)).sum(dim=0), torch.zeros(n), atol=1e-5, rtol=0)


class Operations(TorchDispatchMode):
    """Names of the tensor operations that are done within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_orthogonal_columns_take_the_same_few_operations_however_many_there_are_and_no_decomposition():
    """So that they are quick; `perf/quick.py` measures it."""

    def operations(columns: int) -> list[str]:
        A = random(64, columns)
        with Operations() as done:
            orthogonal_columns(A)
        return done.names

    assert operations(640) == operations(2)
    assert not [name for name in operations(2) if any(word in name for word in ("svd", "qr", "eig"))]


# --- the larger magnitude ---


def test_the_larger_magnitude_wins_entry_by_entry_and_ties_go_to_the_newest():
    previous = {"a": torch.tensor([[1.0, -3.0, 2.0, -2.0, 0.0]])}
    current = {"a": torch.tensor([[-2.0, 1.0, -2.0, 2.0, -0.0]])}
    assert max_magnitude(previous, current)["a"].tolist() == [[-2.0, -3.0, -2.0, 2.0, 0.0]]


def test_a_layer_that_is_missing_on_one_side_counts_as_zero_there():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[-4.0, 0.0]])
    kept = max_magnitude({"old": one}, {"new": other})
    assert isinstance(kept, Delta)
    assert {name: value.tolist() for name, value in kept.items()} == {"old": [[1.0, 0.0]], "new": [[-4.0, 0.0]]}
    assert max_magnitude({}, {"new": other})["new"] is other


# --- deltas and adapters ---


def test_a_weight_change_is_scaled_from_either_side():
    change = Delta(a=torch.tensor([[1.0, -2.0]]))
    for scaled in (0.5 * change, change * 0.5):
        assert isinstance(scaled, Delta)
        assert scaled["a"].tolist() == [[0.5, -1.0]]


def test_deltas_add_and_subtract_layer_by_layer_and_leave_their_operands_alone():
    one, other = Delta(a=torch.tensor([[1.0]]), b=torch.tensor([[2.0]])), Delta(b=torch.tensor([[5.0]]))
    values = [
        {name: value.item() for name, value in delta.items()} for delta in (one + other, one - other, other - one)
    ]
    assert values == [{"a": 1, "b": 7}, {"a": 1, "b": -3}, {"a": -1, "b": 3}]
    assert (one["b"].item(), other["b"].item()) == (2, 5)


def test_a_minus_turns_all_signs_and_leaves_its_operand_alone():
    change = Delta(a=torch.tensor([[1.0, -2.0]]))
    turned = -change
    assert isinstance(turned, Delta)
    assert turned["a"].tolist() == [[-1.0, 2.0]]
    assert change["a"].tolist() == [[1.0, -2.0]]


def test_a_weight_change_times_masks_is_the_product_of_entries_and_has_no_layer_that_one_side_lacks():
    change = Delta(a=torch.tensor([[1.0, -2.0], [3.0, 4.0]]), b=torch.tensor([[5.0]]))
    masks = {"a": torch.tensor([[True, False], [False, True]]), "c": torch.tensor([[True]])}
    for masked in (change * masks, masks * change):
        assert isinstance(masked, Delta)
        assert masked["a"].dtype == torch.float32
        assert {name: value.tolist() for name, value in masked.items()} == {"a": [[1.0, 0.0], [0.0, 4.0]]}
    rows = {"a": torch.tensor([[2.0], [0.5]])}
    assert (change * rows)["a"].tolist() == [[2.0, -4.0], [1.5, 2.0]]
    assert (change * change)["b"].item() == 25


def test_an_adapters_delta_is_the_scaled_product_in_fp32():
    A, B = random(2, 5), random(3, 2, seed=1)
    assert torch.equal(Adapter({"a": A}, {"a": B}, 0.5).delta()["a"], 0.5 * (B @ A))
    assert product(A.bfloat16(), B.bfloat16()).dtype == torch.float32


def test_adding_adapters_adds_factors_so_that_cross_terms_appear():
    first, second = (Adapter({"a": random(2, 5, seed=i)}, {"a": random(3, 2, seed=9 + i)}) for i in range(2))
    cross = second.B["a"] @ first.A["a"] + first.B["a"] @ second.A["a"]
    torch.testing.assert_close((first + second).delta()["a"], (first.delta() + second.delta())["a"] + cross)


def test_adapters_of_different_scale_cannot_be_added():
    adapter = Adapter({"a": random(2, 5)}, {"a": random(3, 2)}, 1.0)
    with pytest.raises(ValueError, match="scale"):
        _ = adapter + Adapter(adapter.A, adapter.B, 2.0)


def test_an_adapters_file_is_that_of_a_state_that_holds_it_alone(tmp_path):
    adapter = Adapter({"b": random(2, 5), "a": random(2, 3)}, {"b": random(3, 2), "a": random(4, 2)}, 0.75)
    state = State(adapter=adapter)
    assert [*adapter.tensors()] == [*state.tensors()] == ["adapter.A/b", "adapter.A/a", "adapter.B/b", "adapter.B/a"]
    adapter.save(tmp_path / "adapter")
    state.save(tmp_path / "state")
    assert (tmp_path / "adapter").read_bytes() == (tmp_path / "state").read_bytes()
    with_more = state.with_merged(adapter.delta()).with_extra(anchor=adapter.A["a"])
    with_more.save(tmp_path / "more")
    for name in ("adapter", "more"):
        loaded = Adapter.load(tmp_path / name)
        assert loaded.scale == adapter.scale
        assert digest(loaded.tensors()) == digest(adapter.tensors())
    assert digest(State.load(tmp_path / "more").tensors()) == digest(with_more.tensors())


# --- the merged model ---


def test_a_merged_model_equals_base_plus_live_adapter(backbone):
    adapter = Adapter(
        {name: random(4, inputs, seed=1) / 4 for name, (_, inputs) in backbone.shapes.items()},
        {name: random(outputs, 4, seed=2) / 8 for name, (outputs, _) in backbone.shapes.items()},
        backbone.scale,
    )
    hidden, pooled = backbone.encode_prompts(["a photo of boot", "winter image of tree"])
    timesteps, time_ids = torch.tensor([10, 700]), torch.tensor([[32.0, 32, 0, 0, 32, 32]] * 2)

    @torch.no_grad()
    def predicted() -> torch.Tensor:
        return backbone.predict(random(2, 4, 16, 16, seed=3), timesteps, hidden, pooled, time_ids)

    base = predicted()
    backbone.use_adapter(adapter)
    live = predicted()
    backbone.use_adapter(None)
    backbone.deploy(adapter.delta())
    merged = predicted()
    backbone.deploy({})
    assert (live - base).abs().max() > 1e-2
    torch.testing.assert_close(merged, live, atol=1e-5, rtol=0)
    assert torch.equal(predicted(), base)


# --- low rank ---


def test_a_sum_of_products_has_factors_of_its_rank_and_a_smaller_rank_is_the_closest():
    one, other = (product(random(3, 40, seed=n), random(24, 3, seed=10 + n)) for n in range(2))
    change = one + other
    A, B = low_rank(change, 20, 1e-6)
    assert (A.shape, B.shape) == ((6, 40), (24, 6))
    torch.testing.assert_close(B @ A, change)
    A, B = low_rank(change, 4, 1e-6)
    closest = torch.linalg.svdvals(change.double())[4:].square().sum().sqrt()
    assert float((change - B @ A).norm()) == pytest.approx(float(closest), rel=1e-4)
    assert [len(low_rank(value, 20, 1e-6)[0]) for value in (torch.zeros(24, 40), 1e-20 * change)] == [0, 6]
