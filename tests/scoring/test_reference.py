"""References: adapters off equals the base model, and nothing of the policy is changed."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from test_plain import batch_of
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mdpo.objectives import CHOSEN
from mdpo.scoring import AdapterOff, FrozenCopy, PlainScorer, frozen_copy_of


def adapted(model: LlavaForConditionalGeneration) -> PeftModel:
    torch.manual_seed(0)
    config = LoraConfig(
        target_modules=r".*language_model.*(q|v)_proj", lora_dropout=0.5, init_lora_weights=False
    )
    policy = get_peft_model(model, config)
    assert isinstance(policy, PeftModel)
    return policy


def test_adapters_off_equals_the_base_model(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, mixed_rows: list[Any]
) -> None:
    batch = batch_of(mixed_rows, processor)
    scorer = PlainScorer(model)
    with torch.no_grad():
        base = scorer(model, batch, [CHOSEN])[CHOSEN]
    policy = adapted(model)
    policy.train()
    reference = AdapterOff(policy, unwrap=lambda wrapped: wrapped)
    off = reference(scorer, batch, [CHOSEN])[CHOSEN]
    torch.testing.assert_close(off, base, rtol=0, atol=0)
    assert not off.requires_grad
    assert all(module.training for module in policy.modules())
    on = scorer(policy, batch, [CHOSEN])[CHOSEN]
    assert on.requires_grad
    assert (on - base).abs().min() > 1e-3


def test_adapters_are_on_again_after_an_error(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, mixed_rows: list[Any]
) -> None:
    policy = adapted(model).eval()
    batch, scorer = batch_of(mixed_rows, processor), PlainScorer(model)
    with torch.no_grad():
        before = scorer(policy, batch, [CHOSEN])[CHOSEN]

    def broken(model: object, batch: object, candidates: object) -> Any:
        raise KeyError("broken")

    with pytest.raises(KeyError, match=r"broken"):
        AdapterOff(policy, unwrap=lambda wrapped: wrapped)(broken, batch, [CHOSEN])
    with torch.no_grad():
        after = scorer(policy, batch, [CHOSEN])[CHOSEN]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_model_without_adapters_is_refused(model: LlavaForConditionalGeneration) -> None:
    with pytest.raises(TypeError, match=r"needs a PeftModel, got LlavaForConditionalGeneration"):
        AdapterOff(model, unwrap=lambda wrapped: wrapped)


def test_a_frozen_copy_stays_when_the_policy_moves(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, mixed_rows: list[Any]
) -> None:
    batch, scorer = batch_of(mixed_rows, processor), PlainScorer(model)
    reference = FrozenCopy(frozen_copy_of(model))
    before = reference(scorer, batch, [CHOSEN])[CHOSEN]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
        moved = scorer(model, batch, [CHOSEN])[CHOSEN]
    after = reference(scorer, batch, [CHOSEN])[CHOSEN]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not after.requires_grad
    assert not torch.allclose(moved, before)
