"""``mdpo train``: train a model on preference pairs."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EPILOG = """
All settings of transformers' TrainingArguments work too (`bf16`, `report_to`, `eval_strategy`,
`resume_from_checkpoint`, ...). YAML keys of `--config` are these names; flags win over the file.

examples:
  mdpo train --config recipes/playground.yaml --objective dpo --output_dir runs/dpo
  mdpo train --config recipes/llava-1.5-7b.yaml --dataset_name pairs.jsonl --image_root images \\
      --output_dir runs/llava
  accelerate launch --num_processes 8 -m mdpo train --config recipes/llava-1.5-7b.yaml"""


def run(arguments: Sequence[str]) -> int:
    """Train as the settings say, and save model, processor and card.

    Args:
        arguments: Command line after the verb.

    Returns:
        Exit status.
    """
    from mdpo.training.arguments import help_lines, parse_settings

    if "-h" in arguments or "--help" in arguments:
        usage = "usage: mdpo train [--config FILE] [--SETTING VALUE ...]"
        print("\n".join([usage, *help_lines(), EPILOG]))
        return 0
    settings = parse_settings(arguments)
    # peft 0.21 asks transformers 5.23 for an old name; delete when peft asks for the new one.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return train(settings)


def train(settings: Any) -> int:
    """Train as the settings say.

    Args:
        settings: From ``parse_settings``.

    Returns:
        Exit status.
    """
    from mdpo.data.sources import load_raw
    from mdpo.models.adapted import load_adapter
    from mdpo.models.loading import load_model
    from mdpo.models.processors import load_processor
    from mdpo.training.arguments import write_settings
    from mdpo.training.trainer import MDPOTrainer

    training, model, data, _ = settings
    train_rows = load_raw(
        data.dataset_name,
        split=data.dataset_train_split,
        config=data.dataset_config,
        revision=data.dataset_revision,
    )
    eval_rows = None
    if data.eval_dataset_name is not None or data.dataset_test_split is not None:
        eval_rows = load_raw(
            data.eval_dataset_name or data.dataset_name,
            split=data.dataset_test_split or "train",
            config=data.dataset_config if data.eval_dataset_name is None else None,
            revision=data.dataset_revision if data.eval_dataset_name is None else None,
        )
    how: dict[str, Any] = {
        "dtype": model.dtype,
        "attn_implementation": model.attn_implementation,
        "trust_remote_code": model.trust_remote_code,
        "device_map": model.devices(),
        "quantization": model.quantization(training),
    }
    policy: Any = load_model(model.model_name_or_path, revision=model.model_revision, **how)
    if model.adapter_name_or_path is not None:
        policy = load_adapter(policy, model.adapter_name_or_path, is_trainable=True)
    reference = None
    if model.ref_model_name_or_path is not None:
        reference = load_model(
            model.ref_model_name_or_path, revision=model.ref_model_revision, **how
        )
    trainer = MDPOTrainer(
        policy,
        ref_model=reference,
        args=training,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=load_processor(
            model.model_name_or_path,
            revision=model.model_revision,
            trust_remote_code=model.trust_remote_code,
        ),
        peft_config=model.lora(),
    )
    folder = Path(training.output_dir)
    if trainer.is_world_process_zero():
        write_settings(folder / "config.yaml", settings)
        for split, report in trainer.reports.items():
            logging.info("%s data\n%s", split, "\n".join(report.lines()))
            for line in report.problem_lines():
                logging.warning("dropped: %s", line)
    trainer.train(resume_from_checkpoint=_checkpoint(training.resume_from_checkpoint))
    if eval_rows is not None:
        trainer.evaluate()
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        print(folder)
    return 0


def _checkpoint(given: str | None) -> str | bool | None:
    """Read ``resume_from_checkpoint``: a folder, or true for the last one."""
    if given is not None and given.lower() in ("true", "false"):
        return given.lower() == "true"
    return given
