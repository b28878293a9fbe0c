"""What collation hands to scoring. A plain dict, because ``Trainer`` moves dicts to the device.

Shapes: ``b`` rows of the batch, ``p`` prompt tokens, ``r`` response tokens.
"""

from collections.abc import Mapping
from typing import TypedDict

from torch import Tensor

SEQUENCE_KEYS: tuple[str, ...] = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "cross_attention_mask",
)
"""Outputs of a processor that run along the tokens; everything else belongs to the images."""

REPEATED_KEYS: tuple[str, ...] = ("cross_attention_mask",)
"""Those of which a response token has what the last token of its prompt has, as in generation."""

Inputs = dict[str, Tensor]
"""Arguments of a model's ``forward``, ``input_ids`` and ``attention_mask`` among them."""


class ImageUnits(TypedDict, total=False):
    """What a batch has where images take several rows of pixels each.

    Attributes:
        image_units: By image slot, how many rows of ``pixel_values`` each image takes.
    """

    image_units: Mapping[str, list[int]]


class Batch(ImageUnits):
    """Preference pairs, ready for the model.

    Attributes:
        prompts: By image slot: the prompt with that slot's images, as the processor gives it.
            Sequence keys are ``(b, p)``, padded on either side, the mask says where.
        responses: By response slot: ``input_ids`` and ``attention_mask``, each ``(b, r)``,
            padded on the right, and ``token_type_ids`` where those of a response are not 0. They
            end with the end-of-turn token.
        image_keys: By image slot, a hash of the pixels of each of its images, in the order of the
            rows: equal for equal images.
        has_image: ``(b,)``, whether the row has an image.
        rows: ``(b,)``, index of each row in its data set.
        digests: ``(b,)``, hash of the texts and pixels of each row.
    """

    prompts: Mapping[str, Inputs]
    responses: Mapping[str, Inputs]
    image_keys: Mapping[str, list[int]]
    has_image: Tensor
    rows: Tensor
    digests: Tensor


class Passes(TypedDict):
    """A batch that is worked through in several passes.

    Attributes:
        rows: ``(b,)``, index of each row in its data set, in the order of the passes. First,
            because libraries read the size of a batch off its first tensor.
        passes: The parts; each pair is in one.
    """

    rows: Tensor
    passes: list[Batch]
