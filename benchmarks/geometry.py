"""Shapes of models and rows: LLaVA-1.5 and Qwen2.5-VL, at full, small and tiny width.

Weights are random and texts are made of made words, one token each, so nothing is downloaded.
Small models keep the proportions of the 7B model that decide where time goes: head dimension,
ratio of the feed-forward layer, output head to language model, and the work of encoding an image
to that of a prompt. The last is kept as work, not as parameters: attention and projector weigh
more in a narrow model, so the tower has fewer parameters in turn.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from mdpo.corruptions import make_corruption

Family = Literal["llava-1.5", "qwen2.5-vl"]
Width = Literal["full", "small", "tiny"]
FAMILIES: tuple[Family, ...] = get_args(Family)
WIDTHS: tuple[Width, ...] = get_args(Width)

SPECIAL_TOKENS = (
    "<s>",
    "</s>",
    "<pad>",
    "<user>",
    "<assistant>",
    "<image>",
    "<video>",
    "<image_start>",
    "<image_end>",
)
TURN_TOKENS = 2
"""Tokens that the chat template adds to a prompt: who speaks, and who speaks next."""

NUM_WORDS = 256
MAX_POSITIONS = 32768

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<user> ' if message['role'] == 'user' else '<assistant> ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ ' </s>' if message['role'] == 'assistant' else ' ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@dataclass(frozen=True)
class LanguageShape:
    """Sizes of a decoder with gated feed-forward layers."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    feed_forward: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        """Features of one attention head."""
        return self.hidden // self.heads

    @property
    def linear_layers(self) -> tuple[tuple[int, int], ...]:
        """Input and output features of each linear layer of one decoder layer."""
        queries, keys = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        return (
            (self.hidden, queries),
            (self.hidden, keys),
            (self.hidden, keys),
            (queries, self.hidden),
            (self.hidden, self.feed_forward),
            (self.hidden, self.feed_forward),
            (self.feed_forward, self.hidden),
        )


@dataclass(frozen=True)
class TowerShape:
    """Sizes of an image encoder.

    Attributes:
        hidden: Features per patch.
        layers: Number of layers.
        heads: Attention heads.
        feed_forward: Inner features of the feed-forward layers.
        image_size: Side of the square image, in pixels.
        patch_size: Side of a patch, in pixels.
        full_attention: Layers that attend to the whole image; None means all. The others attend
            within windows (Qwen2.5-VL).
    """

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    image_size: int
    patch_size: int = 14
    full_attention: tuple[int, ...] | None = None

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class TextLengths:
    """How long prompts and responses are, in tokens.

    Attributes:
        prompt: Shortest and longest prompt, image tokens not counted; drawn evenly.
        median_response: Median of the responses, which are lognormal.
        spread: Standard deviation of the logarithm of response lengths; 0 gives the median.
        response: Shortest and longest response; draws beyond are moved to the limit.
        images: Images per row.
    """

    prompt: tuple[int, int] = (20, 90)
    median_response: int = 110
    spread: float = 0.5
    response: tuple[int, int] = (20, 400)
    images: int = 1


@dataclass(frozen=True)
class Geometry:
    """Shape of a model and of the rows it is trained on."""

    family: Family
    language: LanguageShape
    tower: TowerShape
    text: TextLengths

    @property
    def merge(self) -> int:
        """Patches per side that become one token of the language model."""
        return 2 if self.family == "qwen2.5-vl" else 1

    @property
    def image_tokens(self) -> int:
        """Tokens that one image becomes."""
        return (self.tower.patches_per_side // self.merge) ** 2

    @property
    def tokens_around_image(self) -> int:
        """Tokens that mark where an image begins and ends."""
        return 2 if self.family == "qwen2.5-vl" else 0


@dataclass(frozen=True)
class RowLengths:
    """Tokens of one row: prompt with image tokens, and both responses with their end of turn."""

    prompt: int
    chosen: int
    rejected: int


# Encoding an image takes 0.049 of a prompt of 60 words through the language model at full width of
# LLaVA-1.5, 0.046 at small width; for Qwen2.5-VL 0.41 and 0.40 (multiply-adds without attention of
# the language model).
TINY_TEXT = TextLengths(prompt=(6, 12), median_response=10, response=(4, 24))

SHAPES: dict[tuple[Family, Width], tuple[LanguageShape, TowerShape, TextLengths]] = {
    ("llava-1.5", "full"): (
        LanguageShape(4096, 32, 32, 32, 11008, 32064),
        TowerShape(1024, 24, 16, 4096, image_size=336),
        TextLengths(),
    ),
    ("llava-1.5", "small"): (
        LanguageShape(768, 4, 6, 6, 2064, 800),
        TowerShape(128, 2, 2, 512, image_size=336),
        TextLengths(),
    ),
    ("llava-1.5", "tiny"): (
        LanguageShape(128, 2, 2, 2, 344, 320),
        TowerShape(32, 2, 2, 64, image_size=56),
        TINY_TEXT,
    ),
    ("qwen2.5-vl", "full"): (
        LanguageShape(3584, 28, 28, 4, 18944, 152064),
        TowerShape(1280, 32, 16, 3420, image_size=1008, full_attention=(7, 15, 23, 31)),
        TextLengths(),
    ),
    ("qwen2.5-vl", "small"): (
        LanguageShape(768, 3, 6, 1, 4060, 3500),
        TowerShape(160, 4, 2, 428, image_size=1008, full_attention=(3,)),
        TextLengths(),
    ),
    ("qwen2.5-vl", "tiny"): (
        LanguageShape(128, 2, 2, 1, 344, 640),
        TowerShape(32, 2, 2, 64, image_size=112, full_attention=(1,)),
        TINY_TEXT,
    ),
}


def make_geometry(
    family: Family,
    width: Width,
    *,
    image_tokens: int | None = None,
    text: TextLengths | None = None,
) -> Geometry:
    """Look up a geometry.

    Args:
        family: Which model it follows.
        width: How large.
        image_tokens: Tokens per image, to the nearest square number; None keeps the default.
        text: Lengths of prompts and responses; None keeps the default.

    Returns:
        The geometry.
    """
    language, tower, default_text = SHAPES[family, width]
    geometry = Geometry(family, language, tower, text or default_text)
    if image_tokens is not None:
        side = max(1, round(math.sqrt(image_tokens))) * geometry.merge * tower.patch_size
        geometry = dataclasses.replace(geometry, tower=dataclasses.replace(tower, image_size=side))
    return geometry


def make_processor(geometry: Geometry) -> ProcessorMixin:
    """Build a processor whose tokenizer gives one token per word.

    Args:
        geometry: Which family, and how large images are.

    Returns:
        A processor with chat template.
    """
    tokenizer = _make_tokenizer()
    side = geometry.tower.image_size
    if geometry.family == "qwen2.5-vl":
        pixels = Qwen2VLImageProcessorPil(
            patch_size=geometry.tower.patch_size,
            merge_size=geometry.merge,
            # Neither shrunk nor enlarged: the image has the size it is to have.
            size={"shortest_edge": side**2, "longest_edge": side**2},
        )
        template = CHAT_TEMPLATE.replace("IMAGE", "<image_start> <image> <image_end>")
        return ImageOnlyQwenProcessor(pixels, tokenizer, chat_template=template)
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        tokenizer=tokenizer,
        patch_size=geometry.tower.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE.replace("IMAGE", "<image>"),
    )


class ImageOnlyQwenProcessor(Qwen2_5_VLProcessor):
    """The processor of Qwen2.5-VL without a video processor, which would need torchvision."""

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str | None = None,
    ) -> None:
        """Set up what images need; arguments are those of the parent class."""
        self.image_token, self.video_token = "<image>", "<video>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def _make_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer that splits at spaces."""
    names = [*SPECIAL_TOKENS, *(f"w{number}" for number in range(NUM_WORDS))]
    tokenizer = Tokenizer(
        models.WordLevel({name: token for token, name in enumerate(names)}, unk_token="w0")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]  # a property in Rust
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={
            "image_token": "<image>",
            "video_token": "<video>",
            "user_token": "<user>",
            "assistant_token": "<assistant>",
            "image_start_token": "<image_start>",
            "image_end_token": "<image_end>",
        },
        clean_up_tokenization_spaces=False,
    )


