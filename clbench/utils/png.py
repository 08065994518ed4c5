"""Check PNG files by their bytes, so that a picture that a stranger sent is not opened to find out what it is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 4096
"""In pixels."""
_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""What pictures need: no text, no animation, no compressed profile."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> values a pixel."""


def png_problem(data: bytes) -> str | None:
    """What is wrong with a PNG file, as the end of a sentence; None for a whole one, with nothing but pixels in it."""
    if not data.startswith(SIGNATURE):
        return "is not a PNG file"
    try:
        chunks = list(_chunks(data))
    except (struct.error, ValueError):
        return "is a damaged PNG file"
    names = [name for name, _ in chunks]
    if names[:1] != [b"IHDR"] or names.count(b"IHDR") != 1 or names.index(b"IEND") != len(names) - 1:
        return "is a damaged PNG file, or has something after its end"
    foreign = next((name for name in names if name not in _CHUNKS), None)
    if foreign is not None:
        return f"holds more than pixels: a PNG chunk {foreign!r}"
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        return f"has {width} x {height} pixels; at most {MAX_SIDE} x {MAX_SIDE} are accepted"
    if color not in _CHANNELS or depth not in (1, 2, 4, 8, 16) or interlace:
        return "is of a kind of PNG that is not accepted; `clbench samples` writes one that is"
    size = height * (1 + (width * depth * _CHANNELS[color] + 7) // 8)
    pixels = zlib.decompressobj()
    try:
        found = len(pixels.decompress(b"".join(part for name, part in chunks if name == b"IDAT"), size + 1))
    except zlib.error:
        found = 0
    return None if found == size and pixels.eof else "is a damaged PNG file: its pixels are not as many as it says"


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Raises ValueError or struct.error where a chunk is not whole; the last one is the file's end or IEND's."""
    place, name = len(SIGNATURE), b""
    while place < len(data) or name != b"IEND":
        (size,) = struct.unpack_from(">I", data, place)
        name, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + size)
        if zlib.crc32(name + content) != checksum or (name == b"IHDR" and size != 13):
            raise ValueError(name)
        yield name, content
        place += 12 + size
