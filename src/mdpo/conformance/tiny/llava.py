"""LLaVA-1.5, Bunny, LLaVA-NeXT and LLaVA-OneVision: a tower, an MLP, a decoder."""

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    PhiConfig,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

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
GRID = [[32, 64], [64, 32], [64, 64]]
IMAGE = "<image>"
CROP = {"height": SIDE, "width": SIDE}


def llava() -> TinyModel:
    """CLIP, all patches but the class token of the last layer but one, Llama.

    Returns:
        16 tokens per image.
    """
    tokenizer = byte_tokenizer(image_token=IMAGE)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=CROP),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template(IMAGE + "\n"),
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **tower(num_hidden_layers=3), image_size=SIDE, patch_size=PATCH
        ),
        text_config=LlamaConfig(**decoder(tokenizer)),
        image_token_index=token_id(tokenizer, IMAGE),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return TinyModel(config, LlavaForConditionalGeneration, processor)


def bunny() -> TinyModel:
    """SigLIP without its head, all patches of the last layer, Phi with partial rotation.

    Returns:
        16 tokens per image.
    """
    tokenizer = byte_tokenizer(image_token=IMAGE)
    processor = LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            do_pad=True,
            size=CROP,
            do_center_crop=False,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=chat_template(IMAGE + "\n"),
    )
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            **tower(), image_size=SIDE, patch_size=PATCH, vision_use_head=False
        ),
        text_config=PhiConfig(
            **decoder(tokenizer, num_key_value_heads=4, partial_rotary_factor=0.5),
            resid_pdrop=0.1,
        ),
        image_token_index=token_id(tokenizer, IMAGE),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        projector_hidden_act="gelu",
    )
    return TinyModel(config, LlavaForConditionalGeneration, processor)


def llava_next() -> TinyModel:
    """CLIP on the whole image and on tiles of it, put together without padding, Llama.

    Returns:
        A number of tokens per image that depends on its shape.
    """
    tokenizer = byte_tokenizer(image_token=IMAGE)
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size=CROP, image_grid_pinpoints=GRID
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template(IMAGE + "\n"),
    )
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**tower(), image_size=SIDE, patch_size=PATCH),
        text_config=LlamaConfig(**decoder(tokenizer)),
        image_token_index=token_id(tokenizer, IMAGE),
        image_grid_pinpoints=GRID,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return TinyModel(config, LlavaNextForConditionalGeneration, processor)


def llava_onevision() -> TinyModel:
    """SigLIP on the whole image and on tiles, shrunk to a limit, Qwen2.

    Returns:
        A number of tokens per image that depends on its shape.
    """
    tokenizer = byte_tokenizer(image_token=IMAGE, video_token="<video>")
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(size=CROP, image_grid_pinpoints=GRID),
        tokenizer=tokenizer,
        video_processor=NoVideos(),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=chat_template(IMAGE + "\n"),
    )
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            **tower(), image_size=SIDE, patch_size=PATCH, vision_use_head=False
        ),
        text_config=Qwen2Config(**decoder(tokenizer)),
        image_token_index=token_id(tokenizer, IMAGE),
        video_token_index=token_id(tokenizer, "<video>"),
        image_grid_pinpoints=GRID,
    )
    return TinyModel(config, LlavaOnevisionForConditionalGeneration, processor)
