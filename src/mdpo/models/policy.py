"""From a loaded model to a policy: frozen parts, adapters, dropout."""

import dataclasses

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from mdpo.models.compatibility import check_targets, check_trains_adapters
from mdpo.models.parts import find_parts, freeze, linear_targets

PARTS: tuple[str, ...] = ("language_model", "projector", "vision_tower")

PEFT_PREFIX = "base_model.model."
"""Before each name of the base model inside a ``PeftModel``."""


def prepare_policy(
    model: PreTrainedModel | PeftModel, peft_config: PeftConfig | None, *, frozen: set[str]
) -> PreTrainedModel | PeftModel:
    """Freeze parts of a model and put adapters on the others, if asked to.

    Args:
        model: As loaded; a model that has adapters already keeps them.
        peft_config: Adapters to add. Without ``target_modules`` they go on all linear layers of
            the parts that are not frozen.
        frozen: Names of parts that are not trained.

    Returns:
        The policy.

    Raises:
        ValueError: If nothing is left to train, quantized weights would be, adapters match no
            module or reach a frozen part, or are asked for on a model that has some.
    """
    if isinstance(model, PeftModel):
        if list(model.peft_config) != ["default"]:
            raise ValueError(
                "`model` must have one set of adapters, named 'default', got "
                f"{', '.join(map(repr, model.peft_config))}. Load the one to train on with "
                "PeftModel.from_pretrained(base, folder, is_trainable=True)."
            )
        if peft_config is not None:
            raise ValueError(
                "`peft_config` must be left out for a model that has adapters already. "
                "Merge them first, or train on with them."
            )
        return _checked(model, model.get_base_model(), frozen)
    parts = find_parts(model)
    if peft_config is None:
        check_trains_adapters(model)
        freeze(model, parts, frozen)
        return _checked(model, model, frozen)
    if isinstance(peft_config, LoraConfig) and peft_config.target_modules is None:
        adapted = set(PARTS) - frozen
        peft_config = dataclasses.replace(
            peft_config, target_modules=linear_targets(model, parts, adapted)
        )
    check_targets(model, peft_config, parts, frozen=frozen)
    policy = get_peft_model(model, peft_config)
    assert isinstance(policy, PeftModel)
    return _checked(policy, policy.get_base_model(), frozen)


def disable_dropout(model: nn.Module) -> None:
    """Switch all dropout off, also where attention keeps it as a plain number.

    Args:
        model: Changed in place.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout", "attn_dropout"):
            # Attention layers pass such a number to the kernel while `training` is set.
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _checked(
    policy: PreTrainedModel | PeftModel, base: nn.Module, frozen: set[str]
) -> PreTrainedModel | PeftModel:
    """Refuse a policy that would train nothing, or what is to stay frozen."""
    assert isinstance(base, PreTrainedModel)
    parts = find_parts(base)
    trained = [name for name, each in policy.named_parameters() if each.requires_grad]
    if not trained:
        raise ValueError(
            "No parameter is left to train. Freeze less, give `peft_config`, or load adapters with "
            "`is_trainable=True`."
        )
    for name in trained:
        part = parts.part_of(name.removeprefix(PEFT_PREFIX))
        if part in frozen:
            raise ValueError(
                f"{name} would be trained, but the {part} is to stay frozen. Narrow "
                "`target_modules` and `modules_to_save`, or unfreeze the part."
            )
    return policy
