"""Whole-image corruptions: values by hand, strength of noise, and what stays the same."""

import math

import numpy as np
import pytest
from PIL import Image

from mdpo.corruptions import black, blur, diffusion, mean_color, noise, patch_shuffle
from mdpo.corruptions.pixels import ALPHA_BAR, another_order


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grey(level: int = 128, size: tuple[int, int] = (200, 150)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def unique_pixels(width: int, height: int) -> Image.Image:
    """No two pixels are alike, so a move of any of them shows."""
    index = np.arange(width * height).reshape(height, width)
    return Image.fromarray(np.stack([index % 256, index // 256, index % 7], -1).astype(np.uint8))


def sorted_pixels(image: Image.Image) -> list[list[int]]:
    return sorted(np.asarray(image).reshape(-1, 3).tolist())


def naive_alpha_bar(step: int) -> float:
    product = 1.0
    for index in range(step + 1):
        position = -6 + 12 * index / 999
        product *= 1 - ((0.5e-2 - 1e-5) / (1 + math.exp(-position)) + 1e-5)
    return product


def test_black_is_black():
    assert set(black(unique_pixels(5, 4), rng()).tobytes()) == {0}


def test_mean_color_by_hand():
    image = Image.new("RGB", (2, 2), (10, 20, 200))
    image.putpixel((1, 1), (30, 21, 0))
    # (3 * 10 + 30) / 4 = 15 ; (3 * 20 + 21) / 4 = 20.25 ; 3 * 200 / 4 = 150
    assert mean_color(image, rng()).getcolors() == [(4, (15, 20, 150))]


@pytest.mark.parametrize("std", [0.02, 0.1])
def test_noise_has_the_strength_asked_for(std: float):
    spoilt = np.asarray(noise(grey(), rng(), std=std)).astype(float)
    # 90_000 draws: the standard deviation is known to 0.24 %; rounding to whole levels adds 1/12
    assert spoilt.std() == pytest.approx(math.hypot(255 * std, 12**-0.5), rel=0.01)
    assert spoilt.mean() == pytest.approx(128, abs=4 * 255 * std / 300)


def test_noise_differs_between_channels_and_pixels():
    spoilt = np.asarray(noise(grey(), rng(), std=0.1)).astype(float).reshape(-1, 3)
    correlations = np.corrcoef(np.vstack([spoilt.T, np.roll(spoilt[:, 0], 1)]))
    assert np.abs(correlations - np.eye(4)).max() < 0.03


@pytest.mark.parametrize("level", [0, 255])
def test_noise_is_cut_off_not_wrapped(level: int):
    spoilt = np.asarray(noise(grey(level), rng(), std=0.2)).astype(int)
    # half of the draws point out of the range and end at the limit
    assert (spoilt == level).mean() == pytest.approx(0.5, abs=0.02)
    assert np.abs(spoilt - level).mean() == pytest.approx(51 / math.sqrt(2 * math.pi), rel=0.02)


def test_no_noise_is_the_identity():
    assert noise(unique_pixels(9, 7), rng(), std=0).tobytes() == unique_pixels(9, 7).tobytes()


@pytest.mark.parametrize("step", [0, 1, 250, 500, 999])
def test_alpha_bar_equals_a_plain_loop(step: int):
    assert ALPHA_BAR[step] == pytest.approx(naive_alpha_bar(step), rel=1e-12)
    assert ALPHA_BAR.shape == (1000,)


def test_alpha_bar_at_its_ends():
    # beta_0 = 0.00499 * sigmoid(-6) + 0.00001, with sigmoid(-6) = 0.002472623
    assert 1 - ALPHA_BAR[0] == pytest.approx(2.2338388e-5, rel=1e-6)
    # the mean of sigmoid over (-6, 6) is 1/2: -log alpha_bar is about 1000 * (0.00499 / 2 + 1e-5)
    assert -math.log(ALPHA_BAR[-1]) == pytest.approx(2.505, rel=0.005)


@pytest.mark.parametrize("step", [0, 500, 999])
def test_diffusion_by_hand(step: int):
    image = unique_pixels(6, 5)
    draws = rng(4).standard_normal((5, 6, 3), dtype=np.float32)
    alpha_bar = naive_alpha_bar(step)
    expected = []
    for value, draw in zip(image.tobytes(), draws.ravel().tolist(), strict=True):
        noisy = math.sqrt(alpha_bar) * (value / 127.5 - 1) + math.sqrt(1 - alpha_bar) * draw
        expected.append(round((min(1, max(-1, noisy)) + 1) * 127.5))
    spoilt = diffusion(image, rng(4), step=step)
    assert list(spoilt.tobytes()) == expected


@pytest.mark.parametrize("step", [100, 200])
def test_diffusion_noise_has_the_variance_of_its_step(step: int):
    spoilt = np.asarray(diffusion(grey(), rng(), step=step)).astype(float)
    variance = 127.5**2 * (1 - naive_alpha_bar(step)) + 1 / 12
    # 90_000 draws: the variance is known to 0.5 %
    assert spoilt.var() == pytest.approx(variance, rel=0.02)


def test_diffusion_fades_the_picture():
    spoilt = np.asarray(diffusion(grey(90), rng(), step=300)).astype(float)
    # mean 127.5 + sqrt(alpha_bar) * (90 - 127.5); the noise averages out to 32 / 300
    expected = 127.5 - math.sqrt(naive_alpha_bar(300)) * 37.5
    assert spoilt.mean() == pytest.approx(expected, abs=0.4)
    assert expected > 90.4


def test_diffusion_uses_step_500_unless_told():
    image = unique_pixels(6, 5)
    assert diffusion(image, rng()).tobytes() == diffusion(image, rng(), step=500).tobytes()


def test_blur_leaves_one_colour_alone():
    assert blur(grey(77), rng()).tobytes() == grey(77).tobytes()


def test_blur_keeps_the_mean_and_reduces_the_variance():
    pixels = rng().integers(0, 256, (60, 80, 3), dtype=np.uint8)
    blurred = np.asarray(blur(Image.fromarray(pixels), rng()))
    assert blurred.mean() == pytest.approx(pixels.mean(), abs=2)
    assert blurred.var() < pixels.var() / 20


def test_blur_radius_is_a_share_of_the_shorter_side():
    # a line of light becomes a bell whose standard deviation is the radius: 0.05 * 100 = 5 pixels
    image = Image.new("RGB", (300, 100))
    image.paste((255, 255, 255), (148, 0, 152, 100))
    row = np.asarray(blur(image, rng(), radius=0.05))[50, :, 0].astype(float)
    positions = np.arange(300)
    centre = (row * positions).sum() / row.sum()
    spread = math.sqrt((row * (positions - centre) ** 2).sum() / row.sum())
    assert centre == pytest.approx(149.5, abs=0.1)
    assert spread == pytest.approx(math.hypot(5, 4 / 12**0.5), rel=0.05)


def test_blur_of_no_radius_is_the_identity():
    assert blur(unique_pixels(9, 7), rng(), radius=0).tobytes() == unique_pixels(9, 7).tobytes()


def test_patches_of_two_by_two_are_found_again_whole():
    image = unique_pixels(8, 6)
    for seed in range(20):
        spoilt = patch_shuffle(image, rng(seed), patches=2)
        corners = [(0, 0), (4, 0), (0, 3), (4, 3)]
        before = [image.crop((x, y, x + 4, y + 3)).tobytes() for x, y in corners]
        after = [spoilt.crop((x, y, x + 4, y + 3)).tobytes() for x, y in corners]
        assert sorted(before) == sorted(after)
        assert before != after


@pytest.mark.parametrize("size", [(10, 7), (3, 50), (50, 3), (64, 64), (2, 1)])
def test_shuffle_moves_pixels_and_makes_none(size: tuple[int, int]):
    image = unique_pixels(*size)
    for seed in range(10):
        spoilt = patch_shuffle(image, rng(seed))
        assert spoilt.tobytes() != image.tobytes()
        assert sorted_pixels(spoilt) == sorted_pixels(image)


def test_pixels_beyond_the_last_whole_patch_stay():
    # 11 x 9 in 4 x 4 patches of 2 x 2: the last three columns and the last row are left over
    image = unique_pixels(11, 9)
    left_over = np.ones((9, 11), dtype=bool)
    left_over[:8, :8] = False
    before, after = np.asarray(image), np.asarray(patch_shuffle(image, rng()))
    assert (before[left_over] == after[left_over]).all()


def test_one_patch_is_the_identity():
    image = unique_pixels(8, 6)
    assert patch_shuffle(image, rng(), patches=1).tobytes() == image.tobytes()


def test_every_other_order_is_as_likely_and_the_present_one_never_comes():
    generator = rng()
    seen = [tuple(another_order(3, generator).tolist()) for _ in range(5000)]
    assert (0, 1, 2) not in seen
    counts = np.unique(np.array(seen), axis=0, return_counts=True)[1]
    # five orders, 1000 each: standard deviation sqrt(5000 * 0.2 * 0.8) = 28
    assert len(counts) == 5
    assert np.abs(counts - 1000).max() < 4.5 * 28
