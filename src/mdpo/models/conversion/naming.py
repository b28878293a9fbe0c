"""Names of tensors: the original checkpoints', and those that transformers saves.

Saved names are those of published checkpoints of ``LlavaForConditionalGeneration``, which
``save_pretrained`` keeps. Nothing is transposed, split or merged; only beginnings of names differ.
Sources, facts only: Bunny's https://github.com/BAAI-DCAI/Bunny, LLaVA's
https://github.com/haotian-liu/LLaVA.
"""

import re
from collections.abc import Iterable

ORIGINAL_TOWER = "model.vision_tower.vision_tower.vision_model."
SAVED_TOWER = "vision_tower.vision_model."
"""Published checkpoints of LLaVA have both levels, and other programs look for them."""

NATIVE_TOWER = "vision_tower."
CLIP_TOWER = "vision_model."

EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
"""Saved names of the tensors that have one row per token of the vocabulary."""

_SAVED_OF_ORIGINAL = (
    (ORIGINAL_TOWER, SAVED_TOWER),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
_SAVED_OF_NATIVE = (
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", NATIVE_TOWER),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("lm_head.", "language_model.lm_head."),
)
_BUFFER = re.compile(r"(rotary_emb\.inv_freq|embeddings\.position_ids)$")


def is_buffer(name: str) -> bool:
    """Tell what is computed anew when a model is built, and stored by older versions only.

    Args:
        name: Of a tensor.

    Returns:
        Whether it is such a buffer.
    """
    return _BUFFER.search(name) is not None


def saved_of_original(name: str) -> str:
    """Rename a tensor of an original checkpoint.

    Args:
        name: In Bunny or LLaVA.

    Returns:
        The saved name; a name of neither comes back as it is.
    """
    return _replaced(name, _SAVED_OF_ORIGINAL)


def original_of_saved(name: str) -> str:
    """Rename a saved tensor back.

    Args:
        name: Saved.

    Returns:
        The name in the original checkpoint.
    """
    return _replaced(name, [(saved, original) for original, saved in _SAVED_OF_ORIGINAL])


def saved_of_native(name: str) -> str:
    """Rename a tensor of a model in memory as saving does.

    Args:
        name: As in ``state_dict``; saved names stay as they are.

    Returns:
        The saved name.
    """
    name = _replaced(name, _SAVED_OF_NATIVE)
    # A model that was not loaded from a checkpoint is saved with one level less.
    return _replaced(name, [(SAVED_TOWER, SAVED_TOWER), (NATIVE_TOWER, SAVED_TOWER)])


def _replaced(name: str, beginnings: Iterable[tuple[str, str]]) -> str:
    """Replace the first beginning that fits."""
    for before, after in beginnings:
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name
