"""Who submits a result, and where its method comes from: what the record takes, and how old files are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import make_result, tiny_suite
from paths import ROOT
from pydantic import ValidationError

from clbench.leaderboard.site.parts import facts
from clbench.results.io import load_result, save_result
from clbench.results.schema import Submission

FULL = {
    "submitter": "Ada Łukasiewicz, A. Lab",
    "paper": "https://arxiv.org/abs/2410.04891v2",
    "code": "https://git.example.org:8443/a/b?tab=readme#run%20it",
    "licence": "Apache-2.0 OR (MIT AND BSD-3-Clause)",
    "contact": "ada@example.org",
}
GOOD = make_result(tiny_suite())


def test_a_submission_survives_its_file_and_is_on_the_methods_page(tmp_path):
    submitted = GOOD.model_copy(update={"submission": Submission.model_validate(FULL)})
    save_result(submitted, tmp_path / "r.json")
    assert load_result(tmp_path / "r.json") == submitted
    assert submitted.submitted_by == FULL["submitter"]
    shown = dict(facts(submitted))
    assert shown["Submitted by"] == FULL["submitter"]
    assert shown["Code"] == f'<a href="{FULL["code"]}" rel="noopener noreferrer nofollow">{FULL["code"]}</a>'
    assert (shown["Licence"], shown["Contact"]) == (FULL["licence"], FULL["contact"])


@pytest.mark.parametrize("path", sorted(ROOT.glob("submissions/*/*/*.json")), ids=lambda path: path.stem)
def test_a_file_from_before_the_record_says_who_submits_it(path: Path):
    raw = json.loads(path.read_text())
    if "submission" not in raw:
        assert load_result(path).submitted_by == raw["submitter"]


def test_a_page_names_no_paper_where_none_is_given():
    assert not {"Paper", "Code", "Licence", "Contact"} & dict(facts(GOOD)).keys()


@pytest.mark.parametrize("field", ["paper", "code"])
@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://example.org",
        "javascript:alert(1)",
        "HTTPS://example.org",
        "https://",
        "https:///path",
        "https://localhost",
        "https://user@example.org/",
        "https://example.org@evil.example/",
        "https://example.org\\@evil.example/",
        'https://example.org/"onfocus="x',
        "https://example.org/<b>",
        "https://example.org/a b",
        "https://example.org/a\n",
        "https://example.org/\u202egpj",
        "https://ex\u0430mple.org/",
        "https://example.org/" + "a" * 400,
    ],
)
def test_only_plain_https_addresses_are_taken(field: str, address: str):
    with pytest.raises(ValidationError):
        Submission.model_validate({**FULL, field: address})


@pytest.mark.parametrize("field", ["submitter", "contact"])
@pytest.mark.parametrize("text", ["", " ", "a\nb", "a\x1b[2J", "a\u202eb", "a\u2028b", " a", "a" * 201])
def test_names_are_one_line_of_printable_text(field: str, text: str):
    with pytest.raises(ValidationError):
        Submission.model_validate({**FULL, field: text})


@pytest.mark.parametrize("licence", ["", "<MIT>", "MIT\n", "see https://example.org", "-", "a" * 101])
def test_a_licence_is_an_identifier_or_an_expression(licence: str):
    with pytest.raises(ValidationError):
        Submission.model_validate({**FULL, "licence": licence})