def make_model(geometry: Geometry, *, device: str, seed: int) -> PreTrainedModel:
    """Build a model with random weights where it is to run.

    Args:
        geometry: Its shape.
        device: ``cpu`` gives float32, ``cuda`` bfloat16.
        seed: Of the weights.

    Returns:
        The model.
    """
    make_config = {"llava-1.5": _llava_config, "qwen2.5-vl": _qwen_config}[geometry.family]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(seed)
    with torch.device(device):
        return AutoModelForImageTextToText.from_config(make_config(geometry), dtype=dtype)


def _language_arguments(shape: LanguageShape) -> dict[str, Any]:
    """Write a language model's shape as transformers' configurations name it."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "max_position_embeddings": MAX_POSITIONS,
        "bos_token_id": _token_id("<s>"),
        "eos_token_id": _token_id("</s>"),
        "pad_token_id": _token_id("<pad>"),
    }


def _llava_config(geometry: Geometry) -> PreTrainedConfig:
    """Configure a LLaVA-1.5. Features are those of the tower's last layer, so all layers count."""
    tower = geometry.tower
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=tower.hidden,
            intermediate_size=tower.feed_forward,
            num_hidden_layers=tower.layers,
            num_attention_heads=tower.heads,
            image_size=tower.image_size,
            patch_size=tower.patch_size,
        ),
        text_config=LlamaConfig(**_language_arguments(geometry.language)),
        image_token_index=_token_id("<image>"),  # pyright: ignore[reportCallIssue]  # old name, still taken
        image_seq_length=geometry.image_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def _qwen_config(geometry: Geometry) -> PreTrainedConfig:
    """Configure a Qwen2.5-VL; positions are shared out over time, height and width as in the 7B."""
    tower, language = geometry.tower, geometry.language
    half = language.head_dim // 2
    sections = [half // 4, half * 3 // 8, half * 3 // 8]
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": tower.layers,
            "hidden_size": tower.hidden,
            "intermediate_size": tower.feed_forward,
            "num_heads": tower.heads,
            "patch_size": tower.patch_size,
            "out_hidden_size": language.hidden,
            "fullatt_block_indexes": list(tower.full_attention or ()),
        },
        text_config={
            **_language_arguments(language),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": sections,
            },
        },
        image_token_id=_token_id("<image>"),
        video_token_id=_token_id("<video>"),
        vision_start_token_id=_token_id("<image_start>"),
        vision_end_token_id=_token_id("<image_end>"),
        tie_word_embeddings=False,
    )


