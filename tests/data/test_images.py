"""PhotoImages as they are loaded."""

from __future__ import annotations

from PIL import Image

from clbench.data.images import open_photo


def test_a_rotated_photo_is_seen_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert open_photo(tmp_path / "a.jpg").size == (20, 40)
