"""Which scorer a run uses: shared prefix where it is exact, plain rows where it is not.

What config and signature say is looked up first. Then both scorers run on a small batch of the
run's own model and data, and have to agree.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers.utils import logging

from mdpo.data.batch import Batch
from mdpo.models.families import family_of
from mdpo.models.sharing import reason_against_sharing
from mdpo.objectives import Candidate
from mdpo.scoring.images import ImageEncoder
from mdpo.scoring.plain import PlainScorer, Scorer
from mdpo.scoring.reference import evaluating
from mdpo.scoring.shared_prefix import AttentionName, SharedPrefixScorer, bare

logger = logging.get_logger(__name__)

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
"""Largest relative difference that is rounding, by type of computation."""

HALF_TOLERANCE = 2e-2

CANNOT = (TypeError, ValueError, KeyError, AttributeError, NotImplementedError)
"""How a model says that it does not take what the shared-prefix scorer gives it."""


def attention_for(model: nn.Module) -> AttentionName:
    """Choose how packed rows attend from the attention the model was loaded with.

    Args:
        model: With or without wrappers.

    Returns:
        ``dense`` for eager attention, ``flex`` for FlexAttention, ``branches`` otherwise.
    """
    loaded = bare(model).config.get_text_config()._attn_implementation
    kinds: dict[str, AttentionName] = {"eager": "dense", "flex_attention": "flex"}
    return kinds.get(str(loaded), "branches")


def choose_scorer(
    policy: nn.Module, *, images: ImageEncoder | None = None, in_forward: bool = False
) -> Scorer:
    """Take the shared-prefix scorer unless the model's config or signature speaks against it.

    Args:
        policy: With or without wrappers.
        images: Encoder of the policy's images.
        in_forward: Whether images are encoded inside the model's ``forward``.

    Returns:
        The scorer; if it is the plain one, the reason has been logged.
    """
    core = bare(policy)
    reason = reason_against_sharing(core)
    if reason is None and in_forward and family_of(core.config) is None:
        # Nobody has proven it, and where weights are sharded no run can check it.
        reason = f"{type(core).__name__} is of no family in docs/models.md, and weights are sharded"
    if reason is not None:
        logger.warning(f"Prompts are not shared between responses: {reason}. Plain rows it is.")
        return PlainScorer(policy)
    return SharedPrefixScorer(
        policy, attention=attention_for(policy), images=images, in_forward=in_forward
    )


def checked(
    scorer: Scorer, policy: nn.Module, batch: Batch, candidates: Sequence[Candidate]
) -> Scorer:
    """Compare shared-prefix and plain log-probabilities on one batch.

    Args:
        scorer: To be checked; the plain one needs no check.
        policy: With or without wrappers, on its device.
        batch: A small one of the run's own data, on the same device.
        candidates: Of the run.

    Returns:
        ``scorer`` if both agree; otherwise the plain one, after a warning that shows the
        difference.
    """
    if not isinstance(scorer, SharedPrefixScorer):
        return scorer
    core = bare(policy)
    before = core.config.get_text_config()._attn_implementation
    plain = PlainScorer(policy)
    with torch.no_grad(), evaluating(policy):
        expected = plain(policy, batch, candidates)
        try:
            got = scorer(policy, batch, candidates)
        except CANNOT as error:
            core.set_attn_implementation({"text_config": before})
            logger.warning(
                f"{type(core).__name__} cannot score responses with a shared prompt "
                f"({type(error).__name__}: {error}). Plain rows it is."
            )
            return plain
    differences = {
        # What is no number is no agreement either.
        each: float(relative.nan_to_num(nan=torch.inf).max())
        for each in expected
        for relative in [(got[each] - expected[each]).abs() / expected[each].abs().clamp(min=1)]
    }
    worst = max(differences, key=lambda each: differences[each])
    dtype = torch.get_autocast_dtype(core.device.type)
    if not torch.is_autocast_enabled(core.device.type):
        dtype = core.dtype
    tolerance = TOLERANCE.get(dtype, HALF_TOLERANCE)
    if differences[worst] <= tolerance:
        return scorer
    core.set_attn_implementation({"text_config": before})
    logger.warning(
        f"Shared-prefix and plain log-probabilities of {type(core).__name__} differ by "
        f"{differences[worst]:.2g} relative for {worst} (limit {tolerance:g} in {dtype}): "
        f"{got[worst].tolist()} against {expected[worst].tolist()}. Plain rows it is."
    )
    return plain
