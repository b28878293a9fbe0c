"""The sides of the comparison: each a trainer whose ``training_step`` is timed."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin, Trainer, TrainingArguments, set_seed

from geometry import Family, Geometry, TextLengths, Width, make_geometry
from mdpo import MDPOConfig, MDPOTrainer
from mdpo.data.encoding import Encoder
from mdpo.models.parts import find_parts, linear_targets
from mdpo.models.policy import prepare_policy
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Logps, make_objective
from mdpo.scoring import SharedPrefixScorer


@dataclass(frozen=True)
class Side:
    """One way to do a step.

    Attributes:
        code: Whose: TRL's, the authors' pattern, or ours.
        objective: ``dpo`` or ``mdpo``.
        cached: Whether reference log-probabilities are read from a cache filled beforehand.
        scorer: Of ours; None takes the default.
        attention: Of ours, how packed rows attend; None takes the default.
    """

    code: Literal["trl", "official", "ours"]
    objective: Literal["dpo", "mdpo"]
    cached: bool = False
    scorer: str | None = None
    attention: Literal["dense", "flex"] | None = None


SIDES: dict[str, Side] = {
    "trl-dpo": Side("trl", "dpo"),
    "official-mdpo": Side("official", "mdpo"),
    "dpo-online": Side("ours", "dpo"),
    "dpo-cached": Side("ours", "dpo", cached=True),
    "mdpo-online": Side("ours", "mdpo"),
    "mdpo-cached": Side("ours", "mdpo", cached=True),
    "mdpo-plain": Side("ours", "mdpo", scorer="plain"),
    "mdpo-dense": Side("ours", "mdpo", attention="dense"),
    "mdpo-flex": Side("ours", "mdpo", attention="flex"),
}

DEFAULT_SIDES: tuple[str, ...] = tuple(SIDES)[:6]
BASE_SIDE = "trl-dpo"
"""What ratios are relative to."""

FROZEN = {"vision_tower", "projector"}
BETA = 0.1


@dataclass(frozen=True)
class RunSpec:
    """All that one measured process needs to know; it travels as JSON.

    Attributes:
        side: Key of ``SIDES``.
        family: Which model.
        width: How large.
        device: ``cpu`` or ``cuda``.
        batch_size: Pairs per step.
        warm_up: Steps that are not timed, before those that are.
        steps: Timed steps.
        round: Which part of the rows is measured, from 0.
        rounds: Parts there are.
        seed: Of weights, adapters and rows.
        rank: Of LoRA; alpha is twice that.
        threads: Of this process, on the CPU.
        checkpointing: Whether gradient checkpointing is on.
        max_tokens_per_batch: Handed to ours; None leaves the default.
        image_tokens: Per image; None keeps the geometry's.
        text: Lengths of prompts and responses; None keeps the geometry's.
        cache: Folder of reference log-probabilities.
        only_fill: Whether to fill that folder and stop.
    """

    side: str
    family: Family
    width: Width
    device: Literal["cpu", "cuda"]
    batch_size: int
    warm_up: int
    steps: int
    round: int
    rounds: int
    seed: int
    rank: int
    threads: int
    checkpointing: bool
    max_tokens_per_batch: int | None = None
    image_tokens: int | None = None
    text: TextLengths | None = None
    cache: str | None = None
    only_fill: bool = False

    @property
    def num_rows(self) -> int:
        """Rows of the data set: batches to warm up, then each round's batches."""
        return self.batch_size * (self.warm_up + self.rounds * self.steps)

    @property
    def timed_batches(self) -> range:
        """Which batches of the data set are timed in this round."""
        first = self.warm_up + self.round * self.steps
        return range(first, first + self.steps)

    @property
    def geometry(self) -> Geometry:
        """Shape of model and rows."""
        return make_geometry(
            self.family, self.width, image_tokens=self.image_tokens, text=self.text
        )

    def to_json(self) -> str:
        """Write it on one line.

        Returns:
            What ``from_json`` reads.
        """
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "RunSpec":
        """Read it from one line.

        Args:
            line: From ``to_json``.

        Returns:
            The same settings.
        """
        fields = json.loads(line)
        if fields["text"] is not None:
            fields["text"] = TextLengths(**fields["text"])
        return cls(**fields)


