"""Parts of a model, patterns for adapters, loading and merging."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from mdpo.models.adapted import base_of, load_adapted, merge_adapter, weights_fingerprint
from mdpo.models.loading import load_model
from mdpo.models.parts import find_parts, linear_targets


def test_parts_of_llava(model: LlavaForConditionalGeneration) -> None:
    parts = find_parts(model)
    assert parts.vision_tower == "model.vision_tower"
    assert parts.language_model == "model.language_model"
    assert parts.projector == ("model.multi_modal_projector",)
    kinds = {parts.part_of(name) for name, _ in model.named_parameters()}
    assert kinds == {"vision_tower", "projector", "language_model"}
    assert parts.part_of("lm_head.weight") == "language_model"


def test_the_pattern_reaches_the_language_model_only(model: LlavaForConditionalGeneration) -> None:
    # CLIP has layers of the same names: a list of suffixes would reach them
    pattern = linear_targets(model, find_parts(model), {"language_model"})
    matched = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    assert len(matched) == 4 * 7
    assert all(name.startswith("model.language_model.layers.") for name in matched)
    suffixes = {name.rsplit(".", 1)[1] for name in matched}
    assert suffixes == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip


def test_the_pattern_reaches_other_parts_if_asked(model: LlavaForConditionalGeneration) -> None:
    pattern = linear_targets(model, find_parts(model), {"projector"})
    matched = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    assert matched == [
        "model.multi_modal_projector.linear_1",
        "model.multi_modal_projector.linear_2",
    ]


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"must be a vision-language model, got .* of type 'llama'"
    ):
        load_model(tmp_path)


def test_an_unknown_dtype_is_refused(model_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"`dtype` must be one of auto, bfloat16"):
        load_model(model_dir, dtype="half")


def test_dtype_is_that_asked_for(model_dir: Path) -> None:
    assert load_model(model_dir, dtype="bfloat16").dtype == torch.bfloat16
    assert load_model(model_dir).dtype == torch.float32


def save_adapter(model_dir: Path, folder: Path) -> None:
    torch.manual_seed(0)
    base = AutoModelForImageTextToText.from_pretrained(model_dir)
    config = LoraConfig(
        target_modules=linear_targets(base, find_parts(base), {"language_model"}),
        init_lora_weights=False,
    )
    get_peft_model(base, config).save_pretrained(str(folder))


def test_merged_weights_answer_as_adapter_and_base_do(
    model_dir: Path, processor: LlavaProcessor, tmp_path: Path
) -> None:
    save_adapter(model_dir, tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged", model=None, dtype="auto")
    adapted = load_adapted(None, tmp_path / "adapter")
    assert isinstance(adapted, PeftModel)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    base = AutoModelForImageTextToText.from_pretrained(model_dir).eval()
    arguments: dict[str, Any] = {"text": ["USER: hi ASSISTANT:"], "return_tensors": "pt"}
    inputs = processor(**arguments)
    with torch.no_grad():
        with_adapter = adapted(**inputs).logits
        torch.testing.assert_close(merged(**inputs).logits, with_adapter, rtol=1e-4, atol=1e-4)
        assert (base(**inputs).logits - with_adapter).abs().max() > 0.01
    assert (tmp_path / "merged" / "chat_template.jinja").exists()


def test_the_fingerprint_is_that_of_the_weights(model_dir: Path, tmp_path: Path) -> None:
    first = weights_fingerprint(model_dir)
    assert weights_fingerprint(str(model_dir)) == first
    model = AutoModelForImageTextToText.from_pretrained(model_dir)
    model.save_pretrained(tmp_path / "same")
    with torch.no_grad():
        next(model.parameters()).flatten()[0] += 1
    model.save_pretrained(tmp_path / "other")
    assert weights_fingerprint(tmp_path / "same") == first
    assert weights_fingerprint(tmp_path / "other") != first
    assert weights_fingerprint("owner/name") == "owner/name"


def test_merging_needs_adapters_and_another_folder(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"adapter_config.json is missing"):
        base_of(model_dir)
    with pytest.raises(ValueError, match=r"`--out` must be another folder"):
        merge_adapter(tmp_path, tmp_path, model=None, dtype="auto")
    with pytest.raises(ValueError, match=r"`--model` or `--adapter` must be given"):
        load_adapted(None, None)
