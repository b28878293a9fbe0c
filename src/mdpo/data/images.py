"""From an image source to RGB pixels, and nothing that is not a whole image of a known format.

Paths are read only below one folder, the *image root*: data made by others must not be able to
read the rest of the disk. Nothing is fetched from a network. A truncated file is refused, never
filled up with grey.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from mdpo.data.rows import ImageSource, shown

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are read; Pillow knows more, some of which start other programs."""

MAX_PIXELS = 178_956_970
"""Largest image decoded, in pixels: where Pillow itself refuses, twice its warning limit."""

_URL = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the value of its EXIF orientation; 1 needs nothing."""


class ImageError(ValueError):
    """An image that cannot be used; one line that names the image, the rule and the remedy."""


def open_image(
    source: ImageSource, *, root: Path | None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode an image, upright and in RGB.

    The first frame of an animation is taken. Transparent pixels are laid on white, 16-bit grey
    is scaled to 8 bits, and the EXIF orientation is applied and forgotten, so that no later step
    applies it again.

    Args:
        source: An image, the bytes of an image file, or the path of one.
        root: Folder that paths must lie in, and relative ones are relative to; None refuses
            every path.
        max_pixels: Most pixels an image may have, > 0; checked before any is decoded. Pillow's
            own limit, ``MAX_PIXELS``, holds besides.

    Returns:
        A new image with all its pixels loaded; ``source`` is not changed.

    Raises:
        ImageError: If there is no such image, or it is broken, too large or of another format.
        RuntimeError: If ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` is set.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "`PIL.ImageFile.LOAD_TRUNCATED_IMAGES` must be False, got True: broken images would "
            "pass with grey in place of what is missing. Set it to False."
        )
    with _opened(source, root) as image:
        width, height = image.size
        if not 0 < width * height <= max_pixels:
            raise ImageError(
                f"`image` {_label(source)} must have 1 to {max_pixels} pixels, got {width} x "
                f"{height}. Make it smaller or drop the row."
            )
        orientation = _orientation(image)
        image.load()
        return _upright_rgb(image, orientation, _label(source))


def image_size(source: ImageSource, *, root: Path | None) -> tuple[int, int]:
    """Look up width and height of an image without decoding it.

    Args:
        source: As for ``open_image``.
        root: As for ``open_image``.

    Returns:
        Width and height in pixels, equal to ``open_image(source, root=root).size``.

    Raises:
        ImageError: If there is no such image, or its header is not of a known format.
    """  # noqa: DOC502 - raised where the image is opened
    with _opened(source, root) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


@contextmanager
def _opened(source: ImageSource, root: Path | None) -> Iterator[Image.Image]:
    """Open an image; what goes wrong in Pillow until it is closed becomes an ``ImageError``."""
    try:
        if isinstance(source, Image.Image):
            yield source
        else:
            file = io.BytesIO(source) if isinstance(source, bytes) else _resolve(source, root)
            with Image.open(file, formats=FORMATS) as image:
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"`image` {_label(source)} must be a file of type {', '.join(FORMATS)}, got "
            "something else. Convert it or drop the row."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"`image` {_label(source)} must have 1 to {MAX_PIXELS} pixels, got more. "
            "Make it smaller or drop the row."
        ) from error
    except Exception as error:  # decoders raise nearly anything on broken bytes
        raise ImageError(
            f"`image` {_label(source)} is broken, got {type(error).__name__}: "
            f"{' '.join(str(error).split())}. Replace it or drop the row."
        ) from error


def _resolve(source: str | Path, root: Path | None) -> Path:
    """Find the real file of a path and make sure that it lies in ``root``."""
    label = _label(source)
    if isinstance(source, str) and _URL.match(source):
        raise ImageError(
            f"`image` {label} must be a file, got a URL. Download it and give its path."
        )
    if root is None:
        raise ImageError(f"`image` {label} is a path in data without a folder. Set `--image_root`.")
    try:
        folder = root.resolve()
        path = (folder / source).resolve()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null byte
        raise ImageError(f"`image` {label} is not a path, got {error}. Correct it.") from error
    if not path.is_relative_to(folder):
        raise ImageError(
            f"`image` {label} must lie under {root}, got {path}. "
            "Set `--image_root` to a folder that holds it."
        )
    if not found:
        raise ImageError(f"`image` {label} not found under {root}. Set `--image_root`.")
    return path


def _label(source: ImageSource) -> str:
    return shown(str(source) if isinstance(source, Path) else source)


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation from the header, 1 (upright) to 8."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself, and gives the size they will have
    try:
        # not `image.getexif()`: for a PNG that decodes all pixels, to look for EXIF behind them
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, struct.error):
        return 1  # broken metadata; the pixels can be whole all the same
    return value if value in _TRANSPOSE else 1


def _upright_rgb(image: Image.Image, orientation: int, label: str) -> Image.Image:
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    if image.mode in ("I", "F"):
        raise ImageError(
            f"`image` {label} must have 8 or 16 bits per channel, got mode {image.mode!r}, whose "
            "range is not known. Convert it or drop the row."
        )
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255, which leaves nearly everything white
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    rgb.info.clear()  # it still says how to turn the image
    return rgb
