"""All corruptions by name, and the one way to set them up from a recipe.

Two ways to get a rejected image are not here because they need other rows or files: another row's
image, and one that the user provides. The data module has them.
"""

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial

import numpy as np
from PIL import Image

from mdpo.corruptions.augmentations import moco_v2
from mdpo.corruptions.crops import check_window, crop_keep, crop_remove
from mdpo.corruptions.pixels import (
    black,
    blur,
    check_blur,
    check_diffusion,
    check_noise,
    check_patch_shuffle,
    diffusion,
    mean_color,
    noise,
    patch_shuffle,
)

Corruption = Callable[[Image.Image, np.random.Generator], Image.Image]
"""Makes a new RGB image of the same size; the input stays untouched, and the same state of the
generator gives the same pixels."""

CORRUPTIONS: dict[str, Callable[..., Image.Image]] = {
    "crop_keep": crop_keep,
    "crop_remove": crop_remove,
    "moco_v2": moco_v2,
    "black": black,
    "mean_color": mean_color,
    "noise": noise,
    "diffusion": diffusion,
    "blur": blur,
    "patch_shuffle": patch_shuffle,
}
"""Corruptions by the name used in recipes; options are keyword-only arguments."""

CHECKS: dict[str, Callable[..., None]] = {
    "crop_keep": check_window,
    "crop_remove": check_window,
    "noise": check_noise,
    "diffusion": check_diffusion,
    "blur": check_blur,
    "patch_shuffle": check_patch_shuffle,
}
"""What refuses bad options, for each corruption that has options; takes all of them."""


def make_corruption(name: str, /, **options: float) -> Corruption:
    """Set up a corruption, refusing what it cannot use before any image is seen.

    Args:
        name: Key of ``CORRUPTIONS``.
        options: Options of that corruption that are to differ from their defaults.

    Returns:
        The corruption with its options set; it can be pickled.

    Raises:
        ValueError: If the name or an option is unknown, or an option is out of range.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"Corruption {name!r} is unknown. {suggest(name, CORRUPTIONS)}")
    defaults = default_options(CORRUPTIONS[name])
    for option in options:
        if option not in defaults:
            raise ValueError(
                f"`{option}` is not an option of corruption {name!r}. {suggest(option, defaults)}"
            )
    if name in CHECKS:
        CHECKS[name](**defaults | options)
    return partial(CORRUPTIONS[name], **options)


def default_options(corruption: Callable[..., Image.Image]) -> dict[str, float]:
    """List the options of a corruption.

    Args:
        corruption: Value of ``CORRUPTIONS``.

    Returns:
        Default value of each option, by name.
    """
    parameters = inspect.signature(corruption).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which name may have been meant, and which there are.

    Args:
        name: What the user gave.
        known: Names there are.

    Returns:
        One or two sentences.
    """
    names = list(known)
    nearest = get_close_matches(name, names, n=1)
    meant = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return f"{meant}Known: {', '.join(names) or 'none, it takes no options'}."
