"""SmolVLM, Idefics3 and Idefics2: images with a mask of their pixels, by row of text."""

from typing import Any

from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

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
IMAGE = "<image>"


def idefics3() -> TinyModel:
    """SigLIP on tiles and the whole image, pixels shuffled into channels, Llama.

    Returns:
        4 tokens per tile.
    """
    tokenizer = _tokenizer()
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(**_tiles()),
        tokenizer=tokenizer,
        image_seq_len=(SIDE // PATCH // 2) ** 2,
        chat_template=chat_template(IMAGE),
    )
    return TinyModel(
        _config(Idefics3Config, tokenizer), Idefics3ForConditionalGeneration, processor
    )


def smolvlm() -> TinyModel:
    """As Idefics3, in its own classes.

    Returns:
        4 tokens per tile.
    """
    tokenizer = _tokenizer()
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessorPil(**_tiles()),
        tokenizer=tokenizer,
        video_processor=NoVideos(),
        image_seq_len=(SIDE // PATCH // 2) ** 2,
        chat_template=chat_template(IMAGE),
    )
    return TinyModel(_config(SmolVLMConfig, tokenizer), SmolVLMForConditionalGeneration, processor)


def idefics2() -> TinyModel:
    """SigLIP at the image's own shape, a Perceiver, Mistral.

    Returns:
        4 tokens per image.
    """
    tokenizer = _tokenizer()
    processor = Idefics2Processor(
        image_processor=Idefics2ImageProcessorPil(
            size={"shortest_edge": 16, "longest_edge": 64}, do_image_splitting=False
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=chat_template(IMAGE),
    )
    config = Idefics2Config(
        vision_config=tower(image_size=64, patch_size=PATCH),
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
        text_config=decoder(tokenizer, model_type="mistral", sliding_window=None),
        image_token_id=token_id(tokenizer, IMAGE),
    )
    return TinyModel(config, Idefics2ForConditionalGeneration, processor)


def _tokenizer() -> PreTrainedTokenizerFast:
    """With the tokens that name a tile's place."""
    places = [f"<row_{row + 1}_col_{column + 1}>" for row in range(6) for column in range(6)]
    special = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *places)
    named = {
        "image_token": IMAGE,
        "fake_image_token": special[0],
        "image_boundary_token": special[0],
        "end_of_utterance_token": special[1],
        "global_image_token": special[2],
    }
    return byte_tokenizer(special, **named)


def _tiles() -> dict[str, Any]:
    """Arguments of an image processor."""
    return {
        "size": {"longest_edge": 2 * SIDE},
        "max_image_size": {"longest_edge": SIDE},
        "do_image_splitting": True,
    }


def _config(config_class: Any, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Write the config of Idefics3 or SmolVLM."""
    return config_class(
        vision_config=tower(image_size=SIDE, patch_size=PATCH),
        text_config=decoder(tokenizer, model_type="llama"),
        image_token_id=token_id(tokenizer, IMAGE),
        scale_factor=2,
    )
