"""Corruptions that act on every pixel: no image, one colour, noise, blur, shuffled patches.

``noise`` and ``diffusion`` draw one value per pixel and channel at the resolution of the file. An
image processor that scales a large image down averages that noise away: at half the side, about
half the standard deviation is left. Scale images to the model's input size first where the
strength must be comparable.

Legend: ``h w`` pixels, 3 channels; patches are indexed row by row.
"""

# ruff: noqa: DOC502 - the errors documented here are raised in the checks

import numpy as np
from PIL import Image, ImageFilter

from mdpo.corruptions.checks import check_image, check_number, check_whole_number

DIFFUSION_STEPS = 1000


def sigmoid_schedule() -> np.ndarray:
    """Compute the share of signal variance left after each step of VCD's forward diffusion.

    Source: ``add_diffusion_noise`` of VCD, Leng et al. 2023, https://arxiv.org/abs/2311.16922:
    ``beta_t = sigmoid(x_t) * (0.5e-2 - 1e-5) + 1e-5`` with 1000 values ``x_t`` evenly from -6 to 6.

    Returns:
        ``alpha_bar_t``, the product of ``1 - beta_i`` for i = 0..t; shape (1000,).
    """
    positions = np.linspace(-6, 6, DIFFUSION_STEPS)
    betas = 1 / (1 + np.exp(-positions)) * (0.5e-2 - 1e-5) + 1e-5
    return np.cumprod(1 - betas)


ALPHA_BAR = sigmoid_schedule()


