"""Corruptions that keep or remove one random window.

The paper makes its rejected image by "randomly cropping less than 20 % of the original image",
which can be read two ways. ``crop_keep`` is what the authors' release does, ``crop_remove`` is the
other reading.

Legend: a window is (left, top, right, bottom) in pixels, right and bottom excluded; an area is a
share of the image area in 0..1; a ratio is width / height in pixels.
"""

# ruff: noqa: DOC502 - the errors documented here are raised in the checks

import math

import numpy as np
from PIL import Image

from mdpo.corruptions.checks import check_image, check_number
from mdpo.corruptions.pixels import average_color

TRIES = 10
"""Draws of area and ratio before the ratio gives way, as in torchvision."""

RATIO_MIN, RATIO_MAX = 0.01, 100.0


def crop_keep(
    image: Image.Image,
    generator: np.random.Generator,
    *,
    area_low: float = 0.01,
    area_high: float = 0.2,
    ratio_low: float = 3 / 4,
    ratio_high: float = 4 / 3,
) -> Image.Image:
    """Keep one random window, scaled back up to the full size.

    Source: Wang et al. 2024, https://arxiv.org/abs/2406.11839, Sec. 3.1, as their release does it:
    ``RandomResizedCrop`` of torchvision with scale 0.01 to 0.2. Table 3 calls that "crop 0-20 %";
    its "crop 20-50 %" is ``area_low=0.2, area_high=0.5``.
    Differs: the release crops the padded, normalised tensor, anew in each forward pass, so the
    window may lie on padding and policy and reference see different windows. Here the caller draws
    once, from the picture itself.

    Args:
        image: RGB image of any size.
        generator: Source of randomness.
        area_low: Smallest share of the area kept, in 0..1.
        area_high: Largest share of the area kept, in 0..1. At least one pixel is kept.
        ratio_low: Smallest width / height of the window, in 0.01..100.
        ratio_high: Largest width / height of the window, in 0.01..100.

    Returns:
        An RGB image of the size of ``image``, scaled with bilinear interpolation.

    Raises:
        ValueError: If an option is out of range, or the image is not RGB.
    """
    check_image(image)
    check_window(area_low=area_low, area_high=area_high, ratio_low=ratio_low, ratio_high=ratio_high)
    window = random_window(
        image.size, generator, area=(area_low, area_high), ratio=(ratio_low, ratio_high)
    )
    # `resize(box=window)` would let pixels just outside the window bleed in at its border
    return image.crop(window).resize(image.size, Image.Resampling.BILINEAR)


def crop_remove(
    image: Image.Image,
    generator: np.random.Generator,
    *,
    area_low: float = 0.0,
    area_high: float = 0.2,
    ratio_low: float = 3 / 4,
    ratio_high: float = 4 / 3,
) -> Image.Image:
    """Fill one random window with the mean colour of the image; the rest stays as it is.

    Source: Wang et al. 2024, https://arxiv.org/abs/2406.11839, Sec. 3.1, read as "less than 20 % is
    removed".
    Differs: the authors' release keeps such a window instead (``crop_keep``). The paper names no
    fill; the mean colour is ours.

    Args:
        image: RGB image of any size.
        generator: Source of randomness.
        area_low: Smallest share of the area removed, in 0..1.
        area_high: Largest share of the area removed, in 0..1. At least one pixel is removed.
        ratio_low: Smallest width / height of the window, in 0.01..100.
        ratio_high: Largest width / height of the window, in 0.01..100.

    Returns:
        An RGB image of the size of ``image``.

    Raises:
        ValueError: If an option is out of range, or the image is not RGB.
    """
    check_image(image)
    check_window(area_low=area_low, area_high=area_high, ratio_low=ratio_low, ratio_high=ratio_high)
    window = random_window(
        image.size, generator, area=(area_low, area_high), ratio=(ratio_low, ratio_high)
    )
    remaining = image.copy()
    remaining.paste(average_color(image), window)
    return remaining


def check_window(*, area_low: float, area_high: float, ratio_low: float, ratio_high: float) -> None:
    """Refuse areas and ratios that describe no window.

    Args:
        area_low: Smallest share of the image area.
        area_high: Largest share of the image area.
        ratio_low: Smallest width / height.
        ratio_high: Largest width / height.

    Raises:
        ValueError: If a value is out of range, or a low end lies above its high end.
    """
    area = "It is a share of the image area; the paper's range is 0.01 to 0.2."
    ratio = "It is width / height of the window; the authors' range is 3/4 to 4/3."
    check_number("area_low", area_low, low=0, high=1, meaning=area)
    check_number("area_high", area_high, low=0, high=1, meaning=area)
    check_number("ratio_low", ratio_low, low=RATIO_MIN, high=RATIO_MAX, meaning=ratio)
    check_number("ratio_high", ratio_high, low=RATIO_MIN, high=RATIO_MAX, meaning=ratio)
    if area_high == 0:
        raise ValueError(f"`area_high` must be > 0, got {area_high}. {area}")
    if area_low > area_high:
        raise ValueError(
            f"`area_low` must be <= `area_high` ({area_high}), got {area_low}. Set both."
        )
    if ratio_low > ratio_high:
        raise ValueError(
            f"`ratio_low` must be <= `ratio_high` ({ratio_high}), got {ratio_low}. Set both."
        )


def random_window(
    size: tuple[int, int],
    generator: np.random.Generator,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Draw one window: area uniform, ratio log-uniform, place uniform.

    Source: ``RandomResizedCrop`` of torchvision: ten draws of area and ratio until a window fits.
    Differs: if none fits (a long, thin image), torchvision takes the largest central window of an
    allowed ratio, whatever its area. Here the last area drawn is kept and the ratio gives way: the
    window spans the side it was too long for. And sides are rounded down, not to the nearest, so
    that no window exceeds the largest area asked for, unless that is less than a pixel.

    Args:
        size: Width and height of the image, in pixels.
        generator: Source of randomness.
        area: Smallest and largest share of the image area, in 0..1.
        ratio: Smallest and largest width / height, > 0.

    Returns:
        The window (left, top, right, bottom), at least one pixel wide and high.
    """
    width, height = fitting_sides(size, generator, area=area, ratio=ratio)
    columns, rows = whole_pixels(width), whole_pixels(height)
    left = int(generator.integers(0, size[0] - columns + 1))
    top = int(generator.integers(0, size[1] - rows + 1))
    return left, top, left + columns, top + rows


def fitting_sides(
    size: tuple[int, int],
    generator: np.random.Generator,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[float, float]:
    """Draw the sides of a window that fits; the arguments are those of ``random_window``.

    Args:
        size: Width and height of the image, in pixels.
        generator: Source of randomness.
        area: Smallest and largest share of the image area.
        ratio: Smallest and largest width / height.

    Returns:
        Width and height of the window in fractional pixels, not above those of the image.
    """
    full_width, full_height = size
    target, height = 0.0, 0.0
    for _ in range(TRIES):
        target = generator.uniform(*area) * full_width * full_height
        drawn_ratio = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = math.sqrt(target * drawn_ratio), math.sqrt(target / drawn_ratio)
        if width <= full_width and height <= full_height:
            return width, height
    if height > full_height:
        return target / full_height, full_height
    return full_width, target / full_width


def whole_pixels(length: float) -> int:
    """Round a length down to whole pixels, at least one.

    Args:
        length: Length in pixels.

    Returns:
        Number of pixels.
    """
    # the margin keeps float error from costing a pixel where the exact length is a whole number
    return max(1, math.floor(length + 1e-6))
