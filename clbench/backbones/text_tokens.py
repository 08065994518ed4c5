"""Encode prompts in which some words are learned tokens: each is one position, whose input embedding is the token's.

Tokenizers and embedding tables stay as they are: the embedding layer's output is overridden during the one call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from clbench.tokens import Tokens


def encode_with_tokens(pipeline: Any, prompt: str, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Hidden states [L, D] and pooled embedding [P], as the pipeline's `encode_prompt` makes them of other prompts.

    Gradients reach the tokens' vectors.
    """
    hidden: list[Tensor] = []
    output: Any = None
    for number, (tokenizer, encoder) in enumerate(_text_models(pipeline)):
        ids, words = _tokenize(tokenizer, prompt, tokens)
        room = tokenizer.model_max_length - 2  # between start and end
        padding = [tokenizer.pad_token_id] * (room - len(ids))
        whole = [tokenizer.bos_token_id, *ids[:room], tokenizer.eos_token_id, *padding]
        vectors = {place + 1: tokens[word][number] for place, word in words.items() if place < room}
        with _overridden(encoder.get_input_embeddings(), vectors):
            output = encoder(torch.tensor([whole], device=encoder.device), output_hidden_states=True)
        hidden.append(output.hidden_states[-2][0])
    return torch.cat(hidden, dim=-1), output.text_embeds[0]


@torch.no_grad()
def token_vectors(pipeline: Any, text: str, tokens: Tokens) -> list[Tensor]:
    """The input embeddings of a text's tokens in each text encoder, [n_i, d_i], on the CPU, without start and end."""
    vectors = []
    for number, (tokenizer, encoder) in enumerate(_text_models(pipeline)):
        ids, words = _tokenize(tokenizer, text, tokens)
        table = encoder.get_input_embeddings()
        with _overridden(table, {place: tokens[word][number] for place, word in words.items()}):
            vectors.append(table(torch.tensor([ids], dtype=torch.long, device=encoder.device))[0].cpu())
    return vectors


def token_widths(pipeline: Any) -> tuple[int, ...]:
    """Width of the input embeddings of each text encoder."""
    return tuple(encoder.config.hidden_size for _, encoder in _text_models(pipeline))


def _text_models(pipeline: Any) -> tuple[tuple[Any, Any], ...]:
    """Tokenizer and text encoder, of each of the two."""
    return (pipeline.tokenizer, pipeline.text_encoder), (pipeline.tokenizer_2, pipeline.text_encoder_2)


def _tokenize(tokenizer: Any, text: str, tokens: Tokens) -> tuple[list[int], dict[int, str]]:
    """A text's ids without start and end, and place -> word of each learned token among them.

    The id at such a place is the start token's, which no text has, and by which no encoder finds the end.
    """
    ids: list[int] = []
    words: dict[int, str] = {}
    known = "|".join(map(re.escape, tokens))
    for piece in re.split(f"({known})", text) if known else [text]:
        if piece in tokens:
            words[len(ids)] = piece
            ids.append(tokenizer.bos_token_id)
        elif piece.strip():
            ids += tokenizer(piece, add_special_tokens=False).input_ids
    return ids, words


@contextmanager
def _overridden(table: torch.nn.Module, vectors: Mapping[int, Tensor]) -> Iterator[None]:
    """Let an embedding layer give these vectors at these places of a text, inside a `with` block."""

    def override(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not vectors:
            return output
        places = torch.tensor(list(vectors), device=output.device)
        return output.index_copy(1, places, torch.stack([own.to(output) for own in vectors.values()])[None])

    handle = table.register_forward_hook(override)
    try:
        yield
    finally:
        handle.remove()
