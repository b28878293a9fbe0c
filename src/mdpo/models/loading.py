"""Load any vision-language model of Hugging Face format."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

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
) -> PreTrainedModel:
    """Load a vision-language model; safetensors only.

    Args:
        name: Folder, or id on the hub.
        revision: Branch, tag or commit on the hub.
        dtype: Key of ``DTYPES``; ``auto`` takes that of the files.
        attn_implementation: As in transformers; None takes its choice.
        trust_remote_code: Whether code from the model's repository may run.

    Returns:
        The model.

    Raises:
        ValueError: If ``dtype`` is unknown or the model takes no images.
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
    model = AutoModelForImageTextToText.from_pretrained(
        name,
        config=config,
        revision=revision,
        dtype=DTYPES[dtype],
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
    )
    return model


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