def _token_id(name: str) -> int:
    """Look up a special token."""
    return SPECIAL_TOKENS.index(name)


def make_rows(
    geometry: Geometry, number: int, *, seed: int
) -> tuple[list[dict[str, Any]], list[RowLengths]]:
    """Make preference rows in TRL's conversational format, with rejected images.

    Rejected images are made here, with the default corruption, so that all sides see the same.

    Args:
        geometry: Sizes of images and texts.
        number: How many rows.
        seed: Of lengths, words and pixels.

    Returns:
        Rows, and how many tokens each has.
    """
    generator = np.random.default_rng(seed)
    corrupt = make_corruption("crop_keep")
    picture = partial(_picture, geometry.tower.image_size, generator)
    text = geometry.text
    rows, lengths = [], []
    for _ in range(number):
        prompt = int(generator.integers(text.prompt[0], text.prompt[1] + 1))
        chosen, rejected = _response_length(text, generator), _response_length(text, generator)
        images = [picture() for _ in range(text.images)]
        rows.append(
            {
                "images": images,
                "rejected_images": [corrupt(image, generator) for image in images],
                "prompt": _message("user", _words(prompt - TURN_TOKENS, generator)),
                "chosen": _message("assistant", _words(chosen - 1, generator)),
                "rejected": _message("assistant", _words(rejected - 1, generator)),
            }
        )
        per_image = geometry.image_tokens + geometry.tokens_around_image
        lengths.append(RowLengths(prompt + text.images * per_image, chosen, rejected))
    return rows, lengths


def _response_length(text: TextLengths, generator: np.random.Generator) -> int:
    """Draw the length of a response."""
    drawn = round(text.median_response * math.exp(text.spread * generator.standard_normal()))
    return min(max(drawn, text.response[0]), text.response[1]) if text.spread else drawn


def _words(number: int, generator: np.random.Generator) -> str:
    """Draw words, each of one token."""
    return " ".join(f"w{word}" for word in generator.integers(0, NUM_WORDS, number))


def _message(role: str, text: str) -> list[dict[str, str]]:
    """Write one message."""
    return [{"role": role, "content": text}]


def _picture(side: int, generator: np.random.Generator) -> Image.Image:
    """Draw a colour gradient with noise."""
    ramp = np.linspace(0, 160, side)
    colours = generator.uniform(0.2, 1.0, 3)
    gradient = (ramp[:, None] + ramp[None, :])[..., None] / 2 * colours
    pixels = gradient + generator.integers(0, 64, (side, side, 3))
    return Image.fromarray(pixels.astype(np.uint8))
