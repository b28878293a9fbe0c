"""The augmentation recipe of MoCo v2, used as a corruption.

Its steps are those of torchvision, in terms of Pillow: crop, colour jitter, grey, blur, mirror.
"""

# ruff: noqa: DOC502 - the errors documented here are raised in the checks

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from mdpo.corruptions.checks import check_image
from mdpo.corruptions.crops import crop_keep

VIEW_SIZE = 224
"""Side in pixels of the views that MoCo v2 makes, to which its blur radius refers."""


def moco_v2(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Augment the picture as MoCo v2 does, keeping its size.

    In this order: a random window of 20 to 100 % of the area; colour jitter (probability 0.8);
    grey (0.2); Gaussian blur of standard deviation 0.1 to 2 pixels of a 224-pixel view (0.5);
    mirrored left to right (0.5).

    Source: Chen et al. 2020, https://arxiv.org/abs/2003.04297, with the values of their release
    (``--aug-plus``); a row of Table 3 in Wang et al. 2024, https://arxiv.org/abs/2406.11839.
    Differs: MoCo makes square views of 224 pixels. Here the size stays and the blur is scaled with
    the shorter side. ``random_window`` says how the window differs from torchvision's.

    Args:
        image: RGB image of any size.
        generator: Source of randomness.

    Returns:
        An RGB image of the size of ``image``.

    Raises:
        ValueError: If the image is not RGB.
    """
    check_image(image)
    view = crop_keep(image, generator, area_low=0.2, area_high=1.0)
    if generator.random() < 0.8:
        view = jitter_colors(view, generator)
    if generator.random() < 0.2:
        view = view.convert("L").convert("RGB")
    if generator.random() < 0.5:
        radius = generator.uniform(0.1, 2.0) * min(view.size) / VIEW_SIZE
        view = view.filter(ImageFilter.GaussianBlur(radius))
    if generator.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return view


def jitter_colors(
    image: Image.Image,
    generator: np.random.Generator,
    *,
    strength: float = 0.4,
    hue: float = 0.1,
) -> Image.Image:
    """Change brightness, contrast, saturation and hue, in random order.

    Source: ``ColorJitter`` of torchvision; MoCo v2 uses 0.4 for the first three and 0.1 for hue.

    Args:
        image: RGB image.
        generator: Source of randomness.
        strength: Brightness, contrast and saturation are each multiplied by a factor drawn from
            ``1 - strength`` to ``1 + strength``; in 0..1.
        hue: Hue is turned by a share of the colour circle drawn from ``-hue`` to ``hue``; in
            0..0.5.

    Returns:
        An RGB image of the size of ``image``.
    """
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = generator.uniform(1 - strength, 1 + strength, size=len(enhancers))
    turn = generator.uniform(-hue, hue)
    for change in generator.permutation(len(enhancers) + 1):
        if change < len(enhancers):
            image = enhancers[change](image).enhance(float(factors[change]))
        else:
            image = turn_hue(image, turn)
    return image


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Turn the hue of every pixel; grey stays grey.

    Source: ``adjust_hue`` of torchvision for PIL images: whole steps of the 8-bit hue channel.

    Args:
        image: RGB image.
        turn: Share of the colour circle, -0.5..0.5; 1/3 turns red into green.

    Returns:
        An RGB image of the size of ``image``.
    """
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + int(turn * 255)) % 256
    channels = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
    return Image.merge("HSV", channels).convert("RGB")
