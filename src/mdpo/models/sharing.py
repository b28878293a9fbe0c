"""Whether a model may share a prompt between responses, read off its config and signature."""

import inspect
from typing import Any

from transformers import PreTrainedModel

FULL_ATTENTION = "full_attention"


def reason_against_sharing(model: PreTrainedModel) -> str | None:
    """Find what makes a shared prompt inexact for a model.

    Args:
        model: Without wrappers.

    Returns:
        The reason, for people; None if there is none known. What cannot be read off here is
        found by comparing log-probabilities at the start of a run.
    """
    name = type(model).__name__
    text: Any = model.config.get_text_config()
    accepted = inspect.signature(model.forward).parameters
    if "mm_encoder_outputs" not in accepted or not hasattr(model, "get_image_features"):
        return f"{name} takes no image features that were computed before"
    if getattr(model, "_is_stateful", False):
        return f"{name} has recurrent layers"
    if getattr(text, "cross_attention_layers", None):
        return f"{name} attends to images across, not in the sequence"
    kinds = set(getattr(text, "layer_types", None) or [FULL_ATTENTION]) - {FULL_ATTENTION}
    if kinds:
        return f"{name} has layers of kind {', '.join(sorted(kinds))}"
    if _slides(text):
        return f"{name} attends within a sliding window of {text.sliding_window} tokens"
    if "token_type_ids" in accepted:
        return f"{name} attends among image tokens in both directions"
    return None


def _slides(text: Any) -> bool:
    """Whether attention has a window; some configs name one and switch it off."""
    return bool(getattr(text, "sliding_window", None)) and getattr(text, "use_sliding_window", True)


def scales_logits(model: PreTrainedModel) -> bool:
    """Find out whether a model does anything to logits after its head.

    Args:
        model: Without wrappers.

    Returns:
        Whether its config names a cap or a scale.
    """
    text: Any = model.config.get_text_config()
    return any(
        getattr(text, name, None) not in (None, 1, 1.0)
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
    )
