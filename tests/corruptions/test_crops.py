"""Crops: area, ratio and place of the window, measured from pixels."""

import numpy as np
import pytest
from PIL import Image

from mdpo.corruptions import crop_keep, crop_remove
from mdpo.corruptions.crops import random_window

SEEDS = range(40)


def ramp(width: int, height: int) -> Image.Image:
    """Red is the column, green the row, blue a chequerboard of 0 and 255."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(
        np.stack([columns, rows, (columns + rows) % 2 * 255], -1).astype(np.uint8)
    )


def kept_sides(seed: int, image: Image.Image, **options: float) -> tuple[int, int]:
    """Sides of the window, as the spans of the ramps: bilinear scaling keeps first and last."""
    kept = np.asarray(crop_keep(image, np.random.default_rng(seed), **options)).astype(int)
    return int(np.ptp(kept[..., 0])) + 1, int(np.ptp(kept[..., 1])) + 1


def removed_pixels(seed: int, image: Image.Image, **options: float) -> np.ndarray:
    """Which pixels changed; the chequerboard's mean is 127 or 128, so every filled one did."""
    spoilt = crop_remove(image, np.random.default_rng(seed), **options)
    return (np.asarray(spoilt) != np.asarray(image)).any(axis=-1)


def boxes(size: tuple[int, int], count: int, area: tuple[float, float]) -> np.ndarray:
    generator = np.random.default_rng(0)
    draw = [random_window(size, generator, area=area, ratio=(3 / 4, 4 / 3)) for _ in range(count)]
    return np.array(draw)


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.2), (0.2, 0.5), (0.25, 0.25)])
def test_kept_area_is_within_bounds(low: float, high: float):
    for seed in SEEDS:
        width, height = kept_sides(seed, ramp(250, 200), area_low=low, area_high=high)
        assert (width + 1) * (height + 1) > low * 50_000
        assert width * height <= high * 50_000


def test_kept_ratio_is_within_bounds():
    for seed in SEEDS:
        width, height = kept_sides(seed, ramp(250, 200))
        assert (width + 1) / height > 3 / 4
        assert width / (height + 1) < 4 / 3


def test_options_set_the_ratio():
    # 0.1 of 40_000 pixels at width = 2.5 heights: 100 by 40
    options = {"area_low": 0.1, "area_high": 0.1, "ratio_low": 2.5, "ratio_high": 2.5}
    assert kept_sides(0, ramp(200, 200), **options) == (100, 40)
    assert removed_pixels(0, ramp(200, 200), **options).sum() == 100 * 40


def test_area_is_uniform_and_ratio_log_uniform():
    left, top, right, bottom = boxes((4000, 4000), 4000, (0.01, 0.2)).T
    share = (right - left) * (bottom - top) / 4000**2
    log_ratio = np.log((right - left) / (bottom - top))
    # a uniform variable has standard deviation range / sqrt(12); its mean, that / sqrt(4000)
    spread, log_spread = 0.19 / 12**0.5, 2 * np.log(4 / 3) / 12**0.5
    assert share.mean() == pytest.approx(0.105, abs=4 * spread / 4000**0.5)
    assert share.std() == pytest.approx(spread, rel=0.05)
    assert log_ratio.mean() == pytest.approx(0, abs=4 * log_spread / 4000**0.5)
    assert log_ratio.std() == pytest.approx(log_spread, rel=0.05)


def test_window_reaches_every_edge():
    left, top, right, bottom = boxes((20, 10), 2000, (0.1, 0.2)).T
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, 20, 10)


def test_kept_pixels_are_those_of_the_window_alone():
    # one white pixel in black: windows beside it must not pick up any of its light
    image = Image.new("RGB", (40, 40))
    image.putpixel((20, 20), (255, 255, 255))
    outside = 0
    for seed in SEEDS:
        options = {"area": (0.01, 0.2), "ratio": (3 / 4, 4 / 3)}
        left, top, right, bottom = random_window(image.size, np.random.default_rng(seed), **options)
        if not (left <= 20 < right and top <= 20 < bottom):
            outside += 1
            assert crop_keep(image, np.random.default_rng(seed)).getbbox() is None
    assert outside > 10


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50), (200, 3)])
def test_whole_area_kept_is_the_identity(size: tuple[int, int]):
    for seed in SEEDS:
        kept = crop_keep(ramp(*size), np.random.default_rng(seed), area_low=1, area_high=1)
        assert kept.tobytes() == ramp(*size).tobytes()


@pytest.mark.parametrize(("size", "window"), [((250, 4), (50, 4)), ((4, 250), (4, 50))])
def test_long_thin_image_keeps_the_area_and_gives_up_the_ratio(
    size: tuple[int, int], window: tuple[int, int]
):
    # 0.2 * 250 * 4 = 200 pixels; a side of at least sqrt(200 * 3/4) = 12 does not fit in 4
    for seed in SEEDS:
        assert kept_sides(seed, ramp(*size), area_low=0.2) == window


def test_window_that_fits_at_some_ratio_keeps_its_ratio():
    # 0.5 of 200 x 100 is 10_000: square at ratio 1, too high below it
    for left, top, right, bottom in boxes((200, 100), 200, (0.5, 0.5)):
        assert (right - left + 1) / (bottom - top) >= 1
        assert (right - left) / (bottom - top + 1) <= 4 / 3


def test_at_least_one_pixel_is_kept():
    image = ramp(250, 200)
    options = {"area_low": 0.0, "area_high": 1e-9}
    kept = crop_keep(image, np.random.default_rng(0), **options)
    colors = kept.getcolors()
    assert colors is not None
    assert len(colors) == 1
    assert removed_pixels(0, image, **options).sum() == 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.2), (0.1, 0.1)])
def test_removed_area_is_within_bounds(low: float, high: float):
    for seed in SEEDS:
        count = removed_pixels(seed, ramp(60, 40), area_low=low, area_high=high).sum()
        assert 0 < count <= high * 2400
        assert (count**0.5 + 2) ** 2 > low * 2400


def test_removed_pixels_are_one_window_of_the_mean_colour():
    image = ramp(60, 40)
    for seed in SEEDS:
        removed = removed_pixels(seed, image)
        rows, columns = np.nonzero(removed)
        assert removed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        spoilt = np.asarray(crop_remove(image, np.random.default_rng(seed)))
        # means: columns 0..59 give 29.5, rows 0..39 give 19.5, half of 255 is 127.5; ties to even
        assert (spoilt[removed] == (30, 20, 128)).all()
        assert (spoilt[~removed] == np.asarray(image)[~removed]).all()
