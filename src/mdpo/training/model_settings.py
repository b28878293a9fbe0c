"""The settings of the model: which one, how it is stored, and how it is adapted."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, PeftConfig

from mdpo.models.adapted import adapter_folder
from mdpo.models.quantization import Quantization
from mdpo.training.config import MDPOConfig


@dataclass(kw_only=True)
class ModelSettings:
    """Which model, and how it is adapted."""

    model_name_or_path: str = field(metadata={"help": "Folder or hub id of the model to train."})
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the model on the hub."}
    )
    dtype: str = field(
        default="auto",
        metadata={"help": "Of the weights: auto (as in the files), bfloat16, float16, float32."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "sdpa, eager, flash_attention_2, ...; default: the best."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Let code from the model's repository run."}
    )
    device_map: str | None = field(
        default=None,
        metadata={
            "help": "Spread one model over the devices of one process: auto, or JSON with a device "
            "for each module. Default: all of it on the device of the process."
        },
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Store the language model's linear layers in 4 bits (QLoRA)."},
    )
    load_in_8bit: bool = field(
        default=False, metadata={"help": "Store the language model's linear layers in 8 bits."}
    )
    bnb_4bit_quant_type: str = field(
        default="nf4", metadata={"help": "Levels of 4-bit weights: nf4 or fp4."}
    )
    use_bnb_nested_quant: bool = field(
        default=False, metadata={"help": "Quantize the scales of 4-bit weights too."}
    )
    adapter_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Adapters to train on with: folder or hub id. The reference is the model with "
            "these adapters as they are at the start."
        },
    )
    ref_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Reference model. Default: what the model is before the first step, with its "
            "adapters off, its adapters as they came, or copied."
        },
    )
    ref_model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of the reference on the hub."}
    )
    use_peft: bool = field(
        default=True, metadata={"help": "Train LoRA adapters; false trains the weights."}
    )
    lora_r: int = field(default=64, metadata={"help": "Rank of the adapters. Paper: 64."})
    lora_alpha: int = field(default=128, metadata={"help": "Scale of the adapters. Paper: 128."})
    lora_dropout: float = field(
        default=0.0,
        metadata={"help": "Dropout of the adapters; works with `disable_dropout` false only."},
    )
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={"help": "Layers to adapt. Default: all linear layers of parts not frozen."},
    )
    lora_modules_to_save: list[str] | None = field(
        default=None,
        metadata={"help": "Modules to train whole and save with the adapters, such as lm_head."},
    )
    use_dora: bool = field(
        default=False,
        metadata={"help": "Train magnitudes beside the directions of weights (DoRA)."},
    )
    use_rslora: bool = field(
        default=False,
        metadata={"help": "Scale adapters by alpha / sqrt(r) in place of alpha / r (rsLoRA)."},
    )

    def __post_init__(self) -> None:
        """Refuse settings that exclude each other.

        Raises:
            ValueError: If two of them do; the message names both.
        """
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("`load_in_4bit` and `load_in_8bit` are both true. Set one of the two.")
        bits = "`load_in_4bit`" if self.load_in_4bit else "`load_in_8bit`"
        if (self.load_in_4bit or self.load_in_8bit) and not self.use_peft:
            raise ValueError(
                f"{bits} true needs adapters: quantized weights cannot be trained. Set `use_peft` "
                "to true, or leave it out."
            )
        if self.adapter_name_or_path is not None and not self.use_peft:
            raise ValueError(
                "`adapter_name_or_path` needs `use_peft` true: its adapters are what is trained. "
                "To train all weights from there, fold them in first: mdpo merge."
            )
        self.devices()

    def devices(self) -> str | dict[str, Any] | None:
        """Read ``device_map``.

        Returns:
            What transformers takes.

        Raises:
            ValueError: If it looks like JSON and is not.
        """
        if self.device_map is None or not self.device_map.lstrip().startswith("{"):
            return self.device_map
        try:
            return json.loads(self.device_map)
        except json.JSONDecodeError as error:
            raise ValueError(f"`device_map` must be a name or JSON: {error}.") from None

    def quantization(self, training: MDPOConfig) -> Quantization | None:
        """Say how the language model's weights are stored.

        Args:
            training: Its mixed precision is that of products with 4-bit weights.

        Returns:
            None if they are stored as they come.
        """
        if not (self.load_in_4bit or self.load_in_8bit):
            return None
        lower = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None
        return Quantization(
            bits=4 if self.load_in_4bit else 8,
            quant_type=self.bnb_4bit_quant_type,  # pyright: ignore[reportArgumentType]  # checked there
            nested=self.use_bnb_nested_quant,
            compute_dtype=lower,
        )

    def lora(self) -> LoraConfig | None:
        """Make the adapters' settings.

        Returns:
            None if the weights themselves are trained, or adapters that are there already.
        """
        if not self.use_peft or self.adapter_name_or_path is not None:
            return None
        targets = self.lora_target_modules
        # One word may be the end of names, as several are, or a pattern on full names.
        is_pattern = targets and len(targets) == 1 and not re.fullmatch(r"[\w.]+", targets[0])
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=targets[0] if targets and is_pattern else targets,
            modules_to_save=self.lora_modules_to_save,
            use_dora=self.use_dora,
            use_rslora=self.use_rslora,
            revision=self.model_revision,
            task_type="CAUSAL_LM",
        )

    def adapters(self) -> PeftConfig | None:
        """Say how the trained adapters are made, new or there already.

        Returns:
            None if the weights themselves are trained.
        """
        if self.adapter_name_or_path is None:
            return self.lora()
        config = PeftConfig.from_pretrained(str(adapter_folder(self.adapter_name_or_path)))
        config.inference_mode = False
        return config
