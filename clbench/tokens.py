"""Learned tokens: words that stand for one vector in each text encoder, and their names among a state's tensors.

state = state.with_tokens({"<style-3>": (vector, vector_2)})
state.tokens                       # the same
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Tokens = Mapping[str, "tuple[Tensor, ...]"]
"""Word -> its input embedding in each of the pipeline's text encoders, float32 [d_i]."""
WORD = re.compile(r"<[\w-]{1,62}>")
"""What a word must look like: as no text does that was not written for it, and without whitespace."""
_NAME = re.compile(rf"token/({WORD.pattern})/(\d)")


def named_tensors(tokens: Tokens) -> dict[str, Tensor]:
    """The vectors under the names that they have in a state's `extra`: `token/<style-3>/0`."""
    return {f"token/{word}/{number}": vector for word, own in tokens.items() for number, vector in enumerate(own)}


def tokens_among(tensors: Mapping[str, Tensor]) -> Tokens:
    """The tokens among tensors that `named_tensors` named; other names are left out."""
    found: dict[str, tuple[Tensor, ...]] = {}
    for name in sorted(tensors):
        if match := _NAME.fullmatch(name):
            found[match[1]] = (*found.get(match[1], ()), tensors[name])
    return found


def tokens_in(tokens: Tokens, texts: Sequence[str]) -> Tokens:
    """The tokens whose word is in at least one of the texts."""
    return {word: own for word, own in tokens.items() if any(word in text for text in texts)}
