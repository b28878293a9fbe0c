"""Collation: examples in, one ``Batch`` out."""

import hashlib
from collections.abc import Sequence

import torch
from PIL import Image

from mdpo.data.batch import Batch, Inputs, Passes
from mdpo.data.dataset import NO_IMAGE, Example, without_images
from mdpo.data.encoding import Encoder
from mdpo.data.passes import PassPlanner


class PreferenceCollator:
    """Encodes examples and pads them to a batch.

    The prompt is processed once per image slot, the responses once; candidates are laid out from
    these by the scorer. For two rows, one image slot and responses of 3 and 2 tokens::

        prompts:   {"chosen": {"input_ids": (2, p), "attention_mask": (2, p), "pixel_values": ...}}
        responses: {"chosen": {"input_ids": [[5, 6, 2], [7, 2, 0]],
                               "attention_mask": [[1, 1, 1], [1, 1, 0]]}, "rejected": {...}}

    Attributes:
        encoder: Of the model.
        max_length: Longest row, in tokens, image tokens included; the end of a longer response is
            cut. None cuts nothing. Prompts are never cut.
    """

    def __init__(self, encoder: Encoder, *, max_length: int | None = None) -> None:
        """Keep the encoder and the limit."""
        self.encoder, self.max_length = encoder, max_length

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Collate examples.

        Args:
            examples: Of ``PreferenceDataset``; all with the same image slots.

        Returns:
            A batch on the CPU.
        """
        prompts = {slot: self._prompts(examples, slot) for slot in examples[0]["images"]}
        lengths = torch.stack([each["attention_mask"].sum(dim=1) for each in prompts.values()])
        room = self._room(lengths.amax(dim=0).tolist(), examples)
        responses = {
            slot: self.encoder.responses(
                [
                    self.encoder.response_ids(example["prompt"], example[slot])[:limit]
                    for example, limit in zip(examples, room, strict=True)
                ]
            )
            for slot in ("chosen", "rejected")
        }
        batch = Batch(
            prompts=prompts,
            responses=responses,
            image_keys={
                slot: [image_key(image) for each in examples for image in each["images"][slot]]
                for slot in examples[0]["images"]
            },
            has_image=torch.tensor([bool(example["images"]["chosen"]) for example in examples]),
            rows=torch.tensor([example["index"] for example in examples]),
            digests=torch.tensor([example["digest"] for example in examples]),
        )
        batch["image_units"] = {
            slot: units for slot in prompts if (units := self._units(examples, slot, prompts[slot]))
        }
        return batch

    def _units(self, examples: Sequence[Example], slot: str, prompt: Inputs) -> list[int] | None:
        """Count the rows of pixels of each image of a slot."""
        images = [image for example in examples for image in example["images"][slot]]
        if not images or "pixel_values" not in prompt:
            return None
        return self.encoder.image_units(images, len(prompt["pixel_values"]))

    def _prompts(self, examples: Sequence[Example], slot: str) -> Inputs:
        """Encode the prompts with the images of one slot."""
        messages = [example["prompt"] for example in examples]
        if slot == NO_IMAGE:
            messages = [without_images(each) for each in messages]
        texts = [self.encoder.prompt_text(each) for each in messages]
        return self.encoder.prompts(texts, [example["images"][slot] for example in examples])

    def _room(self, prompt_lengths: list[int], examples: Sequence[Example]) -> list[int | None]:
        """Work out how many response tokens each row may have.

        Args:
            prompt_lengths: Of the rows, in tokens.
            examples: For the message.

        Returns:
            Numbers of tokens; None where any number will do.

        Raises:
            ValueError: If ``max_length`` leaves a row without response tokens.
        """
        if self.max_length is None:
            return [None] * len(examples)
        for length, example in zip(prompt_lengths, examples, strict=True):
            if length >= self.max_length:
                raise ValueError(
                    f"Row {example['index']} has no response token left: its prompt has {length} "
                    f"tokens, `max_length` is {self.max_length}. Raise it or drop the row."
                )
        return [self.max_length - length for length in prompt_lengths]


class PassCollator:
    """Collates a batch as several that go through the model one after the other.

    Attributes:
        collator: Of each pass.
        planner: Splits a batch.
    """

    def __init__(self, collator: PreferenceCollator, planner: PassPlanner) -> None:
        """Keep both."""
        self.collator, self.planner = collator, planner

    def __call__(self, examples: Sequence[Example]) -> Passes:
        """Collate examples.

        Args:
            examples: Of ``PreferenceDataset``; all with the same image slots.

        Returns:
            Batches on the CPU.
        """
        passes = [self.collator(each) for each in self.planner(examples)]
        return Passes(rows=torch.cat([each["rows"] for each in passes]), passes=passes)


def image_key(image: Image.Image) -> int:
    """Hash an image by its pixels.

    Args:
        image: Decoded.

    Returns:
        A signed number of 64 bits.
    """
    digest = hashlib.blake2b(f"{image.mode}{image.size}".encode(), digest_size=8)
    digest.update(image.tobytes())
    return int.from_bytes(digest.digest(), "big", signed=True)