def make_trainer(
    spec: RunSpec,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: list[dict[str, Any]],
    folder: Path,
) -> Trainer:
    """Set up the trainer of a side.

    Args:
        spec: Which side, and its settings.
        model: Without adapters.
        processor: Of the model.
        rows: From ``geometry.make_rows``.
        folder: For what trainers write.

    Returns:
        A trainer whose collator takes items of its ``train_dataset``.
    """
    make = {"trl": _make_trl, "official": _make_official, "ours": _make_ours}
    lora = LoraConfig(
        r=spec.rank,
        lora_alpha=2 * spec.rank,
        target_modules=linear_targets(model, find_parts(model), {"language_model"}),
    )
    dataset = Dataset.from_list(rows)
    return make[SIDES[spec.side].code](spec, model, processor, dataset, lora, folder)


def missing_settings(spec: RunSpec) -> list[str]:
    """List settings that a side asks for and this version of mdpo does not have.

    Args:
        spec: Which side, and its settings.

    Returns:
        Names; a side measured without them is not what its name says.
    """
    if SIDES[spec.side].code != "ours":
        return []
    known = {each.name for each in dataclasses.fields(MDPOConfig)}
    missing = [name for name in _our_settings(spec) if name not in known]
    if SIDES[spec.side].cached and not hasattr(MDPOTrainer, "precompute_reference"):
        missing.append("MDPOTrainer.precompute_reference")
    return missing


def _common_arguments(spec: RunSpec, folder: Path) -> dict[str, Any]:
    """Fields of ``TrainingArguments`` that are the same for all sides."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": spec.batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-5,
        "seed": spec.seed,
        "use_cpu": spec.device == "cpu",
        "bf16": spec.device == "cuda",
        "activation_checkpointing": spec.checkpointing,
        "remove_unused_columns": False,
        "report_to": "none",
    }


def _make_trl(
    spec: RunSpec,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset,
    lora: LoraConfig,
    folder: Path,
) -> Trainer:
    """TRL's ``DPOTrainer`` with its own collator; it does not look at rejected images."""
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    return DPOTrainer(
        model,
        args=DPOConfig(beta=BETA, max_length=None, **_common_arguments(spec, folder)),
        train_dataset=dataset.remove_columns("rejected_images"),
        processing_class=processor,
        peft_config=lora,
    )


def _our_settings(spec: RunSpec) -> dict[str, Any]:
    """Fields of ``MDPOConfig`` by which our sides differ."""
    side = SIDES[spec.side]
    settings: dict[str, Any] = {}
    if side.scorer is not None:
        settings["scorer"] = side.scorer
    if side.cached:
        settings |= {"precompute_ref_log_probs": True, "ref_cache_dir": spec.cache}
    if spec.max_tokens_per_batch is not None:
        settings["max_tokens_per_batch"] = spec.max_tokens_per_batch
    return settings


def _make_ours(
    spec: RunSpec,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset,
    lora: LoraConfig,
    folder: Path,
) -> Trainer:
    """``MDPOTrainer``; settings it does not have are left out, ``missing_settings`` lists them."""
    missing = missing_settings(spec)
    settings = {name: each for name, each in _our_settings(spec).items() if name not in missing}
    args = MDPOConfig(
        objective=SIDES[spec.side].objective,
        beta=BETA,
        **settings,
        **_common_arguments(spec, folder),
    )
    attention = SIDES[spec.side].attention
    if attention == "flex":
        model.set_attn_implementation({"text_config": "flex_attention"})
    trainer = MDPOTrainer(
        model, args=args, train_dataset=dataset, processing_class=processor, peft_config=lora
    )
    if attention == "dense":
        # A user gets dense masks with eager attention; here they are wanted with SDPA.
        policy: Any = trainer.model
        trainer.scorer = SharedPrefixScorer(policy, attention="dense")
        model.set_attn_implementation({"text_config": "sdpa"})
    return trainer


def _make_official(
    spec: RunSpec,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset,
    lora: LoraConfig,
    folder: Path,
) -> Trainer:
    """The authors' pattern."""
    set_seed(spec.seed)  # as the other trainers do before they make adapters
    return OfficialPattern(
        model=prepare_policy(model, lora, frozen=FROZEN),
        args=TrainingArguments(**_common_arguments(spec, folder)),
        train_dataset=dataset,
        data_collator=OfficialCollator(processor),
        processing_class=processor,
    )


