"""Work that a step cannot do without: the matrix products of its definition, counted by hand.

What is necessary follows from the loss and from where the reference comes from, not from how a
side computes it: each distinct image is encoded once, each prompt passes the language model once,
no padding, logits at response positions only. So a side that computes more is told by this figure.

Conventions, in multiply-adds (2 floating-point operations each):

- Linear layers of the language model under LoRA, per token: forward 1, gradient of the input 1,
  and with gradient checkpointing forward again 1. No gradient of the frozen weights. The first
  layer's gradient of the input is counted like all others.
- LoRA's own products, likewise, and the gradients of its weights 1.
- Attention: the two products QK and AV over pairs that may attend (causal, and no response sees
  the other): forward 2, backward 4, with gradient checkpointing forward again 2. What a fused
  kernel recomputes for itself does not count.
- Output head at response positions: forward 1, gradient of the input 1.
- The reference, where it is computed in the step: forward without LoRA.
- Vision tower and projector: forward, once per distinct image, shared by policy and reference.
- Norms, rotations, softmax, the loss and the optimizer: not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from geometry import Geometry, LanguageShape, RowLengths, TowerShape

QWEN_WINDOW = 8
"""Patches per side of a window of Qwen2.5-VL's tower: 112 pixels of 14 per patch."""

FLOPS_PER_MULTIPLY_ADD = 2


@dataclass(frozen=True)
class PrefixRow:
    """A prompt with the responses that follow it, each as if the others were not there."""

    prompt: int
    responses: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens through the language model."""
        return self.prompt + sum(self.responses)

    @property
    def pairs(self) -> int:
        """Pairs of tokens of which the first may attend to the second, itself included."""
        return _causal(self.prompt) + sum(
            each * self.prompt + _causal(each) for each in self.responses
        )

    @property
    def scored(self) -> int:
        """Positions whose logits are needed."""
        return sum(self.responses)


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one step.

    Attributes:
        forward: Of the policy.
        backward: Of the policy, gradients of LoRA's weights included.
        recompute: Forward again, for gradient checkpointing.
        reference: Of the reference.
        images: Of vision tower and projector.
    """

    forward: int
    backward: int
    recompute: int
    reference: int
    images: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.useful + self.recompute

    @property
    def useful(self) -> int:
        """Without what gradient checkpointing repeats; the numerator of model FLOPs utilisation."""
        return self.forward + self.backward + self.reference + self.images


def necessary_rows(objective: str, lengths: Sequence[RowLengths]) -> list[PrefixRow]:
    """Lay out what an objective needs of each row.

    Args:
        objective: ``dpo`` or ``mdpo``.
        lengths: Tokens of the rows.

    Returns:
        One prefix row per pair and image slot.
    """
    rows = [PrefixRow(each.prompt, (each.chosen, each.rejected)) for each in lengths]
    if objective == "mdpo":
        rows += [PrefixRow(each.prompt, (each.chosen,)) for each in lengths]
    return rows


def necessary_work(
    geometry: Geometry,
    rows: Sequence[PrefixRow],
    *,
    images: int,
    rank: int,
    online_reference: bool,
    checkpointing: bool,
) -> Work:
    """Count the work of a step.

    Args:
        geometry: Shape of the model.
        rows: From ``necessary_rows``.
        images: Distinct images.
        rank: Of LoRA, on all linear layers of the language model.
        online_reference: Whether the step computes the reference.
        checkpointing: Whether each layer is computed again in the backward pass.

    Returns:
        Floating-point operations.
    """
    language = geometry.language
    tokens = sum(row.tokens for row in rows)
    linear = tokens * language.layers * _linear(language)
    lora = tokens * language.layers * _lora(language, rank)
    attention = 2 * sum(row.pairs for row in rows) * language.layers
    attention *= language.heads * language.head_dim
    head = sum(row.scored for row in rows) * language.hidden * language.vocabulary
    layers = linear + lora + attention
    return Work(
        forward=FLOPS_PER_MULTIPLY_ADD * (layers + head),
        backward=FLOPS_PER_MULTIPLY_ADD * (linear + 2 * lora + 2 * attention + head),
        recompute=FLOPS_PER_MULTIPLY_ADD * layers * checkpointing,
        reference=FLOPS_PER_MULTIPLY_ADD * (linear + attention + head) * online_reference,
        images=FLOPS_PER_MULTIPLY_ADD * images * image_multiply_adds(geometry),
    )


def image_multiply_adds(geometry: Geometry) -> int:
    """Count the forward pass of one image through tower and projector.

    Args:
        geometry: Shape of the model.

    Returns:
        Multiply-adds.
    """
    if geometry.family == "qwen2.5-vl":
        return _qwen_image(geometry.tower, geometry.language, geometry.merge)
    return _clip_image(geometry.tower, geometry.language)


def _causal(length: int) -> int:
    """Count pairs within a causal row."""
    return length * (length + 1) // 2


def _linear(language: LanguageShape) -> int:
    """Multiply-adds per token of the linear layers of one decoder layer."""
    return sum(inputs * outputs for inputs, outputs in language.linear_layers)


def _lora(language: LanguageShape, rank: int) -> int:
    """Multiply-adds per token of LoRA on one decoder layer."""
    return sum(rank * (inputs + outputs) for inputs, outputs in language.linear_layers)


def _clip_image(tower: TowerShape, language: LanguageShape) -> int:
    """CLIP with a class token, then LLaVA's projector of two layers."""
    patches = tower.patches_per_side**2
    tokens = patches + 1
    embedding = patches * 3 * tower.patch_size**2 * tower.hidden
    linear = 4 * tower.hidden**2 + 2 * tower.hidden * tower.feed_forward
    attention = 2 * tokens**2 * tower.hidden
    projector = patches * (tower.hidden * language.hidden + language.hidden**2)
    return embedding + tower.layers * (tokens * linear + attention) + projector


def _qwen_image(tower: TowerShape, language: LanguageShape, merge: int) -> int:
    """Tower of Qwen2.5-VL (two equal frames per patch, windows), then its merger."""
    side = tower.patches_per_side
    patches = side**2
    embedding = patches * 2 * 3 * tower.patch_size**2 * tower.hidden
    linear = 4 * tower.hidden**2 + 3 * tower.hidden * tower.feed_forward
    windows = [min(QWEN_WINDOW, side - start) for start in range(0, side, QWEN_WINDOW)]
    windowed_pairs = sum(each**2 for each in windows) ** 2
    num_full = len(tower.full_attention or ())
    pairs = num_full * patches**2 + (tower.layers - num_full) * windowed_pairs
    merged = merge**2 * tower.hidden
    merger = patches // merge**2 * (merged**2 + merged * language.hidden)
    layers = tower.layers * patches * linear + 2 * pairs * tower.hidden
    return embedding + layers + merger
