"""Whether a model may share a prompt between responses, read off its config and signature."""

import inspect
from typing import Any

from torch import nn
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
    if "token_type_ids" in accepted:
        return f"{name} attends among image tokens in both directions"
    kinds = set(getattr(text, "layer_types", None) or [FULL_ATTENTION]) - {FULL_ATTENTION}
    if kinds:
        return f"{name} has layers of kind {', '.join(sorted(kinds))}"
    if _slides(text):
        return f"{name} attends within a sliding window of {text.sliding_window} tokens"
    return None


def _slides(text: Any) -> bool:
    """Whether attention has a window; some configs name one and switch it off."""
    return bool(getattr(text, "sliding_window", None)) and getattr(text, "use_sliding_window", True)


def real_vocabulary(model: nn.Module) -> int | None:
    """Look up how many entries of a model's vocabulary are real.

    Converted checkpoints have a few more rows, for the image token and to a round number. A head
    without bias gives them a share of the probability, which the original model has not.

    Args:
        model: Without wrappers.

    Returns:
        The ``real_vocab_size`` of its config; None if all are real.
    """
    return getattr(getattr(model, "config", None), "real_vocab_size", None)


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
