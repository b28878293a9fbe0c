"""What every corruption asks of its image and of its options.

Options come from YAML files and command lines, so text and wrong kinds of number are refused here
too, with the same kind of error as a value out of range.
"""

from numbers import Integral, Real

from PIL import Image


def check_image(image: Image.Image) -> None:
    """Refuse an image that no corruption can work on.

    Other modes are refused rather than converted: what a palette index or an alpha channel means
    to the model is for the caller to decide.

    Args:
        image: Image to be corrupted.

    Raises:
        ValueError: If the mode is not RGB, or the image has no pixels.
    """
    if image.mode != "RGB":
        raise ValueError(
            f"`image` must have mode 'RGB', got {image.mode!r}. Call `image.convert('RGB')` first."
        )
    if 0 in image.size:
        raise ValueError(f"`image` must have pixels, got size {image.size}. Drop this row.")


def check_number(name: str, value: float, *, low: float, high: float, meaning: str) -> None:
    """Refuse an option that is not a number from ``low`` to ``high``.

    Args:
        name: Name of the option.
        value: What the user gave.
        low: Smallest value allowed.
        high: Largest value allowed.
        meaning: Sentence that says what the number is, and which value is usual.

    Raises:
        ValueError: If ``value`` is not a number, or lies outside the range.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise ValueError(
            f"`{name}` must be a number from {low:g} to {high:g}, got {value!r}. {meaning}"
        )


def check_whole_number(name: str, value: int, *, low: int, high: int, meaning: str) -> None:
    """Refuse an option that is not a whole number from ``low`` to ``high``.

    Args:
        name: Name of the option.
        value: What the user gave.
        low: Smallest value allowed.
        high: Largest value allowed.
        meaning: Sentence that says what the number is, and which value is usual.

    Raises:
        ValueError: If ``value`` is not a whole number, or lies outside the range.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not low <= value <= high:
        raise ValueError(
            f"`{name}` must be a whole number from {low} to {high}, got {value!r}. {meaning}"
        )
