"""Adapters that come and go, and a model that stays as it was."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from mdpo.conformance.subject import Subject
from mdpo.models.policy import disable_dropout, prepare_policy

FROZEN = {"vision_tower", "projector"}
"""Parts that are not trained by default."""

DROPOUTS = ("p", "dropout", "attention_dropout", "activation_dropout", "attn_dropout")

RANK = 4


@contextmanager
def preserving(model: PreTrainedModel) -> Iterator[None]:
    """Put everything but weights back as it was: no check changes weights.

    Args:
        model: Without adapters.

    Yields:
        Nothing.
    """
    modes = {module: module.training for module in model.modules()}
    rates = [
        (module, name, getattr(module, name))
        for module in modes
        for name in DROPOUTS
        if isinstance(getattr(module, name, None), float)
    ]
    trained = [(each, each.requires_grad, each.grad) for each in model.parameters()]
    attention = model.config.get_text_config()._attn_implementation
    had_config = hasattr(model, "peft_config")
    try:
        yield
    finally:
        _take_adapters_off(model)
        if not had_config:
            model.__dict__.pop("peft_config", None)
        for module, mode in modes.items():
            module.training = mode
        for module, name, rate in rates:
            setattr(module, name, rate)
        for parameter, requires_grad, grad in trained:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        if model.config.get_text_config()._attn_implementation != attention:
            model.set_attn_implementation({"text_config": attention})


@contextmanager
def adapted(subject: Subject, *, strong: bool) -> Iterator[PeftModel]:
    """Put LoRA on the language model, as training does, dropout off.

    Args:
        subject: Its model carries the adapters meanwhile.
        strong: Whether the adapters change the model; otherwise they begin without effect, as
            training begins.

    Yields:
        The policy, in the mode that the model had.
    """
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK)
    with preserving(subject.model), torch.random.fork_rng(devices=_devices(subject.model)):
        torch.manual_seed(subject.seed)
        policy = prepare_policy(subject.model, config, frozen=FROZEN)
        assert isinstance(policy, PeftModel)
        if strong:
            _strengthen(policy)
        disable_dropout(policy)
        yield policy


def _strengthen(policy: PeftModel) -> None:
    """Draw the adapters' second matrices, which begin at 0."""
    with torch.no_grad():
        for name, each in policy.named_parameters():
            if "lora_B" in name:
                each.normal_(0.0, 0.2 / math.sqrt(RANK))


def _take_adapters_off(model: nn.Module) -> None:
    """Put the layers under adapters back in their places."""
    for module in list(model.modules()):
        if isinstance(module, BaseTunerLayer):
            continue
        for name, child in module.named_children():
            if isinstance(child, BaseTunerLayer):
                base: Any = child.get_base_layer()
                setattr(module, name, base)


def _devices(model: PreTrainedModel) -> list[torch.device]:
    """Devices whose random state is set aside."""
    return [model.device] if model.device.type == "cuda" else []


def facts_of(model: PreTrainedModel, tokenizer: Any) -> dict[str, Any]:
    """Note what must be the same after all checks.

    Args:
        model: Without adapters.
        tokenizer: Of its processor.

    Returns:
        Facts by what they are about.
    """
    from mdpo.models.fingerprints import weights_of

    return {
        "weights": weights_of(model),
        "modules": [(name, id(module)) for name, module in model.named_modules()],
        "mode": [module.training for module in model.modules()],
        "requires_grad": [each.requires_grad for each in model.parameters()],
        "gradients": [id(each.grad) for each in model.parameters()],
        "dropout": [getattr(m, n, None) for m in model.modules() for n in DROPOUTS],
        "attention": model.config.get_text_config()._attn_implementation,
        "padding side": tokenizer.padding_side,
    }
