"""Which rejected image goes with a row: one of its own, another row's, or a corrupted copy.

A row that brings its own is never given another; ``provided`` asks that every row does.

The draw is a function of (seed, row id) alone, and of the epoch where asked for. So it does not
depend on the number of workers, the order of batches or whether a run was resumed, and policy and
reference see the same pixels.
"""

import hashlib
from typing import Any

import numpy as np

from mdpo.corruptions import CORRUPTIONS, Corruption, make_corruption

FROM_ROWS: tuple[str, ...] = ("random_image", "provided")
"""Ways to get a rejected image from the data: another row's image, or the row's own column."""

REJECTED_IMAGE_NAMES: tuple[str, ...] = (*CORRUPTIONS, *FROM_ROWS)


def make_rejected_image_source(name: str, options: dict[str, Any]) -> Corruption | str:
    """Look up how rejected images are made.

    Args:
        name: One of ``REJECTED_IMAGE_NAMES``.
        options: Of the corruption.

    Returns:
        A corruption, or the name itself if the image comes from the data.

    Raises:
        ValueError: If the name is unknown or takes no such options.
    """
    if name not in FROM_ROWS:
        if name not in CORRUPTIONS:
            known = ", ".join(REJECTED_IMAGE_NAMES)
            raise ValueError(f"`corruption` {name!r} is unknown. Known: {known}.")
        return make_corruption(name, **options)
    if options:
        raise ValueError(f"`corruption_options` must be empty for {name!r}, got {options}.")
    return name


def row_generator(
    purpose: str, *, seed: int, row_id: str, epoch: int | None, number: int = 0
) -> np.random.Generator:
    """Make the generator of one draw.

    Args:
        purpose: What is drawn, so that two draws for one row differ.
        seed: Of the run.
        row_id: Of the row.
        epoch: Of training, or None if the draw is the same in each.
        number: Of the image within the row.

    Returns:
        A generator that these values alone decide.
    """
    key = f"{purpose}\0{seed}\0{row_id}\0{epoch}\0{number}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:16], "big"))
