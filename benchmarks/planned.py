"""What ``mdpo plan`` expects of a side, to set beside what was measured."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin

from mdpo.planning.plan import make_plan
from mdpo.training.arguments import parse_settings
from sides import SIDES, RunSpec

STANDING = ("weights: ", "adapters", "reference model")
"""Entries of a plan that are in memory before the first step."""


def planned_bytes_above_model(
    spec: RunSpec,
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    rows: Dataset,
    folder: Path,
) -> int | None:
    """Plan a side from its config, processor and rows.

    Args:
        spec: Which side, and its settings.
        model: Of the side.
        processor: Of the model.
        rows: Those that were measured, warm-up included.
        folder: Empty; config and rows are written to it.

    Returns:
        Expected peak, less what is in memory before the first step; None for a side that is not
        ours.
    """
    side = SIDES[spec.side]
    if side.code != "ours":
        return None
    model.config.save_pretrained(folder / "model")
    rows.save_to_disk(str(folder / "rows"))
    flags: dict[str, Any] = {
        "model_name_or_path": folder / "model",
        "dataset_name": folder / "rows",
        "output_dir": folder / "run",
        "objective": side.objective,
        "per_device_train_batch_size": spec.batch_size,
        "gradient_accumulation_steps": 1,
        "dtype": "float32" if spec.device == "cpu" else "bfloat16",
        "bf16": str(spec.device == "cuda").lower(),
        "activation_checkpointing": str(spec.checkpointing).lower(),
        "precompute_ref_log_probs": str(side.cached).lower(),
        "scorer": side.scorer or "shared_prefix",
        "lora_r": spec.rank,
        "lora_alpha": 2 * spec.rank,
        "use_cpu": "true",
        "disable_tqdm": "true",
    }
    if spec.max_tokens_per_batch is not None:
        flags["max_tokens_per_batch"] = spec.max_tokens_per_batch
    settings = parse_settings(
        [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    )
    plan = make_plan(settings, processor=processor)
    return sum(need.num_bytes or 0 for need in plan.memory if not need.name.startswith(STANDING))
