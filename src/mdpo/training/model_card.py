"""The card written beside every saved model: what it is, how it was made, how to use it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from peft import PeftModel
from torch import nn

from mdpo.data.report import DataReport
from mdpo.objectives import Objective
from mdpo.training.config import MDPOConfig
from mdpo.training.run_record import versions

REPORTED = (
    "loss",
    "rewards/chosen",
    "rewards/margins",
    "rewards/accuracies",
    "rewards/image_margins",
    "rewards/image_accuracies",
    "rewards/anchor_violations",
)

TEMPLATE = """\
---
{% if base %}base_model: {{ base }}
{% endif -%}
library_name: {{ "peft" if is_adapter else "transformers" }}
pipeline_tag: image-text-to-text
tags:
- mdpo
- preference-optimization
- vision-language-model
---

# {{ name }}

{{ "LoRA adapters for" if is_adapter else "A fine-tuned copy of" }} `{{ base or "a local model" }}`,
trained with the objective `{{ objective.name }}` by
[mdpo](https://arxiv.org/abs/2406.11839) {{ versions.mdpo }}.

## Use

```python
{% if is_adapter -%}
from peft import PeftModel
{% endif -%}
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{{ base if is_adapter else folder }}")
{% if is_adapter -%}
model = PeftModel.from_pretrained(model, "{{ folder }}")
{% endif -%}
processor = AutoProcessor.from_pretrained("{{ folder }}")

question = {"type": "text", "text": "Describe the picture."}
messages = [{"role": "user", "content": [{"type": "image"}, question]}]
prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
inputs = processor(text=prompt, images=Image.open("picture.png"), return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=128, do_sample=False)
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

## Training

| | |
|---|---|
{% for key, value in facts -%}
| {{ key }} | {{ value }} |
{% endfor %}
Terms of the objective:

```json
{{ terms }}
```
{% if last %}
## Metrics

Last reports of the run. Rewards are not scaled by the weights of the terms.

| metric | training | held out |
|---|---|---|
{% for metric, training, held_out in last -%}
| {{ metric }} | {{ training }} | {{ held_out }} |
{% endfor %}
{%- endif %}
## Citation

```bibtex
@inproceedings{wang2024mdpo,
  title     = {mDPO: Conditional Preference Optimization for Multimodal Large Language Models},
  author    = {Wang, Fei and Zhou, Wenxuan and Huang, James Y. and Xu, Nan and Zhang, Sheng and
               Poon, Hoifung and Chen, Muhao},
  booktitle = {Proceedings of EMNLP},
  year      = {2024}
}
```
"""


def write_model_card(
    folder: Path,
    *,
    model: nn.Module,
    args: MDPOConfig,
    objective: Objective,
    reports: Mapping[str, DataReport],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Write ``README.md`` into the folder of a saved model.

    Args:
        folder: Of the weights.
        model: As saved, without wrappers.
        args: Settings of the run.
        objective: What was minimised.
        reports: Of the data, by split.
        history: What the trainer logged so far.
    """
    is_adapter = isinstance(model, PeftModel)
    config: Any = model.config
    environment = Environment(undefined=StrictUndefined, trim_blocks=False, autoescape=False)
    card = environment.from_string(TEMPLATE).render(
        name=folder.resolve().name,
        folder=folder,
        base=config._name_or_path,
        is_adapter=is_adapter,
        objective=objective,
        versions=versions(),
        facts=_facts(model, args, objective, reports),
        terms=json.dumps(objective.to_spec()["terms"], indent=2),
        last=_last_reports(history),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _facts(
    model: nn.Module, args: MDPOConfig, objective: Objective, reports: Mapping[str, DataReport]
) -> list[tuple[str, object]]:
    """Collect what a reader asks first."""
    rejected = json.dumps(args.corruption_options) if args.corruption_options else ""
    facts: list[tuple[str, object]] = [("beta", objective.beta)]
    if objective.needs_image:
        facts.append(("rejected images", f"{args.corruption} {rejected}".strip()))
    facts.append(("image condition", args.image_condition))
    for split, report in reports.items():
        number = f"{len(report.good)} pairs of {report.source}"
        facts.append((f"{split} data", f"{number}, fingerprint `{report.fingerprint}`"))
    if isinstance(model, PeftModel):
        lora: Any = model.peft_config[str(model.active_adapter)]
        facts.append(("adapters", f"{lora.peft_type.value}, r {getattr(lora, 'r', '-')}"))
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return [
        *facts,
        ("learning rate", f"{args.learning_rate:g}, {args.lr_scheduler_type}"),
        ("epochs", args.num_train_epochs),
        ("pairs per optimizer step", batch),
        ("seed", args.seed),
        ("versions", ", ".join(f"{name} {each}" for name, each in versions().items())),
    ]


def _last_reports(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Take the last value of each metric, in training and held out."""

    def last(name: str) -> str:
        value = next((row[name] for row in reversed(history) if name in row), None)
        return "-" if value is None else f"{value:.4g}"

    rows = [(name, last(name), last(f"eval_{name}")) for name in REPORTED]
    return [row for row in rows if row[1:] != ("-", "-")]
