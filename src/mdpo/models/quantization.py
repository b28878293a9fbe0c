"""Quantized weights of the language model, by bitsandbytes: QLoRA, arXiv:2305.14314.

Only linear layers of the decoder are quantized. Vision tower, projector, embeddings and head keep
their type, so image features are those of the model as published, and so is the product that gives
the logits.

peft's ``prepare_model_for_kbit_training`` is not called. What it would do beyond freezing: it turns
all other half-precision weights into float32, which doubles tower, projector, embeddings and head
and changes image features; and it lets embeddings require gradients, which peft's models do
themselves when gradient checkpointing is switched on. Adapters are float32 either way.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, PretrainedConfig
from transformers.utils.import_utils import is_bitsandbytes_available

from mdpo.models.parts import find_parts

QuantType = Literal["nf4", "fp4"]


@dataclass(frozen=True)
class Quantization:
    """How weights of the language model are stored.

    Attributes:
        bits: 4 or 8 per weight.
        quant_type: Levels of 4-bit weights.
        nested: Whether the scales of 4-bit weights are quantized again.
        compute_dtype: Of products with 4-bit weights; None takes that of the other weights.
    """

    bits: Literal[4, 8]
    quant_type: QuantType = "nf4"
    nested: bool = False
    compute_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        """Refuse what bitsandbytes does not have.

        Raises:
            ValueError: If a value is none of those, or bitsandbytes is missing.
        """
        if self.bits not in (4, 8):
            raise ValueError(f"`bits` must be 4 or 8, got {self.bits}.")
        if self.quant_type not in get_args(QuantType):
            raise ValueError(
                f"`bnb_4bit_quant_type` must be one of {', '.join(get_args(QuantType))}, got "
                f"{self.quant_type!r}."
            )
        if not is_bitsandbytes_available():
            raise ValueError(
                f"`load_in_{self.bits}bit` needs bitsandbytes, which is not installed. "
                "Install it: pip install 'multimodal-dpo[quant]'."
            )


def bnb_config(
    quantization: Quantization,
    config: PretrainedConfig,
    *,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
) -> BitsAndBytesConfig:
    """Write down for transformers which layers are quantized and how.

    Args:
        quantization: As asked for.
        config: Of the model.
        dtype: Of the weights that are not quantized.
        trust_remote_code: Whether code from the model's repository may run.

    Returns:
        What ``from_pretrained`` takes.
    """
    kept = _not_quantized(config, trust_remote_code=trust_remote_code)
    if quantization.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quant_type,
        bnb_4bit_use_double_quant=quantization.nested,
        bnb_4bit_compute_dtype=quantization.compute_dtype or dtype,
        llm_int8_skip_modules=kept,
    )


def is_quantized(model: nn.Module) -> bool:
    """Tell whether a model's weights are quantized, by whatever method.

    Args:
        model: With or without adapters.

    Returns:
        Whether transformers loaded them so.
    """
    base: Any = getattr(model, "get_base_model", lambda: model)()
    return bool(getattr(base, "is_quantized", False))


def _not_quantized(config: PretrainedConfig, *, trust_remote_code: bool) -> list[str]:
    """Name the linear layers outside of the decoder, as patterns that match nothing else."""
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(
            config, trust_remote_code=trust_remote_code
        )
    parts, head = find_parts(model), model.get_output_embeddings()
    outside = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (module is head or not name.startswith(f"{parts.language_model}."))
    ]
    # transformers matches beginnings and ends of names, and reads them as patterns.
    return [rf"{name.replace('.', '[.]')}$" for name in outside]
