"""Which reference a run has: what the policy is before its first step, or a model of its own."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from mdpo.models.fingerprints import adapters_of
from mdpo.scoring import AdapterOff, AtStart, CachedReference, FrozenCopy, LogpStore, Reference
from mdpo.training.config import MDPOConfig

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
"""Where weights are whole only inside the wrapped model's ``forward``."""


def starting_adapters(policy: nn.Module) -> str | None:
    """Hash the adapters that training starts from, if they do anything yet.

    Args:
        policy: Before its first step, without wrappers.

    Returns:
        Hash, or None for a policy without adapters, or with ones that change nothing so far.
    """
    if not isinstance(policy, PeftModel) or not _have_effect(policy):
        return None
    return adapters_of(policy)


def make_reference(
    policy: Any,
    ref_model: nn.Module | None,
    *,
    args: MDPOConfig,
    accelerator: Accelerator,
    store: LogpStore | None,
    starts_from_adapters: bool,
) -> Reference:
    """Choose where reference log-probabilities come from.

    Args:
        policy: Before its first step, without wrappers.
        ref_model: Reference of its own, if there is one.
        args: Settings of the run.
        accelerator: Of the run.
        store: Of log-probabilities, if they are computed once.
        starts_from_adapters: Whether the policy's adapters have an effect from the start.

    Returns:
        The reference.

    Raises:
        ValueError: If the weights of the start cannot be kept under sharding.
    """
    online: Reference | None = None
    sharded = accelerator.distributed_type in SHARDED
    if ref_model is not None:
        online = FrozenCopy(accelerator.prepare_model(ref_model, evaluation_mode=True))
    elif starts_from_adapters and not sharded:
        online = AtStart(policy, unwrap=accelerator.unwrap_model)
    elif starts_from_adapters and (store is None or args.corruption_per_epoch):
        raise ValueError(
            f"Training on with adapters needs those of the start for the reference, and under "
            f"{accelerator.distributed_type.value} they cannot be kept beside the trained ones. "
            "Fold them into the model (`mdpo merge`) and train new ones, or compute the reference "
            "before (`precompute_ref_log_probs` true, on one device first)."
        )
    elif isinstance(policy, PeftModel) and not starts_from_adapters:
        online = AdapterOff(policy, unwrap=accelerator.unwrap_model)
    if store is not None:
        drawn = {"rejected"} if args.corruption_per_epoch else set()
        return CachedReference(store, online=online, drawn_per_epoch=drawn)
    assert online is not None
    return online


def _have_effect(policy: PeftModel) -> bool:
    """Whether a model with its adapters differs from the one without."""
    for module in policy.modules():
        if isinstance(module, ModulesToSaveWrapper):
            own, saved = module.original_module, module.modules_to_save[str(policy.active_adapter)]
            pairs = zip(own.parameters(), saved.parameters(), strict=True)
            if not all(torch.equal(a, b.to(a.dtype)) for a, b in pairs):
                return True
        elif isinstance(module, LoraLayer):
            last = [*module.lora_B.parameters(), *module.lora_embedding_B.parameters()]
            if any(bool(each.any()) for each in last):
                return True
        elif isinstance(module, BaseTunerLayer):
            # Of other kinds of adapters it is not known how they begin.
            return True
    return False
