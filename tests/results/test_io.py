"""The result file: what is written comes back, what is wrong is named, what is hostile is refused."""

import json
import os
from pathlib import Path

import pytest
from builders import make_result, save_suite, tiny_suite

import clbench.utils.files
from clbench.errors import ClbenchError, WorkFailed
from clbench.results.io import load_result, result_text, save_result
from clbench.results.schema import result_schema
from clbench.suite import load_suite

SUITE = tiny_suite()
GOOD = make_result(SUITE)
PARTIAL = make_result(SUITE, quick=True)


@pytest.mark.parametrize("track", ["styles", "objects"])
def test_a_saved_result_loads_as_the_same_result(tmp_path, track):
    result = make_result(SUITE, track)
    save_result(result, tmp_path / "deep" / "result.json")
    assert load_result(tmp_path / "deep" / "result.json") == result


def test_saving_writes_the_same_bytes_and_one_line_a_matrix_row(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    save_result(GOOD, first)
    save_result(load_result(first), second)
    assert first.read_bytes() == second.read_bytes()
    row = json.dumps(list(GOOD.runs[0].scores["csd"][1]))
    assert row in [line.strip().rstrip(",") for line in first.read_text().splitlines()]
    assert json.loads(first.read_text()) == GOOD.model_dump(mode="json")


def test_text_that_looks_like_json_survives_the_layout(tmp_path):
    odd = GOOD.model_copy(update={"command": 'run [\n 1,\n 2\n] "[ 3 ]" \\ é', "submitter": "[\t]"})
    save_result(odd, tmp_path / "r.json")
    assert load_result(tmp_path / "r.json") == odd


def test_a_failed_write_leaves_the_earlier_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    save_result(GOOD, path)
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(clbench.utils.files.os, "fsync", full_disk)
    with pytest.raises(WorkFailed, match=r"cannot write .*r\.json: No space left on device"):
        save_result(PARTIAL, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["r.json"]


def test_the_committed_schema_is_the_one_the_models_generate():
    committed = Path(clbench.results.schema.__file__).with_name("result.schema.json")
    assert json.loads(committed.read_text()) == result_schema(), (
        "the schema changed: write result_schema() to clbench/results/result.schema.json with json.dumps(..., indent=2)"
    )


def test_every_field_of_the_schema_says_what_it_holds():
    schema = result_schema()
    for model in [schema, *schema["$defs"].values()]:
        for name, field in model.get("properties", {}).items():
            assert field.get("description"), f"{model['title']}.{name} has no description"


def edited(path: Path, old: str, new: str) -> Path:
    save_result(GOOD, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"track": "styles"', '"track": "styles", "score": 1', "field score: Extra inputs"),
        ('"seed": 0', '"seed": 0, "seed": 1', "field seed appears twice"),
        ('"seed": 0', '"seed": "0"', r"field runs\.0\.seed"),
        ('"seed": 0', '"seed": 1' + "0" * 400, r"field runs\.0\.seed"),
        ('"seed": 0', '"seed": 0.5', r"field runs\.0\.seed"),
        ('"seed": 0', '"sneed": 0', r"field runs\.0\.seed: Field required \(and 1 more\)"),
        ('"train_seconds": 10.5', '"train_seconds": NaN', "NaN is not a finite number"),
        ('"train_seconds": 10.5', '"train_seconds": -Infinity', "-Infinity is not a finite number"),
        ('"train_seconds": 10.5', '"train_seconds": 1e999', r"field runs\.0\.train_seconds: .* finite"),
        ('"train_seconds": 10.5', '"train_seconds": 1' + "0" * 400, r"field runs\.0\.train_seconds"),
        ('"train_seconds": 10.5', '"train_seconds": 1' + "0" * 9000, "not a result file"),
        ('"train_seconds": 10.5', '"train_seconds": true', r"field runs\.0\.train_seconds"),
        ('"scale": 1.0', '"scale": 1e999', r"field method\.config\.scale: .*[Oo]ut of range"),
        ('"scale": 1.0', '"scale": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('"scale": 1.0', '"scale": ' + "[" * 500 + "]" * 500, "recursion limit"),
        ('"name": "naive"', '"name": "../../x"', r"field method\.name"),
        ('"name": "naive"', '"name": "<script>"', r"field method\.name"),
        ('"name": "naive"', r'"name": "naive\n"', r"field method\.name"),
        ('"name": "naive"', r'"name": "\ud800"', "not a result file"),
        ('"csd": [', r'"c\u001b[31m": [', r"field runs\.0\.scores\.c\?\[31m"),
        ('"schema_version": "2"', '"schema_version": "3"', "field schema_version"),
        ('"regime": "adapter"', '"regime": "free"', r"field runs\.0\.regime"),
        ('"created_at": "2025-01-02T03:04:05Z"', '"created_at": "2025-01-02T03:04:05"', "field created_at"),
        ('"precision": "fp32"', '"precision": {"a": 1}', r"field settings\.precision"),
        ("{", "[{", "not a result file"),
        ("{", "", "not a result file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence_with_file_and_field(tmp_path, old, new, message):
    path = edited(tmp_path / "bad.json", old, new)
    with pytest.raises(ClbenchError, match=message) as caught:
        load_result(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 600


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe", b"null", b"[]", b"[" * 10_000_000, b'{"\x1b[31m\\u001b\\n": 1}', b"7"]
)
def test_bytes_that_are_no_result_are_refused(tmp_path, raw):
    path = tmp_path / "bad.json"
    path.write_bytes(raw)
    with pytest.raises(ClbenchError, match="not a result file") as caught:
        load_result(path)
    assert str(caught.value).isprintable()


def test_a_huge_missing_or_unreadable_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(ClbenchError, match=r"larger than 2\.0 MB"):
        load_result(tmp_path / "huge.json")
    with pytest.raises(ClbenchError, match="No such file"):
        load_result(tmp_path / "none.json")
    with pytest.raises(ClbenchError, match="directory"):
        load_result(tmp_path)


def test_a_pipe_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ClbenchError, match="not a regular file"):
        load_result(tmp_path / "pipe.json")


@pytest.mark.parametrize("wrong", ['"{}": 1', '"{}": []'])
def test_a_file_full_of_unknown_fields_is_refused_before_it_is_parsed(tmp_path, wrong):
    many = ", ".join(wrong.format(number) for number in range(100_001))
    path = edited(tmp_path / "many.json", '"settings": {', '"settings": {' + many + ", ")
    assert path.stat().st_size < 2_000_000
    with pytest.raises(ClbenchError, match="more than 100,000 values"):
        load_result(path)


def test_a_repeated_field_among_very_many_is_found_at_once(tmp_path):
    many = ", ".join(f'"{number}": 1' for number in range(90_000))
    path = edited(tmp_path / "many.json", '"settings": {', '"settings": {' + many + ', "x": 1, "x": 2, ')
    with pytest.raises(ClbenchError, match="field x appears twice"):  # comparing each with each takes minutes
        load_result(path)


def test_a_file_of_version_1_is_read_with_its_summary_recomputed(tmp_path, monkeypatch):
    suite = save_suite(SUITE, tmp_path / "suite")
    monkeypatch.setattr("clbench.suite.load_suite", lambda name, read=load_suite: read(suite))
    text = result_text(GOOD).replace('"schema_version": "2"', '"schema_version": "1"')
    old = json.loads(text)
    old["summary"] = {"csd": {"memory": {"mean": 0.5, "std": 0.1, "n": 4}}}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert load_result(tmp_path / "old.json").summary == GOOD.summary


def test_a_file_of_version_1_of_an_unknown_suite_has_no_summary(tmp_path):
    path = edited(tmp_path / "old.json", '"schema_version": "2"', '"schema_version": "1"')
    assert load_result(path).summary == {}
