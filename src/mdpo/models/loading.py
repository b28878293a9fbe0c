"""Load any vision-language model of Hugging Face format."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from mdpo.models.quantization import Quantization, bnb_config

DTYPES: dict[str, torch.dtype | str] = {
    "auto": "auto",
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


def load_model(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    device_map: str | dict[str, Any] | None = None,
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """Load a vision-language model; safetensors only.

    Args:
        name: Folder, or id on the hub.
        revision: Branch, tag or commit on the hub.
        dtype: Key of ``DTYPES``; ``auto`` takes that of the files.
        attn_implementation: As in transformers; None takes its choice.
        trust_remote_code: Whether code from the model's repository may run.
        device_map: Device of each part, or ``auto``, as in transformers; None leaves the model
            where training puts it.
        quantization: Of the language model's linear layers.

    Returns:
        The model.

    Raises:
        ValueError: If ``dtype`` is unknown, the model takes no images, or weights that are
            quantized already are to be quantized.
    """
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    config = AutoConfig.from_pretrained(
        name, revision=revision, trust_remote_code=trust_remote_code
    )
    remote = trust_remote_code and hasattr(config, "auto_map")
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not remote:
        raise ValueError(
            f"`model_name_or_path` must be a vision-language model, got {str(name)!r} of type "
            f"{config.model_type!r}, which takes no images. Text models are trained with TRL."
        )
    further: dict[str, Any] = {}
    if quantization is not None:
        if getattr(config, "quantization_config", None) is not None:
            raise ValueError(
                f"`load_in_{quantization.bits}bit` has no effect on {str(name)!r}, whose weights "
                "are quantized already. Leave it out, or give the model they were made from."
            )
        further["quantization_config"] = bnb_config(
            quantization,
            config,
            dtype=_dtype_of(config, dtype),
            trust_remote_code=trust_remote_code,
        )
    return AutoModelForImageTextToText.from_pretrained(
        name,
        config=config,
        revision=revision,
        dtype=DTYPES[dtype],
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
        device_map=device_map,
        use_safetensors=True,
        **further,
    )


def _dtype_of(config: Any, dtype: str) -> torch.dtype:
    """Tell the type of the weights from what is asked for and from the config."""
    wanted = DTYPES[dtype]
    if isinstance(wanted, torch.dtype):
        return wanted
    text = config.get_text_config()
    return getattr(config, "dtype", None) or getattr(text, "dtype", None) or torch.float32


def restore_weights(model: PreTrainedModel, folder: str | Path) -> None:
    """Put saved weights back into a model.

    transformers renames parameters of some families when it saves them. Loading by name alone, as
    its ``Trainer`` does, then finds none of them and leaves the model as it was.

    Args:
        model: Changed in place.
        folder: What ``save_pretrained`` wrote.
    """
    saved = type(model).from_pretrained(folder, dtype=model.dtype, use_safetensors=True)
    model.load_state_dict(saved.state_dict(), strict=True)
