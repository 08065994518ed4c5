"""Submissions by a stranger who writes markup and scripts into every free text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from builders import make_result

from clbench.results.schema import Environment, Result, Submission
from clbench.suite import Suite

PAYLOADS = (
    "<script>window.__xss=1</script>",
    "</script><script>window.__xss=1</script>",
    "<img src=x onerror=window.__xss=1>",
    '"><img src=x onerror=window.__xss=1>',
    "'><svg onload=window.__xss=1>",
    "<svg/onload=window.__xss=1>",
    "<svg><script>window.__xss=1</script></svg>",
    "<iframe src=javascript:window.__xss=1></iframe>",
    "<iframe srcdoc='<script>parent.__xss=1</script>'></iframe>",
    "<a href=javascript:window.__xss=1 autofocus onfocus=window.__xss=1>x</a>",
    '" autofocus onfocus="window.__xss=1',
    "' onmouseover='window.__xss=1",
    "` onclick=`window.__xss=1",
    "<body onload=window.__xss=1>",
    "<details open ontoggle=window.__xss=1>x</details>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.__xss=1>",
    "</title><script>window.__xss=1</script>",
    "</code></pre><script>window.__xss=1</script>",
    "<!--><script>window.__xss=1</script>-->",
    "<style>@import 'https://example.org/x.css'; * { background: url(https://example.org/x) }</style>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<meta http-equiv=refresh content='0; url=https://example.org/'>",
    "<base href=https://example.org/>",
    "<object data=https://example.org/x></object><embed src=https://example.org/x>",
    "<template><script>window.__xss=1</script></template>",
    "{{ 7 * 7 }}{% raw %}${7*7}#{7*7}",
    "&lt;script&gt;window.__xss=1&lt;/script&gt;",
    "\\u003cscript\\u003ewindow.__xss=1\\u003c/script\\u003e",
    "javascript:window.__xss=1//",
    "]]><script>window.__xss=1</script>",
)
"""Each ends up in every free-text field of some submission."""
LONG = "a_name_of_64_letters".ljust(64, "x")
"""As long as a method's name may be."""


ADDRESS = "https://example.org/'onfocus='window.__xss=1'?a=1&lt;b&b=(window.__xss=1)#autofocus"
"""As much of an attack as an address may hold."""


def submitter(payload: Callable[[int], str], old: bool) -> dict[str, Any]:
    """Who submits it, in the form from before there was a record of submissions, or with the record."""
    if old:
        return {"submitter": payload(0)}
    origin = {"paper": ADDRESS, "code": ADDRESS, "licence": "MIT", "contact": payload(12)}
    return {"submission": Submission(submitter=payload(0), **origin)}


def hostile(suite: Suite, number: int, track: str) -> Result:
    """A valid result with payloads in all its free text: each field has another one, and over the results all."""

    def payload(place: int) -> str:
        return PAYLOADS[(number + place) % len(PAYLOADS)]

    result = make_result(suite, track, f"m{number}", seed=number)
    everything = {f"{name} {value}": value for name, value in enumerate(PAYLOADS)}
    return result.model_copy(
        update={
            **submitter(payload, old=number % 2 == 0),
            "command": payload(1),
            "settings": everything,
            "method": result.method.model_copy(
                update={
                    "version": payload(2),
                    "config": {**everything, "deep": [everything]},
                    "distribution": payload(3),
                }
            ),
            "backbone": result.backbone.model_copy(update={"id": payload(4), "revision": payload(5)}),
            "environment": Environment(
                python=payload(6),
                platform=payload(7),
                processor=payload(8),
                device=payload(9),
                packages={**everything, payload(10): None},
                git_commit=payload(11),
            ),
        }
    )
