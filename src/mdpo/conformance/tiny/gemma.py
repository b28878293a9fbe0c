"""Gemma 3 and PaliGemma: image tokens attend to each other in both directions."""

from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mdpo.conformance.tiny.base import (
    TinyModel,
    byte_tokenizer,
    chat_template,
    decoder,
    token_id,
    tower,
)

PATCH, SIDE = 8, 32


def gemma3() -> TinyModel:
    """SigLIP averaged to few tokens, Gemma 3 with windows of attention.

    Returns:
        4 tokens per image.
    """
    begin, image, end = "<start_of_image>", "<image_soft_token>", "<end_of_image>"
    tokenizer = byte_tokenizer(boi_token=begin, image_token=image, eoi_token=end)
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=chat_template(begin),
    )
    config = Gemma3Config(
        vision_config=tower(image_size=SIDE, patch_size=PATCH, vision_use_head=False),
        text_config=decoder(
            tokenizer,
            num_hidden_layers=3,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        mm_tokens_per_image=4,
        boi_token_index=token_id(tokenizer, begin),
        eoi_token_index=token_id(tokenizer, end),
        image_token_index=token_id(tokenizer, image),
    )
    return TinyModel(config, Gemma3ForConditionalGeneration, processor)


def paligemma() -> TinyModel:
    """SigLIP, Gemma 2 with a cap on logits; the whole prompt attends in both directions.

    Returns:
        16 tokens per image.
    """
    image = "<image>"
    tokenizer = byte_tokenizer(image_token=image)
    pixels: Any = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    pixels.image_seq_length = (SIDE // PATCH) ** 2
    processor = PaliGemmaProcessor(
        image_processor=pixels, tokenizer=tokenizer, chat_template=chat_template(image)
    )
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            **tower(projection_dim=64), image_size=SIDE, patch_size=PATCH, vision_use_head=False
        ).to_dict(),
        text_config=Gemma2Config(
            **decoder(tokenizer), head_dim=16, query_pre_attn_scalar=16, sliding_window=512
        ).to_dict(),
        projection_dim=64,
        hidden_size=64,
        image_token_index=token_id(tokenizer, image),
        vocab_size=len(tokenizer),
    )
    return TinyModel(config, PaliGemmaForConditionalGeneration, processor, eager_only=True)
