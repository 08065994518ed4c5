"""The bundled suite's world: a procedural renderer, captions, and the tiny models trained on it."""
