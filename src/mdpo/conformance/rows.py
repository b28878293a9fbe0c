"""Made preference rows: pictures of several sizes, uneven prompts and responses."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mdpo.data.dataset import Example
from mdpo.data.rejected_images import make_rejected_image_source
from mdpo.data.rows import Message

SQUARE = (64, 64)
SIZES: tuple[tuple[int, int], ...] = (SQUARE, (96, 48), (40, 80), (200, 152))
"""Width and height in pixels: square, wide, tall, and one that is larger."""

ONE_IMAGE = "one image"
SEVERAL_SIZES = "images of different sizes"
SEVERAL_IMAGES = "several images"
TEXT_ONLY = "text only"
MIX = "mix"

KINDS: tuple[str, ...] = (ONE_IMAGE, SEVERAL_SIZES, SEVERAL_IMAGES, TEXT_ONLY, MIX)
"""Kinds of batches, in the order in which they are tried."""

REQUIRED: tuple[str, ...] = (ONE_IMAGE, SEVERAL_SIZES)
"""Kinds that every vision-language model must take."""

TEXTS: tuple[tuple[str, str, str], ...] = (
    ("What is shown?", "A red boat", "A blue cup, no boat"),
    ("How many lamps are there? Say a number.", "Three lamps", "One"),
    ("Describe the picture.", "Two cups on a table", "A bird"),
    ("Is there a boat in the picture, and what is its color?", "Yes, red", "No boat at all"),
)


def picture(generator: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Make a picture of coarse blocks, which survive any resizing.

    Args:
        generator: Source of the colors.
        size: Width and height in pixels.

    Returns:
        An RGB image.
    """
    blocks = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


def make_prompt(images: int, question: str) -> list[Message]:
    """Write a prompt of one turn.

    Args:
        images: How many there are; they come first.
        question: What the user says.

    Returns:
        Messages.
    """
    parts = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def make_rows(seed: int) -> dict[str, list[Example]]:
    """Make the rows of all kinds but the mix.

    Args:
        seed: Of pictures and rejected images.

    Returns:
        Examples by kind.
    """
    generator, numbers = np.random.default_rng(seed), itertools.count()
    sizes = {
        ONE_IMAGE: [[SQUARE], [SQUARE]],
        SEVERAL_SIZES: [[size] for size in SIZES],
        SEVERAL_IMAGES: [[SQUARE, SIZES[1]], [SIZES[2], SQUARE, SIZES[1]]],
        TEXT_ONLY: [[], []],
    }
    return {
        kind: [_example(generator, numbers, each, k) for k, each in enumerate(rows)]
        for kind, rows in sizes.items()
    }


def mixed(rows: dict[str, list[Example]]) -> list[Example]:
    """Put rows of different kinds in one batch.

    Args:
        rows: By kind.

    Returns:
        One of each kind, or nothing if there are fewer than two.
    """
    kinds = [kind for kind in (SEVERAL_SIZES, TEXT_ONLY, SEVERAL_IMAGES) if kind in rows]
    return [rows[kind][-1] for kind in kinds] if len(kinds) > 1 else []


def with_images(example: Example, images: Sequence[Image.Image]) -> Example:
    """Show a row other images of its own.

    Args:
        example: The row.
        images: As many as it has.

    Returns:
        The row with these images; its rejected ones stay.
    """
    changed = example.copy()
    changed["images"] = example["images"] | {"chosen": list(images)}
    return changed


def repaint(
    image: Image.Image, box: tuple[int, int, int, int], generator: np.random.Generator
) -> Image.Image:
    """Paint over a part of an image.

    Args:
        image: Stays as it is.
        box: Left, upper, right and lower edge, in pixels.
        generator: Source of the colors.

    Returns:
        The painted copy.
    """
    copy = image.copy()
    copy.paste(picture(generator, (box[2] - box[0], box[3] - box[1])), box[:2])
    return copy


def quarters(size: tuple[int, int]) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Divide an image in four.

    Args:
        size: Width and height in pixels.

    Yields:
        Name and box of each quarter.
    """
    (width, height), halves = size, ((0, "left"), (1, "right"))
    for row, vertical in ((0, "upper"), (1, "lower")):
        for column, horizontal in halves:
            left, upper = column * (width // 2), row * (height // 2)
            box = (left, upper, left + width // 2, upper + height // 2)
            yield f"{vertical} {horizontal}", box


def _example(
    generator: np.random.Generator,
    numbers: Iterator[int],
    sizes: Sequence[tuple[int, int]],
    place: int,
) -> Example:
    """Make one row; the rejected image of every second one has another size than its own."""
    corrupt = make_rejected_image_source("crop_keep", {})
    assert not isinstance(corrupt, str)
    question, chosen, rejected = TEXTS[place % len(TEXTS)]
    images = [picture(generator, size) for size in sizes]
    spoilt = [corrupt(image, generator) for image in images]
    if images and place % 2:
        spoilt[0] = picture(generator, SIZES[1])
    return Example(
        index=next(numbers),
        digest=0,
        images={"chosen": images, "rejected": spoilt},
        prompt=make_prompt(len(images), question),
        chosen=chosen,
        rejected=rejected,
    )
