"""Tiny random models of three families, each with its processor; nothing is downloaded.

What differs between them is what scorers can get wrong: kind of positions, grouped heads, partial
rotation, biases, images of fixed and of varying numbers of tokens. Weights are large enough for
log-probabilities to depend visibly on image and position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PhiConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import (
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mdpo.playground.vlm import CHAT_TEMPLATE, build_processor

PATCH = 8
SIDE = 24
"""Pixels of a square picture for LLaVA and Bunny: 9 image tokens."""

QWEN_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
QWEN_TEMPLATE = CHAT_TEMPLATE.replace(
    "<image>\n", "<|vision_start|><|image_pad|><|vision_end|>"
).replace("</s>", "</s>\n")


class ImagesOnlyProcessor(Qwen2_5_VLProcessor):
    """Qwen's processor without the part for videos, which needs torchvision."""

    def __init__(
        self,
        image_processor: Any,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str | None = None,
    ) -> None:
        _, self.image_token, _, self.video_token = QWEN_TOKENS
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


@dataclass(frozen=True)
class Family:
    """How to build a model and what prepares its inputs."""

    name: str
    processor: Any
    config: Callable[[], Any]
    model_class: type[PreTrainedModel]

    def model(self, *, attention: str = "sdpa", seed: int = 0) -> PreTrainedModel:
        """A model in float32; equal seeds give equal weights."""
        config = self.config()
        config._attn_implementation = attention
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.model_class(config)
            randomize(model)
        return model


def randomize(model: nn.Module) -> None:
    """Draw all weights, biases and norms included, so that no layer is near the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                is_scale = bool(parameter.mean() > 0.5)
                parameter.normal_(float(is_scale), 0.2)
            else:
                parameter.normal_(0.0, 1.5 / parameter[0].numel() ** 0.5)
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, 0.5)


def tiny_llava(texts: Sequence[str]) -> Family:
    """CLIP tower, last layer without class token, Llama; the head is the embedding."""
    processor = build_processor(texts, vocabulary_size=300)
    processor.image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )

    def config() -> LlavaConfig:
        return LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=SIDE,
                patch_size=PATCH,
            ),
            text_config=LlamaConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                **vocabulary(processor),
            ),
            image_token_index=processor.image_token_id,
            image_seq_length=(SIDE // PATCH) ** 2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )

    return Family("llava", processor, config, LlavaForConditionalGeneration)


def tiny_bunny(texts: Sequence[str]) -> Family:
    """SigLIP tower, last layer but one with all its tokens, Phi: partial rotation and biases."""
    base = build_processor(texts, vocabulary_size=300)
    processor = LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=base.tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )

    def config() -> LlavaConfig:
        return LlavaConfig(
            vision_config=SiglipVisionConfig(
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=SIDE,
                patch_size=PATCH,
                vision_use_head=False,
            ),
            text_config=PhiConfig(
                hidden_size=40,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 10.0,
                    "partial_rotary_factor": 0.4,
                },
                resid_pdrop=0.1,
                max_position_embeddings=256,
                **vocabulary(processor),
            ),
            image_token_index=processor.image_token_id,
            image_seq_length=(SIDE // PATCH) ** 2,
            vision_feature_layer=-2,
            vision_feature_select_strategy="full",
            projector_hidden_act="gelu",
        )

    return Family("bunny", processor, config, LlavaForConditionalGeneration)


def tiny_qwen(texts: Sequence[str]) -> Family:
    """Window-attention tower, patch merger, Qwen2.5: positions of three axes, grouped heads."""
    tokenizer = build_processor(texts, vocabulary_size=300).tokenizer
    tokenizer.add_tokens(list(QWEN_TOKENS), special_tokens=True)
    processor = ImagesOnlyProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=16**2, max_pixels=32**2
        ),
        tokenizer=tokenizer,
        chat_template=QWEN_TEMPLATE,
    )
    start, image, end, video = tokenizer.convert_tokens_to_ids(list(QWEN_TOKENS))

    def config() -> Qwen2_5_VLConfig:
        return Qwen2_5_VLConfig(
            vision_config=Qwen2_5_VLVisionConfig(
                depth=2,
                hidden_size=32,
                intermediate_size=48,
                num_heads=2,
                patch_size=4,
                window_size=16,
                fullatt_block_indexes=[1],
                out_hidden_size=64,
            ),
            text_config=Qwen2_5_VLTextConfig(
                hidden_size=64,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                # A small base turns all axes visibly within the length of a test.
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 10.0,
                    "mrope_section": [4, 2, 2],
                },
                **vocabulary(processor),
            ),
            image_token_id=image,
            video_token_id=video,
            vision_start_token_id=start,
            vision_end_token_id=end,
        )

    return Family("qwen", processor, config, Qwen2_5_VLForConditionalGeneration)


def vocabulary(processor: Any) -> dict[str, Any]:
    """Size and special tokens, as a text config takes them."""
    tokenizer = processor.tokenizer
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


FAMILIES: dict[str, Callable[[Sequence[str]], Family]] = {
    "llava": tiny_llava,
    "qwen": tiny_qwen,
    "bunny": tiny_bunny,
}
