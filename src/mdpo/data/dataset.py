"""Preference pairs with their images, decoded when asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from mdpo.corruptions import Corruption
from mdpo.data.images import open_image
from mdpo.data.reading import Rows
from mdpo.data.rejected_images import row_generator
from mdpo.data.rows import Message, PreferenceRow, RowError

ImageCondition = Literal["true", "none", "swapped"]

NO_IMAGE = "none"
"""Image slot whose prompt is read without images."""

MAX_DONOR_DRAWS = 50
"""Draws of another row's image before giving up on finding one that differs."""


class Example(TypedDict):
    """One pair, as collation takes it.

    Attributes:
        index: Of the row in its source.
        digest: Hash of the row's texts and pixels, 64 bits; 0 if it was not computed.
        images: By image slot, the images of the prompt; empty for a text-only row.
        prompt: Messages, with as many image parts as ``images`` has images.
        chosen: Preferred response.
        rejected: Dispreferred response.
    """

    index: int
    digest: int
    images: dict[str, list[Image.Image]]
    prompt: list[Message]
    chosen: str
    rejected: str


class PreferenceDataset(Dataset[Example]):
    """Rows with true and rejected images.

    Attributes:
        rows: The rows, as read.
        indices: Which of them are used, in order.
        image_slots: Image slots of each example: ``chosen``, and ``rejected`` if it is needed.
        lengths: Tokens of each pair, in the order of ``indices``; None if not counted.
        digests: Hash of texts and pixels of each pair, in that order; None if not computed.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        image_root: Path | None,
        rejected_image: Corruption | str,
        seed: int,
        per_epoch: bool = False,
        image_condition: ImageCondition = "true",
        image_slots: Sequence[str] = ("chosen", "rejected"),
        indices: Sequence[int] | None = None,
        donors: Sequence[int] = (),
        lengths: Sequence[int] | None = None,
        digests: Sequence[int] | None = None,
    ) -> None:
        """Set up without reading an image.

        Args:
            rows: The rows, as read.
            image_root: Folder that image paths are relative to and must stay in.
            rejected_image: From ``make_rejected_image_source``.
            seed: Of all draws.
            per_epoch: Whether rejected images are drawn anew in each epoch.
            image_condition: ``true`` shows each row its images, ``none`` none, ``swapped`` those
                of other rows.
            image_slots: Image slots of each example.
            indices: Rows to use; None uses all.
            donors: Rows whose images may stand in for others'; rows with a checked image.
            lengths: Tokens of each pair, in the order of ``indices``.
            digests: Hash of texts and pixels of each pair, in that order.

        Raises:
            ValueError: If another row's image is asked for and fewer than two rows have one.
        """
        self.rows, self.image_root, self.rejected_image = rows, image_root, rejected_image
        self.seed, self.per_epoch, self.image_condition = seed, per_epoch, image_condition
        self.image_slots = tuple(image_slots)
        self.indices = list(range(len(rows)) if indices is None else indices)
        self.donors = list(donors)
        self.lengths = None if lengths is None else list(lengths)
        self.digests = None if digests is None else list(digests)
        # Shared memory, so that worker processes which live through epochs see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        borrows = image_condition == "swapped" or (
            rejected_image == "random_image" and "rejected" in self.image_slots
        )
        if borrows and len(self.donors) < 2:
            raise ValueError(
                "Images of other rows need at least two rows with an image, got "
                f"{len(self.donors)}. Take another `corruption` or `image_condition`."
            )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.indices)

    def __getitem__(self, position: int) -> Example:
        """Read a pair and its images, and draw its rejected ones."""
        row = self.rows[self.indices[position]]
        prompt, images = list(row.prompt), self.true_images(row)
        if self.image_condition == "none":
            prompt, images = without_images(prompt), []
        elif self.image_condition == "swapped":
            images = [self._from_other_row(row, k, "swapped") for k in range(len(images))]
        by_slot = {"chosen": images}
        if "rejected" in self.image_slots:
            by_slot["rejected"] = self._rejected(row, images)
        if NO_IMAGE in self.image_slots:
            by_slot[NO_IMAGE] = []
        return Example(
            index=self.indices[position],
            digest=0 if self.digests is None else self.digests[position],
            images=by_slot,
            prompt=prompt,
            chosen=row.chosen,
            rejected=row.rejected,
        )

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch draws are for; matters only if they differ between epochs.

        Args:
            epoch: Counted from 0.
        """
        self._epoch.fill_(epoch)

    def true_images(self, row: PreferenceRow) -> list[Image.Image]:
        """Decode the images of a row.

        Args:
            row: One of ``rows``.

        Returns:
            RGB images.
        """
        return [open_image(source, root=self.image_root) for source in row.images]

    def _rejected(self, row: PreferenceRow, images: list[Image.Image]) -> list[Image.Image]:
        """Get the rejected images of a row: its own if it brings any, else made ones."""
        if not images:
            return []
        if row.rejected_images is not None:
            return [open_image(each, root=self.image_root) for each in row.rejected_images]
        if self.rejected_image == "provided":
            raise RowError(
                place=row.place,
                field="rejected_images",
                problem="must be given with `corruption` 'provided', got none",
                remedy="Fill the column or take another `corruption`.",
            )
        if isinstance(self.rejected_image, str):
            return [self._from_other_row(row, k, "rejected") for k in range(len(images))]
        corrupt = self.rejected_image
        return [
            corrupt(image, self._generator(row, k, "rejected")) for k, image in enumerate(images)
        ]

    def _from_other_row(self, row: PreferenceRow, number: int, purpose: str) -> Image.Image:
        """Draw an image of another row that differs from this row's own."""
        generator = self._generator(row, number, purpose)
        own = open_image(row.images[number], root=self.image_root)
        for _ in range(MAX_DONOR_DRAWS):
            donor = self.rows[self.donors[generator.integers(len(self.donors))]]
            if donor.row_id == row.row_id:
                continue
            image = open_image(donor.images[0], root=self.image_root)
            # Several rows may ask about one picture: another row is not yet another image.
            if image.size != own.size or not np.array_equal(np.asarray(image), np.asarray(own)):
                return image
        raise RowError(
            place=row.place,
            field="images",
            problem=f"must differ from those of other rows, got the same in {MAX_DONOR_DRAWS}",
            remedy="Take another `corruption` than random_image.",
        )

    def _generator(self, row: PreferenceRow, number: int, purpose: str) -> np.random.Generator:
        """Make the generator of one draw for a row."""
        epoch = int(self._epoch) if self.per_epoch and purpose == "rejected" else None
        return row_generator(purpose, seed=self.seed, row_id=row.row_id, epoch=epoch, number=number)


def without_images(prompt: Sequence[Message]) -> list[Message]:
    """Take the image parts out of a prompt.

    Args:
        prompt: Messages with parts.

    Returns:
        The same messages, text only.
    """
    return [
        {**message, "content": [part for part in message["content"] if part["type"] != "image"]}
        for message in prompt
    ]
