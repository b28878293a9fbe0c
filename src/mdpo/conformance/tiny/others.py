"""DeepSeek-VL and Llama 3.2 Vision."""

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLProcessor,
    LlamaConfig,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    SiglipVisionConfig,
)
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import (
    DeepseekVLImageProcessorPil,
)
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from mdpo.conformance.tiny.base import (
    TinyModel,
    byte_tokenizer,
    chat_template,
    decoder,
    token_id,
    tower,
)

PATCH, SIDE = 8, 32


def deepseek_vl() -> TinyModel:
    """SigLIP, an aligner, Llama.

    Returns:
        16 tokens per image.
    """
    image = "<image_placeholder>"
    tokenizer = byte_tokenizer(image_token=image)
    processor = DeepseekVLProcessor(
        image_processor=DeepseekVLImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, min_size=4
        ),
        tokenizer=tokenizer,
        num_image_tokens=(SIDE // PATCH) ** 2,
        chat_template=chat_template(image),
    )
    config = DeepseekVLConfig(
        vision_config=SiglipVisionConfig(
            **tower(), image_size=SIDE, patch_size=PATCH, vision_use_head=False
        ).to_dict(),
        text_config=LlamaConfig(**decoder(tokenizer)).to_dict(),
        image_token_id=token_id(tokenizer, image),
        tie_word_embeddings=False,
    )
    return TinyModel(config, DeepseekVLForConditionalGeneration, processor)


def mllama() -> TinyModel:
    """A tower of tiles that some layers of the decoder attend to across, Llama.

    Returns:
        One token per image; the features stay outside of the sequence.
    """
    image = "<|image|>"
    tokenizer = byte_tokenizer(("<|python_tag|>",), image_token=image)
    processor = MllamaProcessor(
        image_processor=MllamaImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, max_image_tiles=2
        ),
        tokenizer=tokenizer,
        chat_template=chat_template(image),
    )
    config = MllamaConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "intermediate_size": 48,
            "vision_output_dim": 64,
            "image_size": SIDE,
            "patch_size": PATCH,
            "max_num_tiles": 2,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        text_config=decoder(
            tokenizer,
            num_hidden_layers=3,
            cross_attention_layers=[1],
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        ),
        image_token_index=token_id(tokenizer, image),
    )
    return TinyModel(config, MllamaForConditionalGeneration, processor)
