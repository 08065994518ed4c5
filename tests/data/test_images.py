"""PhotoImages as they are loaded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from clbench.data.images import MAX_PIXELS, check_photo, open_photo


def test_a_rotated_photo_is_seen_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert open_photo(tmp_path / "a.jpg").size == (20, 40)


def blank_png(path: Path, width: int, height: int) -> Path:
    """A picture of few bytes and many pixels, all 0."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels, packer = io.BytesIO(), zlib.compressobj(9)
    for _ in range(height):
        pixels.write(packer.compress(bytes(1 + 3 * width)))
    pixels.write(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels.getvalue()) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("opened", [open_photo, lambda path: check_photo(path, upright_rgb=False)])
def test_a_picture_of_very_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch, opened):
    side = int(MAX_PIXELS**0.5) + 1
    path = blank_png(tmp_path / "a.png", side, side)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=rf"its {side} x {side} pixels are more than 50,000,000"):
        opened(path)


@pytest.mark.parametrize(
    "content",
    [
        b"DDS " + struct.pack("<I", 124) + bytes(120),
        b"DDS "
        + struct.pack("<7I", 124, 0x1007, 4, 4, 0, 0, 0)
        + bytes(44)
        + struct.pack("<2I4s", 32, 4, b"ABCD")
        + bytes(60),
        b"\0\0\0\x1cftypavif" + bytes(200),
        b"GIF89a" + b"\xff" * 50,
    ],
    ids=["dds", "dds of an unknown kind", "avif", "gif"],
)
def test_a_picture_that_cannot_be_decoded_is_told_in_one_way(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="it cannot be decoded"):
        check_photo(tmp_path / "a.png", upright_rgb=False)
