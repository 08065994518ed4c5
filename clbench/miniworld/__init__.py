"""The bundled suites' image domain: a procedural renderer, captions, and tiny models pretrained on them."""
