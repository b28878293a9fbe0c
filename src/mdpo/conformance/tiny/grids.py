"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and GLM-4.1V: images of any size, positions of three axes."""

from typing import Any

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mdpo.conformance.tiny.base import TinyModel, byte_tokenizer, chat_template, decoder, token_id
from mdpo.models.processors import NoVideos

PATCH = 8
START, IMAGE, END, VIDEO = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"
PIXELS: dict[str, Any] = {
    "patch_size": PATCH,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 32**2, "longest_edge": 96**2},
}
# A small base turns all three axes visibly within a short row.
ROPE = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [4, 2, 2]}


def qwen2_vl() -> TinyModel:
    """Tower of full attention with merged patches, Qwen2.

    Returns:
        One token per 16 by 16 pixels.
    """
    return _qwen(
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLProcessor,
        tower={"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2},
    )


def qwen2_5_vl() -> TinyModel:
    """Tower with windows of attention, Qwen2.5.

    Returns:
        One token per 16 by 16 pixels.
    """
    return _qwen(
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        tower={
            "hidden_size": 32,
            "intermediate_size": 48,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
        },
    )


def qwen3_vl() -> TinyModel:
    """Tower whose inner layers reach into the decoder (deepstack), Qwen3.

    Returns:
        One token per 16 by 16 pixels.
    """
    return _qwen(
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        tower={
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        text={"head_dim": 16, "rope_parameters": ROPE | {"mrope_interleaved": True}},
    )


def glm4v() -> TinyModel:
    """Tower with interpolated positions, GLM-4.

    Returns:
        One token per 16 by 16 pixels.
    """
    start, image, end = "<|begin_of_image|>", "<|image|>", "<|end_of_image|>"
    tokenizer = byte_tokenizer(
        (start, end, "<|begin_of_video|>", "<|end_of_video|>"),
        image_token=image,
        video_token="<|video|>",
    )
    processor = Glm4vProcessor(
        image_processor=Glm4vImageProcessorPil(**PIXELS),
        tokenizer=tokenizer,
        video_processor=NoVideos(merge_size=2, temporal_patch_size=2),
        chat_template=chat_template(start + image + end),
    )
    config = Glm4vConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "image_size": 64,
            "patch_size": PATCH,
            "out_hidden_size": 64,
        },
        text_config=decoder(tokenizer, rope_parameters=ROPE | {"partial_rotary_factor": 1.0}),
        image_token_id=token_id(tokenizer, image),
        video_token_id=token_id(tokenizer, "<|video|>"),
        image_start_token_id=token_id(tokenizer, start),
        image_end_token_id=token_id(tokenizer, end),
        video_start_token_id=token_id(tokenizer, "<|begin_of_video|>"),
        video_end_token_id=token_id(tokenizer, "<|end_of_video|>"),
    )
    return TinyModel(config, Glm4vForConditionalGeneration, processor)


def _tokenizer() -> PreTrainedTokenizerFast:
    """With the tokens that stand around and for an image."""
    return byte_tokenizer((START, END), image_token=IMAGE, video_token=VIDEO)


def _qwen(
    config_class: Any,
    model_class: Any,
    processor_class: Any,
    *,
    tower: dict[str, Any],
    text: dict[str, Any] | None = None,
) -> TinyModel:
    """Build one of Qwen's families."""
    tokenizer = _tokenizer()
    processor = processor_class(
        image_processor=Qwen2VLImageProcessorPil(**PIXELS),
        tokenizer=tokenizer,
        video_processor=NoVideos(merge_size=2, temporal_patch_size=2),
        chat_template=chat_template(START + IMAGE + END),
    )
    start, image, end, video = (token_id(tokenizer, each) for each in (START, IMAGE, END, VIDEO))
    config = config_class(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": PATCH} | tower,
        text_config=decoder(tokenizer, rope_parameters=ROPE) | (text or {}),
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    return TinyModel(config, model_class, processor)
