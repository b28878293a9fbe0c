"""Processors: image preprocessing of the original code, and its prompt."""

from collections.abc import Mapping
from typing import Any

from transformers import LlavaImageProcessorPil, LlavaProcessor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mdpo.models.conversion.prompts import IMAGE_TOKEN, vicuna_template

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def bunny_processor(
    tokenizer: PreTrainedTokenizerBase, vision: Mapping[str, Any], *, pad: bool
) -> LlavaProcessor:
    """Build the processor of a Bunny.

    Args:
        tokenizer: With the image token.
        vision: Sizes of the tower.
        pad: Whether images are padded to squares, in grey, before they are resized.

    Returns:
        The processor; Pillow resizes, as in the original.
    """
    square = _square(vision)
    images = LlavaImageProcessorPil(
        do_pad=pad,
        size=square,
        crop_size=square,
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return _processor(images, tokenizer, vision, strategy="full", num_additional=0)


def llava_processor(
    tokenizer: PreTrainedTokenizerBase, vision: Mapping[str, Any], *, pad: bool
) -> LlavaProcessor:
    """Build the processor of a LLaVA.

    Args:
        tokenizer: With the image token.
        vision: Sizes of the tower.
        pad: Whether images are padded to squares, in CLIP's mean colour; otherwise their middle
            is cut out.

    Returns:
        The processor; Pillow resizes, as in the original.
    """
    images = LlavaImageProcessorPil(
        do_pad=pad,
        size={"shortest_edge": vision["image_size"]},
        crop_size=_square(vision),
        do_center_crop=True,
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    return _processor(images, tokenizer, vision, strategy="default", num_additional=1)


def _square(vision: Mapping[str, Any]) -> dict[str, int]:
    """Height and width that the tower takes."""
    return {"height": vision["image_size"], "width": vision["image_size"]}


def _processor(
    images: LlavaImageProcessorPil,
    tokenizer: PreTrainedTokenizerBase,
    vision: Mapping[str, Any],
    *,
    strategy: str,
    num_additional: int,
) -> LlavaProcessor:
    """Put the parts together."""
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision["patch_size"],
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=num_additional,
        image_token=IMAGE_TOKEN,
        chat_template=vicuna_template(str(tokenizer.eos_token)),
    )
