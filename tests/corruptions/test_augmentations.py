"""MoCo v2: the hue circle by hand, the colour jitter, and how often each step happens."""

import colorsys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdpo.corruptions import moco_v2
from mdpo.corruptions.augmentations import jitter_colors, turn_hue

Color = tuple[int, int, int]


def plain(color: Color, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new("RGB", size, color)


def color_of(image: Image.Image) -> Color:
    colors = image.getcolors()
    assert colors is not None
    assert len(colors) == 1
    color = colors[0][1]
    assert isinstance(color, tuple)
    red, green, blue = color
    return red, green, blue


def jittered(color: Color, count: int, strength: float, hue: float) -> np.ndarray:
    generator = np.random.default_rng(0)
    image = plain(color, (1, 1))
    draws = [jitter_colors(image, generator, strength=strength, hue=hue) for _ in range(count)]
    return np.array([color_of(draw) for draw in draws])


@pytest.mark.parametrize(
    ("turn", "expected"),
    [(0.0, (255, 0, 0)), (1 / 3, (0, 255, 0)), (-1 / 3, (3, 0, 255)), (0.1, (255, 150, 0))],
)
def test_hue_of_red_turned_by_hand(turn: float, expected: Color):
    # 255 steps to the circle: 85 is green; -85 wraps to 171 of 256, one step past blue (6 levels);
    # 0.1 is 25 steps, 25 / 255 * 6 = 0.588 of the way from red to yellow: 150
    assert color_of(turn_hue(plain((255, 0, 0)), turn)) == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("color", [(200, 40, 90), (30, 180, 60), (10, 20, 240)])
@pytest.mark.parametrize("turn", [-0.1, 0.05, 0.25])
def test_turned_hue_agrees_with_colorsys(color: Color, turn: float):
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    expected = [255 * each for each in colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)]
    # the 8-bit hue channel resolves 1/255 of the circle: up to 6 levels, and the cut to whole steps
    assert color_of(turn_hue(plain(color), turn)) == pytest.approx(expected, abs=10)


def test_grey_has_no_hue_to_turn():
    assert color_of(turn_hue(plain((90, 90, 90)), 0.4)) == (90, 90, 90)


def test_no_jitter_is_the_identity_up_to_the_8_bit_hue():
    colors = jittered((200, 40, 90), 5, strength=0, hue=0)
    assert np.abs(colors - (200, 40, 90)).max() <= 4


def test_grey_pixel_shows_the_range_of_brightness():
    # a grey pixel has no hue or saturation and is its own mean: only brightness can change it
    levels = jittered((100, 100, 100), 400, strength=0.4, hue=0.1)
    assert np.ptp(levels, axis=1).max() == 0
    assert levels.min() == pytest.approx(60, abs=1)
    assert levels.max() == pytest.approx(140, abs=1)


def test_hue_jitter_goes_both_ways_by_its_range():
    colors = jittered((255, 0, 0), 400, strength=0, hue=0.1)
    # 0.1 of the circle from red: green to 150 one way, blue to 150 the other, never both;
    # one step of the 8-bit hue is 6 levels
    assert colors[:, 1].max() == pytest.approx(150, abs=7)
    assert colors[:, 2].max() == pytest.approx(150, abs=7)
    assert (colors[:, 1:].min(axis=1) == 0).all()


def test_saturation_and_contrast_change():
    # both pull one colour from or to its grey, 104: by 0.6 to 1.4 alone, red / green goes from
    # 138 / 90 = 1.5 to 182 / 70 = 2.6; by 0.36 to 1.96 together, from 1.3 to 3.75.
    # Brightness keeps the proportion
    colors = jittered((160, 80, 80), 800, strength=0.4, hue=0).astype(float)
    proportions = colors[:, 0] / colors[:, 1]
    assert proportions.min() == pytest.approx(1.3, abs=0.1)
    assert proportions.max() == pytest.approx(3.5, abs=0.4)


def test_contrast_pulls_to_the_mean_of_the_picture_and_saturation_to_the_pixel():
    # two greys: saturation and hue cannot change them, brightness keeps their proportion;
    # contrast takes 50 and 150 from 70 and 130 (0.6) to 30 and 170 (1.4),
    # where Pillow's cutting to whole levels of a darkened 17 and 104 already makes 6.1 of 5.7
    image = Image.fromarray(np.array([[[50] * 3, [150] * 3]], dtype=np.uint8))
    generator = np.random.default_rng(0)
    views = [np.asarray(jitter_colors(image, generator)).astype(float) for _ in range(400)]
    proportions = [view[0, 1, 0] / view[0, 0, 0] for view in views]
    assert min(proportions) == pytest.approx(130 / 70, abs=0.05)
    assert max(proportions) == pytest.approx(170 / 30, abs=0.7)


