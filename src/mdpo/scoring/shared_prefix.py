"""The shared-prefix scorer: one prompt per image, one encoding per image, no padding.

What it computes is what ``PlainScorer`` computes, in less time and memory.

Shapes: ``b`` pairs, ``t`` tokens of the packed sequence, ``n`` response tokens.
"""

import inspect
from collections.abc import Iterable
from typing import Any, Literal
from weakref import WeakSet

import torch
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from mdpo.data.batch import Batch
from mdpo.models.sharing import real_vocabulary, scales_logits
from mdpo.objectives import Candidate
from mdpo.scoring.attention import (
    BRANCHES,
    PackedAttention,
    block_mask,
    dense_mask,
    places_in_batch,
)
from mdpo.scoring.head import ResponseHead
from mdpo.scoring.images import ImageEncoder, image_inputs
from mdpo.scoring.layout import CandidateRows, sum_by_row, token_logps
from mdpo.scoring.packing import Packed, by_image, pack

AttentionName = Literal["branches", "flex", "dense"]

IMPLEMENTATIONS: dict[str, str] = {"branches": BRANCHES, "flex": "flex_attention"}
"""Attention implementation of transformers that computes a kind; dense masks suit several."""


class SharedPrefixScorer:
    """All candidates of a batch in one forward pass.

    Attributes:
        attention: How packed rows attend; see ``mdpo.scoring.attention``.
        images: Encodes each distinct image once.
    """

    def __init__(
        self,
        policy: nn.Module,
        *,
        attention: AttentionName = "branches",
        images: ImageEncoder | None = None,
        in_forward: bool = False,
    ) -> None:
        """Set up for a policy and for references of the same class.

        Args:
            policy: With or without adapters and wrappers.
            attention: How packed rows attend.
            images: Encoder of the policy's images; None makes one without a cache.
            in_forward: Whether images are encoded inside the model's ``forward``, once for each
                model: needed where weights are gathered there (FSDP, ZeRO-3).
        """
        self.attention: AttentionName = attention
        self.images = images or ImageEncoder(bare(policy))
        self.in_forward = in_forward
        self._set_up: WeakSet[nn.Module] = WeakSet()
        self._last: tuple[Batch, tuple[Candidate, ...], Packed] | None = None

    def __call__(
        self, model: nn.Module, batch: Batch, candidates: Iterable[Candidate]
    ) -> dict[Candidate, Float[Tensor, " b"]]:
        """Score candidates together.

        Args:
            model: Policy or reference, as wrapped for training.
            batch: From collation; it must hold the slots that the candidates name.
            candidates: What to score.

        Returns:
            Summed response log-probabilities in nats, float32, one per pair.
        """
        wanted = tuple(sorted(set(candidates)))
        core = bare(model)
        self._choose_attention(core)
        packed = self._pack(core, batch, wanted)
        inputs, predictors = self._masked(core, packed)
        inputs |= self._with_images(core, batch, by_image(wanted))
        logps = _token_logps(model, core, inputs, predictors, packed.response_ids)
        pairs = len(batch["rows"])
        sums = sum_by_row(logps, packed.owners, num_rows=len(wanted) * pairs)
        return dict(zip(wanted, sums.split(pairs), strict=True))

    def _pack(self, core: PreTrainedModel, batch: Batch, wanted: tuple[Candidate, ...]) -> Packed:
        """Lay candidates out, once for policy and reference: it makes the host wait."""
        if self._last is None or self._last[0] is not batch or self._last[1] != wanted:
            packed = pack(batch, wanted, lambda rows: positions(core, rows))
            self._last = (batch, wanted, packed)
        return self._last[2]

    def _choose_attention(self, core: PreTrainedModel) -> None:
        """Give a model's decoder the attention this scorer needs, once."""
        if core in self._set_up:
            return
        self._set_up.add(core)
        if self.attention in IMPLEMENTATIONS:
            implementation = IMPLEMENTATIONS[self.attention]
            # The vision tower keeps its own.
            core.set_attn_implementation({"text_config": implementation})
            chosen = core.config.get_text_config()._attn_implementation
            if chosen != implementation:
                raise ValueError(
                    f"{type(core).__name__} cannot attend by {implementation!r}, it stayed with "
                    f"{chosen!r}. Set `scorer` to plain."
                )

    def _masked(self, core: PreTrainedModel, packed: Packed) -> tuple[dict[str, Any], Tensor]:
        """Add the mask, and lay rows side by side where it is dense."""
        device = packed.predictors.device
        inputs: dict[str, Any] = dict(packed.inputs)
        if self.attention == "branches":
            # Of four axes, so that the model makes none of its own.
            inputs["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
            inputs["packed"] = PackedAttention(packed.rows)
            return inputs, packed.predictors
        if self.attention == "flex":
            inputs["attention_mask"] = block_mask(packed.rows, device)
            return inputs, packed.predictors
        places = places_in_batch(packed.rows).to(device)
        shape = (len(packed.rows), max(row.length for row in packed.rows))
        padded = {key: _spread(each, places, shape) for key, each in packed.inputs.items()}
        padded["attention_mask"] = _as_taken(core, dense_mask(packed.rows).to(device))
        return padded, places[packed.predictors]

    def _with_images(
        self, core: PreTrainedModel, batch: Batch, slots: Iterable[str]
    ) -> dict[str, Any]:
        """Add features of the images, or their pixels."""
        with_images = [slot for slot in slots if image_inputs(batch["prompts"][slot])]
        if not with_images:
            return {}
        if not self.in_forward:
            return {"mm_encoder_outputs": {"image": self.images(core, batch, with_images)}}
        parts = [image_inputs(batch["prompts"][slot]) for slot in with_images]
        return {key: _padded([part[key] for part in parts]) for key in parts[0]}


def _padded(parts: list[Tensor]) -> Tensor:
    """Put pixels in a row that may differ in tiles or size; models leave tiles of zeros out."""
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    rows = [part.new_zeros(len(part), *shape) for part in parts]
    for row, part in zip(rows, parts, strict=True):
        row[tuple(slice(size) for size in part.shape)] = part
    return torch.cat(rows)


def bare(model: nn.Module) -> PreTrainedModel:
    """Take wrappers and adapters' shell off a model.

    Args:
        model: As wrapped for training.

    Returns:
        The transformers model; adapters stay in its layers.
    """
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    return inner.get_base_model() if isinstance(inner, PeftModel) else inner  # pyright: ignore[reportReturnType]


def positions(core: PreTrainedModel, rows: CandidateRows) -> Int[Tensor, "k b s"]:
    """Work out the positions a model gives to the tokens of plain rows.

    Args:
        core: Without wrappers.
        rows: With one response each, padded on the right.

    Returns:
        Of one axis, or of three (time, height, width) where the model has a rule for images.
    """
    ids = rows.inputs["input_ids"]
    plain = torch.arange(ids.shape[1], device=ids.device).expand(1, *ids.shape)
    rule = getattr(core.base_model, "get_rope_index", None)
    if rule is None:
        return plain
    accepted = inspect.signature(rule).parameters
    if not image_inputs(rows.inputs):
        return plain.expand(3, *ids.shape)
    places, _ = rule(**{key: each for key, each in rows.inputs.items() if key in accepted})
    return places


def _token_logps(
    model: nn.Module,
    core: PreTrainedModel,
    inputs: dict[str, Any],
    predictors: Int[Tensor, " n"],
    ids: Int[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Run the model and score tokens, through its head alone where nothing comes after it."""
    head, vocabulary = core.get_output_embeddings(), real_vocabulary(core)
    if isinstance(head, nn.Module) and not scales_logits(core):
        with ResponseHead(head, vocabulary=vocabulary).scoring(predictors, ids):
            return model(**inputs, use_cache=False).logits
    logits = model(**inputs, use_cache=False).logits
    return token_logps(logits.flatten(0, 1)[predictors, :vocabulary], ids)


def _spread(values: Tensor, places: Int[Tensor, " t"], shape: tuple[int, int]) -> Tensor:
    """Move values of a packed sequence to their places in a padded batch; padding is 0."""
    lead = values.shape[:-2]
    spread = values.new_zeros(*lead, shape[0] * shape[1])
    spread[..., places] = values.squeeze(-2)
    return spread.unflatten(-1, shape)


def _as_taken(core: PreTrainedModel, mask: Tensor) -> Tensor:
    """Write a mask as the model's attention takes it: eager adds it to the products."""
    if core.config.get_text_config()._attn_implementation != "eager":
        return mask
    dtype = core.dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        ~mask, torch.finfo(dtype).min
    )