def black(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Replace every pixel by black.

    Args:
        image: RGB image of any size.
        generator: Not used.

    Returns:
        A black RGB image of the size of ``image``.

    Raises:
        ValueError: If the image is not RGB.
    """
    check_image(image)
    return Image.new("RGB", image.size)


def mean_color(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Replace every pixel by the mean colour of the image.

    Args:
        image: RGB image of any size.
        generator: Not used.

    Returns:
        An RGB image of one colour, of the size of ``image``.

    Raises:
        ValueError: If the image is not RGB.
    """
    check_image(image)
    return Image.new("RGB", image.size, average_color(image))


def average_color(image: Image.Image) -> tuple[int, int, int]:
    """Average each channel over all pixels.

    Args:
        image: RGB image.

    Returns:
        Red, green and blue in 0..255, rounded to whole numbers.
    """
    red, green, blue = np.rint(np.asarray(image).mean(axis=(0, 1)))
    return int(red), int(green), int(blue)


def noise(image: Image.Image, generator: np.random.Generator, *, std: float = 0.25) -> Image.Image:
    """Add Gaussian noise to every channel of every pixel; the picture keeps its strength.

    Source: none; ``diffusion`` is the noise that papers use.

    Args:
        image: RGB image of any size.
        generator: Source of randomness.
        std: Standard deviation as a share of 255, in 0..1, before values are cut off at 0 and 255.

    Returns:
        An RGB image of the size of ``image``.

    Raises:
        ValueError: If ``std`` is out of range, or the image is not RGB.
    """
    check_image(image)
    check_noise(std=std)
    pixels = np.asarray(image)
    return to_image(pixels + 255 * std * standard_normal(pixels.shape, generator))


def check_noise(*, std: float) -> None:
    """Refuse a strength of ``noise`` that is no share.

    Args:
        std: Standard deviation as a share of 255.

    Raises:
        ValueError: If ``std`` is not in 0..1.
    """
    check_number("std", std, low=0, high=1, meaning="It is a share of 255; the default is 0.25.")


def diffusion(
    image: Image.Image, generator: np.random.Generator, *, step: int = 500
) -> Image.Image:
    """Fade the picture and add noise, as forward diffusion does up to one step.

    ``x_t = sqrt(alpha_bar_t) * x_0 + sqrt(1 - alpha_bar_t) * noise`` on pixels scaled to [-1, 1].

    Source: ``add_diffusion_noise`` of VCD, Leng et al. 2023, https://arxiv.org/abs/2311.16922, at
    step 500; CHiP (https://arxiv.org/abs/2501.16629) and others make rejected images with it.
    Differs: they add the noise to the model's normalised input, unclipped. Here it is added to the
    pixels of the file and values are cut off at 0 and 255. Scaling to [-1, 1] is the normalisation
    of SigLIP; CLIP divides by about 0.27 instead of 0.5, so at equal step the noise is here about
    1.9 times as strong against the picture as for a CLIP-based model in VCD.

    Args:
        image: RGB image of any size.
        generator: Source of randomness.
        step: Index of the step, 0 (hardly any noise) to 999 (contrast faded to 29 %).

    Returns:
        An RGB image of the size of ``image``.

    Raises:
        ValueError: If ``step`` is out of range, or the image is not RGB.
    """
    check_image(image)
    check_diffusion(step=step)
    clean = np.asarray(image) / 127.5 - 1
    noisy = np.sqrt(ALPHA_BAR[step]) * clean
    noisy += np.sqrt(1 - ALPHA_BAR[step]) * standard_normal(clean.shape, generator)
    return to_image((noisy + 1) * 127.5)


def check_diffusion(*, step: int) -> None:
    """Refuse a step that the schedule of ``diffusion`` does not have.

    Args:
        step: Index of the step.

    Raises:
        ValueError: If ``step`` is not a whole number in 0..999.
    """
    meaning = "It counts steps of a schedule of 1000; VCD uses 500."
    check_whole_number("step", step, low=0, high=DIFFUSION_STEPS - 1, meaning=meaning)


def blur(
    image: Image.Image, generator: np.random.Generator, *, radius: float = 0.05
) -> Image.Image:
    """Blur the picture by a share of its shorter side, so that resolution does not matter.

    Source: none in the papers followed here; the kernel is Pillow's approximation of a Gaussian.

    Args:
        image: RGB image of any size.
        generator: Not used.
        radius: Standard deviation of the kernel as a share of the shorter side, in 0..1.

    Returns:
        An RGB image of the size of ``image``.

    Raises:
        ValueError: If ``radius`` is out of range, or the image is not RGB.
    """
    check_image(image)
    check_blur(radius=radius)
    return image.filter(ImageFilter.GaussianBlur(radius * min(image.size)))


def check_blur(*, radius: float) -> None:
    """Refuse a radius of ``blur`` that is no share.

    Args:
        radius: Standard deviation of the kernel as a share of the shorter side.

    Raises:
        ValueError: If ``radius`` is not in 0..1.
    """
    meaning = "It is a share of the shorter side, not pixels; the default is 0.05."
    check_number("radius", radius, low=0, high=1, meaning=meaning)


def patch_shuffle(
    image: Image.Image, generator: np.random.Generator, *, patches: int = 4
) -> Image.Image:
    """Cut the picture into a grid of patches and put them back in another order.

    Patches are of one size. Where the size of the image is no multiple of ``patches``, the last
    columns and rows of pixels, fewer than ``patches``, stay in place. An image narrower than
    ``patches`` is cut into columns of one pixel. At least two patches move, if there are two.

    Source: none in the papers followed here.

    Args:
        image: RGB image of any size.
        generator: Source of randomness.
        patches: Number of patches along each side, 1 to 1024; 1 leaves the image as it is.

    Returns:
        An RGB image of the size of ``image``, made of the same pixels.

    Raises:
        ValueError: If ``patches`` is out of range, or the image is not RGB.
    """
    check_image(image)
    check_patch_shuffle(patches=patches)
    columns, rows = min(patches, image.width), min(patches, image.height)
    width, height = image.width // columns, image.height // rows

    shuffled = np.array(image)
    grid = shuffled[: rows * height, : columns * width]
    # (rows, height, columns, width, 3) -> (rows, columns, height, width, 3): a list of patches
    pieces = grid.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    moved = pieces.reshape(-1, height, width, 3)[another_order(rows * columns, generator)]
    grid[:] = moved.reshape(pieces.shape).swapaxes(1, 2).reshape(grid.shape)
    return Image.fromarray(shuffled)


def check_patch_shuffle(*, patches: int) -> None:
    """Refuse a grid that ``patch_shuffle`` cannot cut.

    Args:
        patches: Number of patches along each side.

    Raises:
        ValueError: If ``patches`` is not a whole number in 1..1024.
    """
    meaning = "It counts the patches along each side; the default is 4."
    check_whole_number("patches", patches, low=1, high=1024, meaning=meaning)


def another_order(count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw an order of ``count`` things, uniform among all but the present one.

    Args:
        count: How many things, at least one. A single thing has only its present order.
        generator: Source of randomness.

    Returns:
        A permutation of 0..count-1, shape (count,).
    """
    present = np.arange(count)
    order = generator.permutation(count)
    while count > 1 and np.array_equal(order, present):
        order = generator.permutation(count)
    return order


def standard_normal(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draw noise of mean 0 and standard deviation 1, in float32 to halve the memory.

    Args:
        shape: Shape of the noise.
        generator: Source of randomness.

    Returns:
        The noise, of shape ``shape``.
    """
    return generator.standard_normal(shape, dtype=np.float32)


def to_image(pixels: np.ndarray) -> Image.Image:
    """Round to whole numbers and cut off at 0 and 255.

    Args:
        pixels: Values on the scale of 0..255, shape (h, w, 3).

    Returns:
        An RGB image.
    """
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
