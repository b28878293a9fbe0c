"""InternVL, Aya Vision and Ovis2: an image as a number of square tiles and a thumbnail."""

from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    Cohere2Config,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    Ovis2Config,
    Ovis2ForConditionalGeneration,
    Ovis2Processor,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil

from mdpo.conformance.tiny.base import (
    TinyModel,
    byte_tokenizer,
    chat_template,
    decoder,
    token_id,
    tower,
)
from mdpo.models.processors import NoVideos

PATCH, SIDE = 8, 32
TILE = {"height": SIDE, "width": SIDE}


def internvl() -> TinyModel:
    """InternViT, pixels shuffled into channels, Qwen2.

    Returns:
        4 tokens per tile.
    """
    context = "<IMG_CONTEXT>"
    tokenizer = byte_tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token=context,
        video_token="<video>",
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            size=TILE, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=NoVideos(),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
        chat_template=chat_template(context + "\n"),
    )
    config = InternVLConfig(
        vision_config=tower(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH]),
        text_config=Qwen2Config(**decoder(tokenizer)).to_dict(),
        image_token_id=token_id(tokenizer, context),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    return TinyModel(config, InternVLForConditionalGeneration, processor)


def aya_vision() -> TinyModel:
    """SigLIP, pixels shuffled into channels, Cohere2 with windows of attention.

    Returns:
        4 tokens per tile.
    """
    image, patch = "<image>", "<|IMG_PATCH|>"
    special = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL")
    names = [f"TILE_{number}" for number in range(1, 9)]
    tokenizer = byte_tokenizer((*special, patch, *names), image_token=image)
    processor = AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            size=TILE, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        img_size=SIDE,
        downsample_factor=2,
        chat_template=chat_template(image + "\n"),
    )
    config = AyaVisionConfig(
        vision_config=SiglipVisionConfig(
            **tower(), image_size=SIDE, patch_size=PATCH, vision_use_head=False
        ),
        text_config=Cohere2Config(
            **decoder(tokenizer, sliding_window_pattern=2), sliding_window=16, logit_scale=0.5
        ),
        downsample_factor=2,
        image_token_index=token_id(tokenizer, patch),
    )
    return TinyModel(config, AyaVisionForConditionalGeneration, processor)


def ovis2() -> TinyModel:
    """A tower that gives each patch a distribution over visual words, Qwen2.

    Returns:
        A number of tokens per tile, with tokens for rows and columns between them.
    """
    image = "<image>"
    indicators = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    tokenizer = byte_tokenizer((*indicators, "<IMG_ATOM>"), image_token=image)
    processor = Ovis2Processor(
        image_processor=Ovis2ImageProcessorPil(
            size=TILE, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=chat_template(image + "\n"),
    )
    config = Ovis2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vocab_size": 40,
            "hidden_stride": 2,
            "num_visual_indicator_tokens": 5,
        },
        text_config=Qwen2Config(**decoder(tokenizer)).to_dict(),
        image_token_id=token_id(tokenizer, "<IMG_ATOM>"),
        visual_indicator_token_ids=[token_id(tokenizer, each) for each in indicators],
        vocab_size=len(tokenizer),
        hidden_size=64,
    )
    return TinyModel(config, Ovis2ForConditionalGeneration, processor)