class SameFactors(np.random.Generator):
    """Draws the largest factors each time, and orders that are random."""

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - only what is called
        return high if size is None else np.full(size, high)


def test_order_of_the_jitter_is_random():
    # values are cut off at 255 after each change, so the order shows in the result
    image = Image.fromarray(np.array([[[200, 120, 40], [30, 60, 220]]], dtype=np.uint8))
    generator = SameFactors(np.random.PCG64(0))
    assert len({jitter_colors(image, generator).tobytes() for _ in range(50)}) > 4


@pytest.fixture(scope="module")
def views() -> list[np.ndarray]:
    """Views of a picture whose red rises from left to right and whose blue flickers."""
    columns, rows = np.meshgrid(np.arange(64), np.arange(64))
    channels = [60 + 2 * columns, rows * 0 + 70, 60 + (columns + rows) % 2 * 80]
    image = Image.fromarray(np.stack(channels, -1).astype(np.uint8))
    generator = np.random.default_rng(0)
    return [np.asarray(moco_v2(image, generator)).astype(float) for _ in range(600)]


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


# 600 views: a share p is known to sqrt(p (1 - p) / 600), 0.016 to 0.020; bounds are four of these


def test_a_fifth_of_the_views_is_grey(views: list[np.ndarray]):
    assert share([np.ptp(view, axis=-1).max() == 0 for view in views]) == pytest.approx(
        0.2, abs=0.066
    )


def test_half_of_the_views_are_mirrored(views: list[np.ndarray]):
    falling = [view[:, :8].sum() > view[:, -8:].sum() for view in views]
    assert share(falling) == pytest.approx(0.5, abs=0.082)


def test_a_fifth_of_the_views_keep_their_colours(views: list[np.ndarray]):
    # green is 70 everywhere and only jitter or grey changes it: 0.2 * 0.8 = 0.16 of views keep it
    kept = [(view[..., 1] == 70).all() for view in views]
    assert share([bool(each) for each in kept]) == pytest.approx(0.16, abs=0.06)


def test_window_keeps_20_to_100_percent():
    # squares of 8 pixels on 160 x 160: the changes of light along a side count the squares kept
    columns, rows = np.meshgrid(np.arange(160) // 8, np.arange(160) // 8)
    image = Image.fromarray((80 + 40 * ((columns + rows) % 2)).astype(np.uint8)).convert("RGB")
    generator = np.random.default_rng(0)
    areas = []
    for _ in range(200):
        view = np.asarray(moco_v2(image, generator))[..., 0].astype(float)
        light = view > (view.min() + view.max()) / 2
        across = np.median(np.diff(light, axis=1).sum(axis=1))
        down = np.median(np.diff(light, axis=0).sum(axis=0))
        areas.append((across + 0.5) * (down + 0.5) / 400)
    assert min(areas) == pytest.approx(0.2, abs=0.05)
    assert max(areas) == pytest.approx(1.0, abs=0.1)
    # uniform over 0.2 to 1 would be 0.6; large windows fit less often and are drawn anew
    assert np.mean(areas) == pytest.approx(0.55, abs=0.05)


def test_half_of_the_views_are_blurred_by_up_to_two_pixels_of_224():
    # the slope of an edge shows the blur, here twice as wide as on 224 pixels; scaling the window
    # up spreads an edge by less than 1 pixel
    columns = np.broadcast_to(np.arange(448), (448, 448))
    image = Image.fromarray(np.where(columns < 224, 80, 120).astype(np.uint8)).convert("RGB")
    generator = np.random.default_rng(0)
    spreads = []
    for _ in range(120):
        row = np.asarray(moco_v2(image, generator))[224, :, 0].astype(float)
        slope = np.abs(np.diff(row))
        if slope.sum():
            centre = (slope * np.arange(447)).sum() / slope.sum()
            spreads.append(np.sqrt((slope * (np.arange(447) - centre) ** 2).sum() / slope.sum()))
    assert len(spreads) > 80
    assert max(spreads) == pytest.approx(4, abs=0.4)
    # blurs of less than 0.8 of 0.2 to 4 pixels do not show: 0.5 * 3.2 / 3.8
    assert share([spread > 1 for spread in spreads]) == pytest.approx(0.42, abs=0.18)
