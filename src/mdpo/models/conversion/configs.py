"""From an original ``config.json`` to a ``LlavaConfig``.

Every field that the class would fill in otherwise than the original code is set here: rotary share,
layer and kind of image features, ids, dropout. Sources, facts only: Bunny's
https://github.com/BAAI-DCAI/Bunny, LLaVA's https://github.com/haotian-liu/LLaVA.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, PhiConfig, SiglipVisionConfig

from mdpo.models.conversion.fields import given, require, require_value

MULTIPLE = 64
"""The vocabulary is grown to a multiple of it, as in the published conversions of LLaVA."""

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
_COMMON = (
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "attention_dropout",
)


def family_of(config: Mapping[str, Any], *, path: Path) -> str:
    """Tell which original architecture a config is of.

    Args:
        config: Content of ``config.json``.
        path: Of the file, for messages.

    Returns:
        ``bunny`` or ``llava``.

    Raises:
        ValueError: If it is of neither, or needs no conversion.
    """
    kind = config.get("model_type")
    if kind == "bunny-phi":
        return "bunny"
    if kind == "llava" and "text_config" in config:
        raise ValueError(
            f"{path} is one of transformers' own class. It loads as it is: pass its folder as "
            "`--model_name_or_path`. (To write the original form, add `--reverse`.)"
        )
    if kind in ("llava", "llava_llama"):
        return "llava"
    if isinstance(kind, str) and kind.startswith("bunny-"):
        raise ValueError(
            f"{path}: `model_type` must be 'bunny-phi', got {kind!r}. Of Bunny's language models "
            "only Phi-2 is converted."
        )
    raise ValueError(
        f"{path}: `model_type` must be 'bunny-phi', 'llava' or 'llava_llama', got {kind!r}. Other "
        "models need no conversion, or have none here."
    )


def bunny_config(
    config: Mapping[str, Any], vision: Mapping[str, Any], tokens: Mapping[str, int], *, path: Path
) -> LlavaConfig:
    """Build the config of a Bunny with Phi-2 and SigLIP.

    Args:
        config: Content of the original ``config.json``.
        vision: Sizes of the whole tower, from ``towers``.
        tokens: ``image``, ``pad``, ``bos``, ``eos``: ids of the tokenizer.
        path: Of the original file, for messages.

    Returns:
        The config; the image token's row and the original config are part of it.
    """
    _check(config, vision, path=path)
    require_value(config, "use_s2", (None, False), path=path)
    sizes = require(config, (*_SIZES, "partial_rotary_factor"), path=path)
    share, base = sizes.pop("partial_rotary_factor"), config.get("rope_theta") or 10000.0
    text = PhiConfig(
        **{**sizes, **_vocabulary(config, tokens)},
        **given(config, (*_COMMON, "layer_norm_eps", "embd_pdrop", "resid_pdrop", "qk_layernorm")),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(base),
            "partial_rotary_factor": float(share),
        },
    )
    # The original drops the last layer of the tower and takes the output of the one before.
    tower = SiglipVisionConfig(
        **{**vision, "num_hidden_layers": vision["num_hidden_layers"] - 1}, vision_use_head=False
    )
    return LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_seq_length=_num_patches(vision),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        **_joint(config, tokens),
    )


def llava_config(
    config: Mapping[str, Any], vision: Mapping[str, Any], tokens: Mapping[str, int], *, path: Path
) -> LlavaConfig:
    """Build the config of a LLaVA with Llama and CLIP.

    Args:
        config: Content of the original ``config.json``.
        vision: Sizes of the tower, from ``towers``.
        tokens: ``image``, ``pad``, ``bos``, ``eos``: ids of the tokenizer.
        path: Of the original file, for messages.

    Returns:
        The config; the image token's row and the original config are part of it.
    """
    _check(config, vision, path=path)
    require_value(config, "mm_use_im_start_end", (None, False), path=path)
    require_value(config, "mm_patch_merge_type", (None, "flat"), path=path)
    require_value(config, "mm_vision_select_feature", (None, "patch"), path=path)
    text = LlamaConfig(
        **{**require(config, _SIZES, path=path), **_vocabulary(config, tokens)},
        **given(config, (*_COMMON, "rms_norm_eps", "attention_bias")),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(config.get("rope_theta") or 10000.0),
        },
    )
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**vision),
        text_config=text,
        image_seq_length=_num_patches(vision),
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default",
        **_joint(config, tokens),
    )


def pads_to_square(config: Mapping[str, Any]) -> bool:
    """Tell whether the original pads images that are not square.

    Args:
        config: Content of the original ``config.json``.

    Returns:
        Whether it does; otherwise it leaves them to the image processor.
    """
    return config.get("image_aspect_ratio") == "pad"


def _check(config: Mapping[str, Any], vision: Mapping[str, Any], *, path: Path) -> None:
    """Refuse variants that both families share."""
    require_value(config, "mm_projector_type", ("mlp2x_gelu",), path=path)
    require_value(config, "image_aspect_ratio", ("pad", "square", None), path=path)
    require_value(config, "tie_word_embeddings", (None, False), path=path)
    require_value(config, "rope_scaling", (None,), path=path)
    require_value(config, "quantization_config", (None,), path=path)
    require_value(config, "mm_hidden_size", (None, vision["hidden_size"]), path=path)


def _vocabulary(config: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, int]:
    """Ids of the tokenizer, and a vocabulary that has room for all of them."""
    needed = max(config["vocab_size"], *(number + 1 for number in tokens.values()))
    ids = {f"{name}_token_id": tokens[name] for name in ("bos", "eos", "pad")}
    return {"vocab_size": -(-needed // MULTIPLE) * MULTIPLE, **ids}


def _num_patches(vision: Mapping[str, Any]) -> int:
    """Patches of an image; pixels beyond the last whole patch are not seen."""
    return (vision["image_size"] // vision["patch_size"]) ** 2


def _joint(config: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    """Fields that both families share; the last two are read by mdpo alone."""
    return {
        "image_token_index": tokens["image"],
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "architectures": ["LlavaForConditionalGeneration"],
        "real_vocab_size": config["vocab_size"],
        "original_config": dict(config),
    }
