"""The table of families: what is known of each, beyond what its config and classes say.

Parts, LoRA targets and whether prompts can be shared are read off a model itself (``parts``,
``sharing``); ``mdpo check-model --family all`` proves each row of this table on a tiny model and
writes docs/models.md. A model of no family here is trained as well: what is found out about it
is then checked at the start of the run.
"""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedConfig

ImageTokens = Literal["fixed", "grid", "tiles", "across"]

IMAGE_TOKENS: dict[ImageTokens, str] = {
    "fixed": "the same number for every image",
    "grid": "by the image's size in pixels, after it was rounded to whole patches",
    "tiles": "by the number of tiles that its shape is cut into",
    "across": "one, and features that layers attend to across",
}
"""How many tokens an image becomes."""


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        title: What people call it.
        checkpoint: One that is in wide use.
        model_type: As in ``config.json``.
        image_tokens: How the tokens of an image are counted; see ``IMAGE_TOKENS``.
        shares: Whether a prompt can be shared between responses.
        needs: Packages that its processor cannot do without.
        language_model: ``model_type`` of the decoder, where that tells it from another family.
        note: What users should know.
    """

    title: str
    checkpoint: str
    model_type: str
    image_tokens: ImageTokens
    shares: bool = True
    needs: tuple[str, ...] = ()
    language_model: str | None = None
    note: str = ""


FAMILIES: dict[str, Family] = {
    "llava": Family(
        "LLaVA-1.5",
        "llava-hf/llava-1.5-7b-hf",
        "llava",
        "fixed",
        note="original checkpoints: `mdpo convert llava`",
    ),
    "bunny": Family(
        "Bunny",
        "BAAI/Bunny-v1_0-3B",
        "llava",
        "fixed",
        language_model="phi",
        note="convert first: `mdpo convert bunny`",
    ),
    "llava_next": Family(
        "LLaVA-NeXT (1.6)", "llava-hf/llava-v1.6-vicuna-7b-hf", "llava_next", "tiles"
    ),
    "llava_onevision": Family(
        "LLaVA-OneVision",
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "llava_onevision",
        "tiles",
    ),
    "qwen2_vl": Family("Qwen2-VL", "Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl", "grid"),
    "qwen2_5_vl": Family("Qwen2.5-VL", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", "grid"),
    "qwen3_vl": Family("Qwen3-VL", "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", "grid"),
    "internvl": Family("InternVL", "OpenGVLab/InternVL3-8B-hf", "internvl", "tiles"),
    "smolvlm": Family(
        "SmolVLM",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        "smolvlm",
        "tiles",
        needs=("num2words",),
    ),
    "idefics3": Family("Idefics3", "HuggingFaceM4/Idefics3-8B-Llama3", "idefics3", "tiles"),
    "idefics2": Family("Idefics2", "HuggingFaceM4/idefics2-8b", "idefics2", "fixed"),
    "gemma3": Family("Gemma 3", "google/gemma-3-4b-it", "gemma3", "fixed", shares=False),
    "paligemma": Family(
        "PaliGemma 2",
        "google/paligemma2-3b-mix-448",
        "paligemma",
        "fixed",
        shares=False,
        note="needs a chat template; rows without an image are refused by its processor",
    ),
    "glm4v": Family("GLM-4.1V", "zai-org/GLM-4.1V-9B-Thinking", "glm4v", "grid"),
    "aya_vision": Family(
        "Aya Vision", "CohereLabs/aya-vision-8b", "aya_vision", "tiles", shares=False
    ),
    "ovis2": Family("Ovis2", "thisisiron/Ovis2-2B-hf", "ovis2", "tiles"),
    "deepseek_vl": Family(
        "DeepSeek-VL",
        "deepseek-community/deepseek-vl-7b-chat",
        "deepseek_vl",
        "fixed",
        shares=False,
    ),
    "mllama": Family(
        "Llama 3.2 Vision",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "mllama",
        "across",
        shares=False,
        note="give rows with and without images in separate runs: in one batch, rows without "
        "attend to padding of the others' images (transformers 5.23)",
    ),
}
"""By name. Of two with the same ``model_type``, the decoder tells them apart."""

UNPROVEN: dict[str, str] = {
    "Pixtral, Mistral Small 3 (`mistral3`)": "processor needs torchvision",
    "Llama 4 (`llama4`)": "image processor needs torchvision",
    "Command A Vision (`cohere2_vision`)": "image processor needs torchvision",
    "LFM2-VL (`lfm2_vl`)": "image processor needs torchvision; recurrent layers",
    "Perception LM (`perception_lm`)": "image processor needs torchvision",
    "Phi-4 multimodal": "not an image-text-to-text model of transformers",
}
"""What users ask for and nothing here has proven, with the reason."""


def family_of(config: PreTrainedConfig) -> Family | None:
    """Look up the family of a model.

    Args:
        config: Of the model.

    Returns:
        Its row of the table; None for a model of no family here.
    """
    decoder = config.get_text_config().model_type
    candidates = [each for each in FAMILIES.values() if each.model_type == config.model_type]
    exact = [each for each in candidates if each.language_model == decoder]
    return next(iter([*exact, *(each for each in candidates if not each.language_model)]), None)
