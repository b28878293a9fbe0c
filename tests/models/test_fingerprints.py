"""Fingerprints: equal for what is equal, different for any difference, adapters left out."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mdpo.models.fingerprints import fingerprint, processor_fingerprint, weights_of
from mdpo.playground.vlm import build_model


def test_facts_in_any_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    assert len(fingerprint({})) == 32


@pytest.mark.parametrize(
    "options",
    [{"target_modules": r".*language_model.*q_proj"}, {"target_modules": ["q_proj", "fc1"]},
     {"target_modules": ["q_proj"], "modules_to_save": ["linear_1"]}],
)  # fmt: skip
def test_adapters_do_not_count(
    model: LlavaForConditionalGeneration, options: dict[str, Any]
) -> None:
    bare = weights_of(model)
    adapted: Any = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **options))
    assert weights_of(adapted) == bare
    with torch.no_grad():
        for name, each in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                each.add_(1)
    assert weights_of(adapted) == bare


def test_any_changed_weight_counts(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor
) -> None:
    before = weights_of(model)
    assert weights_of(build_model(processor, seed=0)) == before
    assert weights_of(build_model(processor, seed=1)) != before
    with torch.no_grad():
        last = list(model.parameters())[-1].flatten()
        last[-1] = torch.nextafter(last[-1], torch.tensor(torch.inf))
    assert weights_of(model) != before


def test_type_shape_and_name_count() -> None:
    def of(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> str:
        module = nn.Module()
        module.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=dtype)))
        return weights_of(module)

    found = {
        of("a", (2, 3), torch.float32),
        of("a", (3, 2), torch.float32),
        of("b", (2, 3), torch.float32),
        of("a", (2, 3), torch.bfloat16),
        of("a", (2, 3), torch.float16),
    }
    assert len(found) == 5


def test_blocks_do_not_change_the_hash(
    model: LlavaForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights_of(model)
    monkeypatch.setattr("mdpo.models.fingerprints.BLOCK", 100)
    assert weights_of(model) == before


def test_a_processor_counts_with_all_its_files(processor: LlavaProcessor) -> None:
    before = processor_fingerprint(processor)
    assert processor_fingerprint(processor) == before
    size: Any = processor.image_processor
    old = size.size
    size.size = {"shortest_edge": 999}
    try:
        assert processor_fingerprint(processor) != before
    finally:
        size.size = old
