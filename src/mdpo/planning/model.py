"""A model on the meta device, made ready as for training, and what its passes cost."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from mdpo.data.encoding import Encoder
from mdpo.models.loading import DTYPES
from mdpo.models.parts import find_parts
from mdpo.models.policy import disable_dropout, prepare_policy
from mdpo.objectives import Candidate
from mdpo.planning.memory import ATTENTION, PassCost, measure
from mdpo.planning.tokens import Counted, largest_sum
from mdpo.scoring.images import feature_bytes
from mdpo.training.config import MDPOConfig
from mdpo.training.model_settings import ModelSettings
from mdpo.training.trainer import frozen_parts

HEAD_CHUNK = 1024
"""Response tokens whose logits exist at one time."""

STATES_PER_PARAMETER = {
    "adamw_torch": 2,
    "adamw_torch_fused": 2,
    "adamw_torch_xla": 2,
    "adamw_torch_npu_fused": 2,
    "sgd": 0,
}
"""Values that an optimizer keeps for each trained parameter, in its dtype."""


@dataclass(frozen=True)
class Need:
    """One entry of the memory table.

    Attributes:
        name: What needs it.
        num_bytes: How much; None if it is not modelled.
        note: How it comes about.
    """

    name: str
    num_bytes: int | None
    note: str = ""


@dataclass(frozen=True)
class RunSettings:
    """The settings that a plan reads, by the names they have here.

    Attributes:
        args: All of them.
        candidates: What the objective scores.
        scorer: ``shared_prefix`` or ``plain``.
        max_tokens: Most tokens of a pass; None takes each batch whole.
        precomputes: Whether the reference scores all rows before training.
        feature_cache: Where features of images are kept: none, memory or disk.
        autocast: Lower dtype of mixed precision, if it is on.
    """

    args: MDPOConfig
    candidates: tuple[Candidate, ...]
    scorer: str
    max_tokens: int | None
    precomputes: bool
    feature_cache: str
    autocast: torch.dtype | None

    @classmethod
    def of(cls, args: MDPOConfig) -> "RunSettings":
        """Read them.

        Args:
            args: Of the run.

        Returns:
            The settings.
        """
        lower = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return cls(
            args=args,
            candidates=tuple(sorted(set(args.make_objective().candidates))),
            scorer=args.scorer,
            max_tokens=args.max_tokens_per_batch,
            precomputes=args.precompute_ref_log_probs,
            feature_cache=args.feature_cache,
            autocast=next((lower[name] for name in lower if getattr(args, name)), None),
        )

    @property
    def sharing(self) -> bool:
        """Whether candidates of one image share its prompt."""
        return self.scorer != "plain"

    @property
    def slots(self) -> tuple[str, ...]:
        """Image slots of the candidates."""
        return tuple(dict.fromkeys(each.image for each in self.candidates))


def meta_model(
    name: str, *, revision: str | None, dtype: str, trust_remote_code: bool
) -> PreTrainedModel:
    """Build a model without weights: parameters have a shape and a dtype only.

    Args:
        name: Folder, or id on the hub; its config is read.
        revision: Branch, tag or commit on the hub.
        dtype: Key of ``DTYPES``; ``auto`` takes that of the config, float32 if it has none.
        trust_remote_code: Whether code from the model's repository may run.

    Returns:
        The model, on the meta device.

    Raises:
        ValueError: If the model takes no images, or its weights are quantized.
    """
    config: Any = AutoConfig.from_pretrained(
        name, revision=revision, trust_remote_code=trust_remote_code
    )
    remote = trust_remote_code and hasattr(config, "auto_map")
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not remote:
        raise ValueError(
            f"`model_name_or_path` must be a vision-language model, got {name!r} of type "
            f"{config.model_type!r}, which takes no images. Text models are trained with TRL."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(
            f"{name!r} has quantized weights, whose memory is not modelled. Plan with the model "
            "that it was made from."
        )
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    found = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(
            config,
            dtype=(found or torch.float32) if dtype == "auto" else DTYPES[dtype],
            attn_implementation=ATTENTION,
            trust_remote_code=trust_remote_code,
        )


def _weights_by_part(model: PreTrainedModel) -> dict[str, list[nn.Parameter]]:
    """Sort parameters by part; a head that shares its weights belongs to the language model."""
    parts = find_parts(model)
    head = model.get_output_embeddings()
    head_only = {id(each) for each in head.parameters()} if head is not None else set()
    head_only -= {id(each) for each in model.get_input_embeddings().parameters()}
    found: dict[str, list[nn.Parameter]] = {
        part: [] for part in ("vision_tower", "projector", "language_model", "head")
    }
    for name, each in model.named_parameters():
        found["head" if id(each) in head_only else parts.part_of(name)].append(each)
    return found


def _checkpoint_layers(policy: PreTrainedModel | PeftModel, args: MDPOConfig) -> None:
    """Switch gradient checkpointing on as the trainer does."""
    policy.train()
    if not args.gradient_checkpointing:
        return
    given: Any = args.gradient_checkpointing_kwargs
    options: dict[str, Any] = dict(given or {})
    if options.pop("offload", False):
        raise ValueError(
            "`offload` of gradient checkpointing is not modelled. Plan without it: it moves the "
            "kept activations to main memory."
        )
    every = options.pop("every_n_layers", 1)
    if hasattr(policy, "activation_checkpointing_enable"):
        enable: Any = policy.activation_checkpointing_enable
        enable(activation_checkpointing_kwargs=options or None, every_n_layers=every)
    else:
        # Its name before transformers 5.23.
        policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options or None)


class MeasuredModel:
    """A policy on the meta device, and what its passes cost.

    Attributes:
        policy: Prepared for training.
        base: The same model without adapters.
        parts: Its own parameters by part.
        adapters: Added parameters.
        continues: Whether the adapters are there already, and part of the reference.
        trained: Parameters that are trained.
        trains_images: Whether any of them lie in vision tower or projector.
        pairs: Most pairs of a pass.
        longest_pass: Most tokens that go through the language model at once.
        training: Costs of a pass with gradient, by rows and tokens of its sequence.
        inference: Costs of the longest pass of the reference.
        size: The most frequent image size, if there are images.
        image: Costs of one such image; None where the meta device cannot run it.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        settings: ModelSettings,
        run: RunSettings,
        encoder: Encoder,
        counted: Counted,
    ) -> None:
        """Make the policy, and measure its longest pass and one image.

        Args:
            base: From ``meta_model``; changed in place.
            settings: Of the model.
            run: Settings of the run.
            encoder: Of the model.
            counted: The rows.
        """
        self.base, self.run, self.lengths = base, run, counted.lengths
        self.parts = _weights_by_part(base)
        own = {id(each) for part in self.parts.values() for each in part}
        self.continues = settings.adapter_name_or_path is not None
        self.policy = prepare_policy(base, settings.adapters(), frozen=frozen_parts(run.args))
        if run.args.disable_dropout:
            disable_dropout(self.policy)
        _checkpoint_layers(self.policy, run.args)
        self.adapters = [each for each in self.policy.parameters() if id(each) not in own]
        self.trained = [each for each in self.policy.parameters() if each.requires_grad]
        names = find_parts(base)
        self.trains_images = any(
            each.requires_grad and names.part_of(name) != "language_model"
            for name, each in base.named_parameters()
        )
        self.pairs = self._pairs_of_pass()
        self.shapes = self._shapes()
        self.longest_pass = max(rows * length for rows, length in self.shapes)
        self.training = {shape: self._decoder(shape, training=True) for shape in set(self.shapes)}
        self.inference = self._decoder(max(self.shapes), training=False)
        self.size = max(counted.sizes, key=counted.sizes.__getitem__) if counted.sizes else None
        self.image = self._tower(encoder, self.size) if self.size else None

    def _pairs_of_pass(self) -> int:
        """Pairs of a pass, at most: as many as the shortest rows allow."""
        batch = min(self.run.args.per_device_train_batch_size, len(self.lengths))
        if self.run.max_tokens is None:
            return batch
        tokens = sorted(each.shared(self.run.candidates) for each in self.lengths)
        fitting = [k for k in range(1, batch + 1) if sum(tokens[:k]) <= self.run.max_tokens]
        return max(fitting, default=1)

    def _shapes(self) -> list[tuple[int, int]]:
        """Rows and tokens of the sequences whose activations are kept together, at most."""
        candidates = self.run.candidates
        if not self.run.sharing:
            longest = [max(each.plain([one]) for each in self.lengths)[0] for one in candidates]
            return [(self.pairs, length) for length in longest]
        whole = largest_sum(self.lengths, lambda each: each.shared(candidates), self.pairs)
        if self.run.max_tokens is not None:
            one = largest_sum(self.lengths, lambda each: each.shared(candidates), 1)
            whole = max(one, min(whole, self.run.max_tokens))
        return [(1, whole)]

    def _decoder(self, shape: tuple[int, int], *, training: bool) -> PassCost:
        """Run embedding and decoder; without training as the reference."""
        decoder, embed = self.base.get_decoder(), self.base.get_input_embeddings()
        ids = torch.zeros(shape, dtype=torch.long, device="meta")

        def run() -> Tensor:
            embedded = embed(ids)
            if training and self.trains_images and not embedded.requires_grad:
                embedded.requires_grad_()
            return decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state

        if not training and isinstance(self.policy, PeftModel) and not self.continues:
            with self.policy.disable_adapter():
                return self._measure(run, training=False)
        return self._measure(run, training=training)

    def _measure(self, run: Callable[[], Tensor], *, training: bool) -> PassCost:
        """Measure under the mixed precision of the run."""
        return measure(run, [self.policy], training=training, autocast=self.run.autocast)

    def _tower(self, encoder: Encoder, size: tuple[int, int]) -> PassCost | None:
        """Run one image through tower and projector; None where the meta device cannot."""
        message = {"role": "user", "content": [{"type": "image"}]}
        text = encoder.prompt_text([message])
        inputs = encoder.prompts([text], [[Image.new("RGB", size)]])
        encode: Any = self.base.get_image_features
        accepted = inspect.signature(encode).parameters
        images = {
            # Grids and sizes are read as numbers, so they keep their values.
            key: each.to("meta", self.base.dtype) if each.is_floating_point() else each
            for key, each in inputs.items()
            if key in accepted and isinstance(each, Tensor)
        }

        def run() -> Tensor:
            features: Any = encode(**images, return_dict=True)
            pooled = features.pooler_output
            return pooled if isinstance(pooled, Tensor) else torch.cat(list(pooled))

        try:
            return self._measure(run, training=self.trains_images)
        except (RuntimeError, NotImplementedError, TypeError):
            return None

    def parameters(self) -> dict[str, int]:
        """Count parameters by part."""
        counts = {part: _count_of(each) for part, each in self.parts.items()}
        return counts | {"adapters": _count_of(self.adapters), "trained": _count_of(self.trained)}

    def memory(self, reference: PreTrainedModel | None, *, devices: int) -> list[Need]:
        """Say where the device's memory goes at its peak.

        Args:
            reference: A separate reference model, if the settings name one.
            devices: That train together.

        Returns:
            Entries in the order in which they are shown.
        """
        labels = {"vision_tower": "vision tower", "language_model": "language model"}
        needs = [
            Need(f"weights: {labels.get(part, part)}", _bytes_of(each), _dtypes(each))
            for part, each in self.parts.items()
            if each
        ]
        if self.adapters:
            needs.append(Need("adapters", _bytes_of(self.adapters), _dtypes(self.adapters)))
        needs.append(Need("gradients", _bytes_of(self.trained), _dtypes(self.trained)))
        if devices > 1:
            needs.append(Need("gradient buckets", _bytes_of(self.trained), "of data parallelism"))
        return [*needs, self._optimizer(), *self._reference(reference), *self._pass()]

    def _optimizer(self) -> Need:
        """States of the optimizer."""
        name = str(getattr(self.run.args.optim, "value", self.run.args.optim))
        states = STATES_PER_PARAMETER.get(name)
        if states is None:
            return Need("optimizer states", None, f"{name} is not modelled")
        size = states * _bytes_of(self.trained)
        return Need("optimizer states", size, f"{name}, {states} per trained parameter")

    def _reference(self, model: PreTrainedModel | None) -> list[Need]:
        """A second model, if the run keeps one during training."""
        if self.run.precomputes:
            return [Need("reference model", 0, "log-probabilities are computed before")]
        if model is not None:
            return [Need("reference model", _bytes_of(list(model.parameters())), "of its own")]
        if self.continues:
            size = _bytes_of(self.adapters)
            return [Need("reference model", size, "the same model, a copy of its first adapters")]
        if isinstance(self.policy, PeftModel):
            return [Need("reference model", 0, "the same model, adapters off")]
        own = [each for part in self.parts.values() for each in part]
        return [Need("reference model", _bytes_of(own), "a frozen copy")]

    def _pass(self) -> list[Need]:
        """What a pass adds at its worst moment."""
        kept = sum(self.training[shape].kept for shape in self.shapes)
        checkpointing = "with" if self.run.args.gradient_checkpointing else "without"
        needs = [Need("activations kept", kept, f"{checkpointing} gradient checkpointing")]
        images = self._image_count()
        if self.trains_images:
            size = None if self.image is None else self.image.kept * images
            needs.append(Need("activations kept of images", size, f"{images} images"))
        elif self.run.sharing:
            tokens = largest_sum(self.lengths, lambda r: sum(r.image_tokens.values()), self.pairs)
            needs.append(
                Need("image features", feature_bytes(self.base, tokens), f"{images} images")
            )
        working = {
            "a layer of the language model": max(
                *(each.working for each in self.training.values()), self.inference.working
            ),
            "logits": self._head_bytes(),
            "vision tower": self.image.working * images if self.image is not None else 0,
        }
        worst = max(working, key=working.__getitem__)
        needs.append(Need("working set", working[worst], worst))
        if images and self.image is None:
            note = "not known; counts if it takes more than that"
            needs.append(Need("working set: vision tower", None, note))
        return needs

    def _image_count(self) -> int:
        """Images of one pass, at most, each slot once."""
        return largest_sum(self.lengths, lambda each: sum(each.images.values()), self.pairs)

    def _head_bytes(self) -> int:
        """Logits, log-probabilities and their gradient for one chunk, in float32."""
        scored = largest_sum(
            self.lengths, lambda each: each.scored(self.run.candidates), self.pairs
        )
        vocabulary = self.base.get_output_embeddings().weight.shape[0]  # pyright: ignore[reportOptionalMemberAccess]
        return 3 * min(scored, HEAD_CHUNK) * int(vocabulary) * 4  # pyright: ignore[reportArgumentType]

    def feature_cache_bytes(self) -> int:
        """Size of the cache, all images of the data told apart."""
        if self.run.feature_cache == "none":
            return 0
        anew = {"rejected"} if self.run.args.corruption_per_epoch else set()
        kept = [slot for slot in self.run.slots if slot not in anew]
        tokens = sum(each.image_tokens[slot] for each in self.lengths for slot in kept)
        return feature_bytes(self.base, tokens)

    def flops(self, *, policy_visits: float, reference_visits: float, images: int) -> int | None:
        """Add up the matrix products of a run.

        Args:
            policy_visits: How often the policy sees the data.
            reference_visits: How often the reference does.
            images: Images through the vision tower.

        Returns:
            Operations; None if those of the vision tower are not known.
        """
        if self.size is not None and self.image is None:
            return None
        sharing, candidates = self.run.sharing, self.run.candidates
        attending = sum(each.attending(candidates, sharing=sharing) for each in self.lengths)
        scored = sum(each.scored(candidates) for each in self.lengths)
        tokens = sum(
            each.shared(candidates) if sharing else sum(each.plain(candidates))
            for each in self.lengths
        )
        head = self.base.get_output_embeddings()
        weights = [] if head is None else list(head.parameters())
        # Forward and input gradient, and if it is trained once more forward and its own gradient.
        products = 4 if any(each.requires_grad for each in weights) else 2
        rows, length = max(self.shapes)
        total = 0.0
        for cost, visits, heads in (
            (self.training[rows, length], policy_visits, products),
            (self.inference, reference_visits, 1),
        ):
            total += cost.flops / (rows * length) * tokens * visits
            total += cost.attention_flops / (rows * length**2) * attending * visits
            total += heads * 2 * _count_of(weights) * scored * visits
        if self.image is not None:
            total += (self.image.flops + self.image.attention_flops) * images
        return round(total)


def _count_of(parameters: Sequence[nn.Parameter]) -> int:
    """Number of values."""
    return sum(each.numel() for each in parameters)


def _bytes_of(parameters: Sequence[nn.Parameter]) -> int:
    """Size in bytes."""
    return sum(each.numel() * each.dtype.itemsize for each in parameters)


def _dtypes(parameters: Sequence[nn.Parameter]) -> str:
    """Names of the dtypes, and how many values."""
    names = sorted({str(each.dtype).removeprefix("torch.") for each in parameters})
    return f"{_count_of(parameters):,} x {' and '.join(names)}"
