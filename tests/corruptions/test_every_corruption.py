"""What holds for every corruption: size, mode, seed, untouched input, odd sizes, refusals."""

import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdpo.corruptions import CORRUPTIONS, make_corruption
from mdpo.corruptions.catalogue import CHECKS, default_options

RANDOM = ["crop_keep", "crop_remove", "moco_v2", "noise", "diffusion", "patch_shuffle"]
FIXED = ["black", "mean_color", "blur"]


def picture(width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def spoil(name: str, seed: int, image: Image.Image | None = None) -> Image.Image:
    return make_corruption(name)(image or picture(), np.random.default_rng(seed))


def test_every_corruption_is_random_or_fixed():
    assert sorted(RANDOM + FIXED) == sorted(CORRUPTIONS)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(60, 40), (1, 1), (2, 2), (1, 300), (300, 1), (500, 7)])
def test_size_and_mode_stay(name: str, size: tuple[int, int]):
    for seed in range(5):
        spoilt = spoil(name, seed, picture(*size))
        assert (spoilt.size, spoilt.mode) == (size, "RGB")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_seed_gives_same_pixels(name: str):
    assert spoil(name, 3).tobytes() == spoil(name, 3).tobytes()


@pytest.mark.parametrize("name", RANDOM)
def test_other_seeds_give_other_pixels(name: str):
    assert len({spoil(name, seed).tobytes() for seed in range(4)}) == 4


@pytest.mark.parametrize("name", FIXED)
def test_fixed_corruptions_leave_the_generator_alone(name: str):
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    make_corruption(name)(picture(), generator)
    assert generator.bit_generator.state == before


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_input_is_untouched_and_not_returned(name: str):
    image = picture()
    for seed in range(5):
        assert spoil(name, seed, image) is not image
    assert image.tobytes() == picture().tobytes()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_defaults_change_the_picture(name: str):
    assert spoil(name, 0).tobytes() != picture().tobytes()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_survives_pickling_for_worker_processes(name: str):
    copied = pickle.loads(pickle.dumps(make_corruption(name)))
    assert copied(picture(), np.random.default_rng(1)).tobytes() == spoil(name, 1).tobytes()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_are_refused(name: str, mode: str):
    with pytest.raises(ValueError, match=rf"`image` must have mode 'RGB', got '{mode}'. Call"):
        spoil(name, 0, picture().convert(mode))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_image_without_pixels_is_refused(name: str):
    with pytest.raises(ValueError, match=r"`image` must have pixels, got size \(0, 4\)"):
        spoil(name, 0, Image.new("RGB", (0, 4)))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_with_options_has_a_check_of_just_these(name: str):
    options = list(default_options(CORRUPTIONS[name]))
    checked = list(inspect.signature(CHECKS[name]).parameters) if name in CHECKS else []
    assert options == checked


def test_options_reach_the_corruption():
    generator = np.random.default_rng(0)
    unchanged = make_corruption("noise", std=0)(picture(), generator)
    assert unchanged.tobytes() == picture().tobytes()


def test_unknown_name_is_refused_with_its_neighbour():
    message = r"Corruption 'crop_kep' is unknown. Did you mean 'crop_keep'\? Known: crop_keep, crop"
    with pytest.raises(ValueError, match=message):
        make_corruption("crop_kep")


def test_unknown_name_without_neighbour_lists_the_known():
    with pytest.raises(ValueError, match=r"^Corruption 'xyz' is unknown. Known: crop_keep, .*\.$"):
        make_corruption("xyz")


def test_unknown_option_is_refused_with_the_known():
    message = r"`stdd` is not an option of corruption 'noise'. Did you mean 'std'\? Known: std\."
    with pytest.raises(ValueError, match=message):
        make_corruption("noise", stdd=0.1)


@pytest.mark.parametrize("option", ["image", "generator", "std"])
def test_corruption_without_options_says_so(option: str):
    with pytest.raises(ValueError, match=rf"`{option}` is not .* it takes no options"):
        make_corruption("black", **{option: 1.0})


BAD_OPTIONS = [
    ("crop_keep", {"area_low": -0.1}, "`area_low` must be a number from 0 to 1, got -0.1. It is"),
    ("crop_keep", {"area_high": 1.1}, "`area_high` must be a number from 0 to 1, got 1.1"),
    ("crop_keep", {"area_low": 0, "area_high": 0}, "`area_high` must be > 0, got 0"),
    ("crop_keep", {"area_low": 0.3}, r"`area_low` must be <= `area_high` \(0.2\), got 0.3"),
    ("crop_keep", {"ratio_low": 0}, "`ratio_low` must be a number from 0.01 to 100, got 0"),
    ("crop_keep", {"ratio_high": 101}, "`ratio_high` must be a number from 0.01 to 100, got 101"),
    ("crop_keep", {"ratio_low": 2}, r"`ratio_low` must be <= `ratio_high` \(1.33.*\), got 2"),
    ("crop_remove", {"area_high": float("nan")}, "`area_high` must be .*, got nan"),
    ("noise", {"std": "0.1"}, "`std` must be a number from 0 to 1, got '0.1'"),
    ("noise", {"std": True}, "`std` must be a number from 0 to 1, got True"),
    ("noise", {"std": 25}, "`std` must be .*, got 25. It is a share of 255"),
    ("diffusion", {"step": -1}, "`step` must be a whole number from 0 to 999, got -1"),
    ("diffusion", {"step": 1000}, "`step` must be .*, got 1000. It counts steps .* VCD uses 500"),
    ("diffusion", {"step": 0.5}, "`step` must be a whole number from 0 to 999, got 0.5"),
    ("diffusion", {"step": True}, "`step` must be a whole number from 0 to 999, got True"),
    ("blur", {"radius": 8}, "`radius` must be .*, got 8. It is a share of the shorter side"),
    ("blur", {"radius": -0.1}, "`radius` must be a number from 0 to 1, got -0.1"),
    ("patch_shuffle", {"patches": 0}, "`patches` must be a whole number from 1 to 1024, got 0"),
    ("patch_shuffle", {"patches": 2.0}, "`patches` must be a whole number .*, got 2.0"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_bad_option_is_refused_before_and_with_an_image(
    name: str, options: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        make_corruption(name, **options)
    with pytest.raises(ValueError, match=message):
        CORRUPTIONS[name](picture(), np.random.default_rng(0), **options)


@pytest.mark.parametrize(
    ("name", "options"), [("noise", {"std": np.float32(0.5)}), ("diffusion", {"step": np.int64(5)})]
)
def test_numpy_numbers_are_numbers(name: str, options: dict[str, Any]):
    assert make_corruption(name, **options)(picture(), np.random.default_rng(0)).size == (60, 40)
