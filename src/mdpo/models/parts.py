"""The parts of a vision-language model: vision tower, projector, language model.

What belongs where is read off the model through transformers' own look-ups, so that no model type
is asked for by name.
"""

import re
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Parts:
    """Names of the modules of each part, as in ``named_modules``.

    Attributes:
        vision_tower: Root of the image encoder.
        language_model: Root of the decoder; the output head stands outside of it.
        projector: Roots of what lies between the two.
        head: The output head; None if it is within the decoder.
    """

    vision_tower: str
    language_model: str
    projector: tuple[str, ...]
    head: str | None = None

    def part_of(self, name: str) -> str:
        """Say to which part a module or parameter belongs.

        Args:
            name: As in ``named_modules`` or ``named_parameters``.

        Returns:
            ``vision_tower``, ``projector`` or ``language_model``; the head counts as the last, and
            parameters outside of all modules, such as LLaVA-NeXT's ``image_newline``, as the
            second.
        """
        if _is_below(name, self.vision_tower):
            return "vision_tower"
        if _is_below(name, self.language_model) or (self.head and _is_below(name, self.head)):
            return "language_model"
        return "projector"


def find_parts(model: PreTrainedModel) -> Parts:
    """Find the parts of a vision-language model.

    Args:
        model: Without adapters or wrappers.

    Returns:
        Names of its parts.

    Raises:
        ValueError: If it has no vision tower or no decoder that transformers' look-ups know.
    """
    names = {module: name for name, module in model.named_modules()}
    tower = model.get_encoder(modality="image")
    decoder = model.get_decoder()
    if tower in (model, model.base_model) or not names.get(tower):
        raise ValueError(f"{type(model).__name__} has no vision tower that can be told apart.")
    if decoder in (model, model.base_model) or not names.get(decoder):
        raise ValueError(f"{type(model).__name__} has no language model that can be told apart.")
    tower_name, decoder_name = names[tower], names[decoder]
    head = model.get_output_embeddings()
    projector = [
        name
        for name, module in model.named_modules()
        if name
        and module is not head
        and not any(_is_below(name, root) for root in (tower_name, decoder_name))
        # A parent of tower or decoder is no part, only a shell around parts.
        and not any(_is_below(root, name) for root in (tower_name, decoder_name))
    ]
    roots = [
        name for name in projector if not any(_is_below(name, o) for o in projector if o != name)
    ]
    return Parts(tower_name, decoder_name, tuple(roots), None if head is None else names[head])


def freeze(model: nn.Module, parts: Parts, frozen: set[str]) -> None:
    """Take parts out of training.

    Args:
        model: The model the parts were found in.
        parts: From ``find_parts``.
        frozen: Names of parts: ``vision_tower``, ``projector``, ``language_model``.
    """
    for name, parameter in model.named_parameters():
        if parts.part_of(name) in frozen:
            parameter.requires_grad_(False)


def linear_targets(model: PreTrainedModel, parts: Parts, adapted: set[str]) -> str:
    """Write the pattern of the linear layers that LoRA is to adapt.

    The pattern is on full names. A list of suffixes would reach the vision tower too, which in
    many families uses the same names (``q_proj``, ``fc1``).

    Args:
        model: Without adapters.
        parts: From ``find_parts``.
        adapted: Names of parts whose linear layers are adapted; the output head never is.

    Returns:
        A regular expression for the whole name of a module, as peft takes it.

    Raises:
        ValueError: If no layer matches.
    """
    head = model.get_output_embeddings()
    patterns = {
        re.sub(r"(?<=\.)\d+(?=\.)", "#", name)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and parts.part_of(name) in adapted
    }
    if not patterns:
        raise ValueError(f"No linear layer found in {', '.join(sorted(adapted))} to put LoRA on.")
    alternatives = sorted(re.escape(each).replace(r"\#", "#") for each in patterns)
    return "(" + "|".join(each.replace("#", r"\d+") for each in alternatives) + ")"


def _is_below(name: str, root: str) -> bool:
    """Whether a dotted name is ``root`` or lies within it."""
    return name == root or name.startswith(root + ".")
