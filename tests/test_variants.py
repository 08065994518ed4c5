"""Variants: their names, files of them, and grids."""

import re

import pytest
from builders import make_result, signed, tiny_suite
from hypothesis import given
from hypothesis import strategies as st

from clbench.errors import ClbenchError
from clbench.results.checks import CHECKS
from clbench.results.io import load_result, result_text, save_result
from clbench.results.validation import check_result
from clbench.variants import Variant, check_distinct, grid, read_variants

SUITE = tiny_suite()


def test_a_variant_is_named_after_its_method_unless_it_has_a_name():
    assert Variant.of("ewc").name == "ewc"
    assert Variant.of("ewc", {"strength": 1}, "weak").name == "weak"


@pytest.mark.parametrize("name", ["a/b", "..", ".a", "a b", "", "x.partial", "a" * 65, "ä"])
def test_a_name_that_is_not_safe_in_a_path_or_means_partial_is_refused(name):
    with pytest.raises(ClbenchError, match=re.escape(f"variant {name or 'ewc'!r}")):
        Variant.of("ewc", {}, name)


def test_a_grid_has_every_combination_and_names_what_varies():
    found = grid(["a", "b"], ["x=1,2", "a.y=[1,2]", "b.z=low,high"])
    assert [(one.name, one.settings) for one in found] == [
        ("a-x-1", {"x": 1, "y": [1, 2]}),
        ("a-x-2", {"x": 2, "y": [1, 2]}),
        ("b-x-1-z-low", {"x": 1, "z": "low"}),
        ("b-x-1-z-high", {"x": 1, "z": "high"}),
        ("b-x-2-z-low", {"x": 2, "z": "low"}),
        ("b-x-2-z-high", {"x": 2, "z": "high"}),
    ]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5, unique=True))
def test_a_grid_over_numbers_has_a_variant_each_with_a_legal_name(values):
    found = grid(["m"], ["x=" + ",".join(map(repr, values))])
    assert [one.settings["x"] for one in check_distinct(found)] == values


@pytest.mark.parametrize("pair", ["x", "=1", "a.=1", ".x=1"])
def test_a_malformed_pair_is_shown(pair):
    with pytest.raises(ClbenchError, match=re.escape(repr(pair))):
        grid(["a"], [pair])


def test_equal_variants_are_one_and_others_of_the_same_name_are_refused():
    assert check_distinct([Variant.of("a"), Variant.of("a")]) == [Variant.of("a")]
    with pytest.raises(ClbenchError, match="a; and a, x=1"):
        check_distinct([Variant.of("a"), Variant.of("a", {"x": 1})])
    with pytest.raises(ClbenchError, match="the name 'm-x-1_0'"):
        check_distinct(grid(["m"], ['x="1 0","1:0"'.replace('"', "")]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{method: naive}", "is not a list of variants"),
        ("[]", "is not a list of variants"),
        ("- naive", "variant 1: "),
        ("- {method: naive}\n- {name: x}", "variant 2, field method: Field required"),
        ("- {method: naive, setings: {}}", "variant 1, field setings: Extra inputs"),
        ("- {method: a, name: x.partial}", "variant 1, field name: a variant's name does not end in .partial"),
        ("- [", "cannot read"),
    ],
)
def test_a_file_of_variants_that_is_wrong_is_refused_with_the_place(tmp_path, text, says):
    file = tmp_path / "variants.yaml"
    file.write_text(text)
    with pytest.raises(ClbenchError, match=re.escape(says)) as refused:
        read_variants(file)
    assert str(file) in str(refused.value)


# --- results ---


def test_a_result_from_before_variants_is_the_variant_named_after_its_method(tmp_path):
    result = make_result(SUITE, method="naive")
    path = tmp_path / "old.json"
    text = result_text(result).replace(' "variant": "naive",\n', "")
    assert '"variant"' not in text
    path.write_text(text)
    assert load_result(path) == result
    assert check_result(load_result(path), SUITE) == []


def test_a_renamed_variant_fails_its_checksum(tmp_path):
    result = make_result(SUITE, method="ewc", variant="weak", settings={"strength": 0.1})
    assert check_result(result, SUITE) == []
    assert result.place == "tiny/styles/weak.json"
    renamed = result.model_copy(update={"variant": "strong"})
    assert {finding.code for finding in check_result(renamed, SUITE)} == {"CLB018"}
    assert "CLB018" in CHECKS
    assert check_result(signed(renamed), SUITE) == []


def test_a_result_with_a_name_that_means_partial_is_unreadable(tmp_path):
    path = tmp_path / "x.json"
    save_result(make_result(SUITE).model_copy(update={"variant": "x.partial"}), path)
    with pytest.raises(ClbenchError, match=r"field variant: .*partial"):
        load_result(path)


def test_configurations_are_told_apart_by_their_settings_and_not_by_their_source():
    one = make_result(SUITE, method="ewc", settings={"strength": 1.0}).method
    assert one.configuration == "ewc, strength=1.0"
    assert one.configured_as(one.model_copy(update={"source_sha256": "b" * 64}))
    assert not one.configured_as(make_result(SUITE, method="ewc", settings={"strength": 2.0}).method)
    assert not one.configured_as(make_result(SUITE, method="ewc").method)
    unrecorded = one.model_copy(update={"changed": None})  # as before variants
    assert one.configured_as(unrecorded)
    assert not unrecorded.configured_as(make_result(SUITE, method="ewc", settings={"strength": 2.0}).method)
