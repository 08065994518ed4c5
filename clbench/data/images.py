"""A task's images, drawn by `clbench.miniworld` or read from a data set; always upright RGB."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clbench.suite import DrawnImages, PhotoImages

if TYPE_CHECKING:
    from PIL import Image


def load_images(images: DrawnImages | PhotoImages, resolution: int, folders: Mapping[str, Path]) -> list[Image.Image]:
    """The images in their order; photos keep their size.

    Args:
        resolution: side of a drawn image in pixels.
        folders: data set -> folder.
    """
    if isinstance(images, PhotoImages):
        return [open_photo(folders[images.dataset] / file) for file in images.files]
    from clbench.miniworld.render import draw_set

    return draw_set(images, resolution)


FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats of image files that are read; of others, only some builds of Pillow can decode all."""
MAX_PIXELS = 50_000_000
"""More than photos have; decoded, so many take 150 MB, and several are decoded at a time."""


@contextmanager
def decoded(path: Path, size: tuple[int, int] | None = None) -> Iterator[Image.Image]:
    """A stranger's image file, decoded; its size is looked at before.

    Args:
        size: the (width, height) that it must have; default any, up to `MAX_PIXELS`.

    Raises:
        ValueError: it has another size, or cannot be decoded. OSError: it cannot be read.
    """
    from PIL import Image

    with ExitStack() as opened:
        try:
            image = opened.enter_context(Image.open(path, formats=FORMATS))
            if size is not None and image.size != size:
                raise ValueError(f"it has {image.width} x {image.height} pixels instead of {size[0]} x {size[1]}")
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"its {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            image.load()
        except Exception as error:  # Pillow reports a bad file by many types of error
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"it cannot be decoded ({error})") from None
        yield image


def open_photo(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """An image file as RGB, rotated as its EXIF tag says.

    Args:
        size: the (width, height) that it must have; default any.

    Raises:
        ValueError: it has another size, or cannot be decoded. OSError: it cannot be read.
    """
    from PIL import ImageOps

    with decoded(path, size) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def check_photo(path: Path, upright_rgb: bool) -> None:
    """Check that an image file can be decoded.

    Args:
        upright_rgb: require upright RGB, as in all images of the public data sets. Otherwise only warn that the image
            will be rotated or converted.

    Raises:
        ValueError: it cannot be decoded, or is not upright RGB as required. OSError: it cannot be read.
    """
    from PIL import ExifTags

    with decoded(path) as image:
        oddities = [] if image.mode == "RGB" else [f"its colour mode is {image.mode}, not RGB"]
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            oddities.append("its EXIF tag says that it is rotated")
    if oddities and upright_rgb:
        raise ValueError(f"{' and '.join(oddities)}, so it is not the published image")
    if oddities:
        warnings.warn(f"{path}: {' and '.join(oddities)}; it is used as upright RGB", stacklevel=2)


THUMBNAIL_SIZE = 192
"""Largest side of a thumbnail in pixels."""


def image_suffix(number: int) -> str:
    """Suffix of an evaluation image in the store; images are numbered prompt by prompt."""
    return f".{number:03d}.png"


def thumbnail(image: Image.Image) -> Image.Image:
    """The image, at most `THUMBNAIL_SIZE` pixels wide."""
    from PIL import Image

    if image.width <= THUMBNAIL_SIZE:
        return image
    return image.resize((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Images of the same size in one row."""
    from PIL import Image

    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for index, image in enumerate(images):
        strip.paste(image, (index * width, 0))
    return strip