class OfficialCollator:
    """Three whole rows per pair: chosen, rejected, and chosen with the rejected image."""

    def __init__(self, processor: ProcessorMixin) -> None:
        """Keep the processor."""
        self.encoder = Encoder(processor)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate examples.

        Args:
            examples: Rows of the data set.

        Returns:
            ``inputs`` of the model, all chosen rows first, and which tokens are the ``response``.
        """
        texts, images, lengths = [], [], []
        for image_slot, slot in (
            ("images", "chosen"),
            ("images", "rejected"),
            ("rejected_images", "chosen"),
        ):
            for example in examples:
                prompt, response = example["prompt"], example[slot][0]["content"]
                texts.append(
                    self.encoder.prompt_text(prompt_with_images(prompt, example["images"]))
                    + self.encoder.response_text(prompt, response)
                )
                images.append(example[image_slot])
                lengths.append(len(self.encoder.response_ids(prompt, response)))
        inputs = dict(
            self.encoder.processor(
                text=texts,
                images=images,
                padding=True,
                padding_side="right",
                return_tensors="pt",
                add_special_tokens=False,
            )
        )
        ends = inputs["attention_mask"].sum(dim=1, keepdim=True)
        places = torch.arange(inputs["input_ids"].shape[1])[None]
        is_response = (places < ends) & (places >= ends - torch.tensor(lengths)[:, None])
        return {"inputs": inputs, "is_response": is_response}


def prompt_with_images(messages: list[dict[str, Any]], images: list[Any]) -> list[dict[str, Any]]:
    """Put the images before the text of the first message.

    Args:
        messages: With plain text.
        images: Of the row.

    Returns:
        Messages as chat templates take them.
    """
    first, *others = messages
    parts = [{"type": "image"} for _ in images] + [{"type": "text", "text": first["content"]}]
    return [{"role": first["role"], "content": parts}, *others]


class OfficialPattern(Trainer):
    """mDPO as the authors' release computes it, written from its description.

    Policy and reference each take all three rows per pair in one padded batch, encode the image of
    every row, and make logits of the whole vocabulary at every position, in float32. The loss is
    that of our ``mdpo`` objective. Differs from the release: the rejected image is part of the
    row instead of being cropped anew in each forward pass.
    """

    loss_is_scaled_for_ga = False

    def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]  # a dict of its own shape
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Compute the mDPO loss.

        Args:
            model: The policy.
            inputs: Of ``OfficialCollator``.
            return_outputs: Unused.
            num_items_in_batch: Unused.

        Returns:
            The loss, a scalar.
        """
        is_response = inputs["is_response"]
        policy = response_logps(model, inputs["inputs"], is_response)
        adapted = self.accelerator.unwrap_model(model)
        assert isinstance(adapted, PeftModel)
        with torch.no_grad(), adapted.disable_adapter():
            reference = response_logps(model, inputs["inputs"], is_response)
        candidates = (CHOSEN, REJECTED, REJECTED_IMAGE)
        lengths = is_response.sum(dim=1).chunk(3)
        objective = make_objective("mdpo", beta=BETA)
        logps = Logps(
            policy=dict(zip(candidates, policy.chunk(3), strict=True)),
            reference=dict(zip(candidates, reference.chunk(3), strict=True)),
            lengths={"chosen": lengths[0], "rejected": lengths[1]},
            has_image=torch.ones(len(lengths[0]), dtype=torch.bool, device=policy.device),
        )
        return objective.total(objective.losses(logps), logps.has_image)


def response_logps(model: nn.Module, inputs: dict[str, Any], is_response: Tensor) -> Tensor:
    """Sum response log-probabilities out of logits of all positions.

    Args:
        model: Policy or reference.
        inputs: Of the model.
        is_response: Which tokens count, (rows, tokens).

    Returns:
        One sum per row, in nats.
    """
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    ids = inputs["input_ids"][:, 1:, None]
    logps = logits.log_softmax(dim=-1).gather(-1, ids).squeeze(-1)
    return (logps * is_response[:, 1:]).sum(dim=1)
