"""Models, processors and targets that do not go together are refused, and sound ones never are."""

import ast
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mdpo import MDPOConfig, MDPOTrainer
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.data.encoding import Encoder
from mdpo.models.compatibility import (
    check_image_features,
    check_image_token,
    check_targets,
    check_tokenizer,
)
from mdpo.models.loading import load_model
from mdpo.models.parts import find_parts
from mdpo.models.policy import prepare_policy
from mdpo.training.preparation import blank_prompt

FROZEN = {"vision_tower", "projector"}


def check(model: Any, processor: Any) -> None:
    """All that a trainer checks of a processor, in its order."""
    check_tokenizer(model, processor)
    inputs = blank_prompt(Encoder(processor))
    check_image_token(model, processor, inputs)
    check_image_features(model, processor, inputs)


@pytest.mark.parametrize("family", TINY_MODELS)
def test_a_models_own_processor_is_taken(family: str) -> None:
    tiny = TINY_MODELS[family]()
    check(tiny.model(), tiny.processor)


@pytest.mark.parametrize(
    ("model", "processor", "words"),
    [
        ("llava", "qwen2_vl", r"embedding of LlavaForConditionalGeneration has 260 rows only"),
        (
            "internvl",
            "qwen3_vl",
            r"InternVLForConditionalGeneration .*cannot encode|puts images wh",
        ),
        ("qwen2_vl", "llava", r"Qwen2VLForConditionalGeneration cannot encode an image as LlavaPr"),
        (
            "gemma3",
            "llava",
            r"puts images where token 260 \(.*\) stands, but LlavaProcessor writes",
        ),
        ("llava_next", "llava", r"LlavaNextForConditionalGeneration cannot encode an image"),
    ],
)
def test_a_processor_of_another_family_is_refused(model: str, processor: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        check(TINY_MODELS[model]().model(), TINY_MODELS[processor]().processor)
    assert "AutoProcessor.from_pretrained of the same folder" in str(error.value)


def test_a_patch_size_that_differs_is_named(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor
) -> None:
    other: Any = copy.copy(processor)
    other.patch_size *= 2
    with pytest.raises(
        ValueError, match=r"LlavaProcessor writes \d+ image tokens .* makes \d+ fea"
    ):
        check(model, other)
    with pytest.raises(
        ValueError, match=r"`patch_size` of the processor is \d+, `vision_config.pa"
    ):
        check(model, other)


def test_an_image_size_that_differs_is_named(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor
) -> None:
    other = copy.copy(processor)
    other.image_processor = copy.deepcopy(processor.image_processor)
    images: Any = other.image_processor
    vision: Any = model.config.vision_config
    size = vision.image_size
    images.size = {"height": 2 * size, "width": 2 * size}
    images.crop_size = {"height": 2 * size, "width": 2 * size}
    with pytest.raises(ValueError, match=rf"size` of the processor is {2 * size}, .* {size}"):
        check(model, other)


def test_a_missing_image_token_is_named(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor
) -> None:
    other = copy.copy(processor)
    other.image_token = "<picture>"
    with pytest.raises(
        ValueError, match=r"LlavaProcessor has no token '<picture>', which stands f"
    ):
        check_tokenizer(model, other)


def test_tokens_beyond_the_embedding_are_named(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor
) -> None:
    other = copy.copy(processor)
    other.tokenizer = copy.deepcopy(processor.tokenizer)
    rows = len(model.get_parameter("model.language_model.embed_tokens.weight"))
    other.tokenizer.add_tokens([f"<new-{k}>" for k in range(rows + 1 - len(other.tokenizer))])
    with pytest.raises(
        ValueError, match=rf"has token {rows} \('<new-.*{rows} rows only.*resize_tok"
    ):
        check_tokenizer(model, other)
    model.resize_token_embeddings(rows + 1)
    check_tokenizer(model, other)


def test_an_error_of_the_machine_is_not_put_on_the_processor(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(**_: Any) -> Any:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(model, "get_image_features", full)
    inputs = {"input_ids": torch.tensor([[model.config.image_token_id]])}
    with pytest.raises(torch.OutOfMemoryError):
        check_image_features(model, processor, inputs)


def test_the_trainer_refuses_before_it_looks_at_data(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor
) -> None:
    other = copy.copy(processor)
    other.image_token = "<picture>"
    args = MDPOConfig(output_dir="x", use_cpu=True)
    with pytest.raises(ValueError, match=r"no token '<picture>'"):
        MDPOTrainer(model, args=args, train_dataset=["no row"], processing_class=other)


def test_the_trainer_encodes_one_image(
    model_dir: Path, processor: LlavaProcessor, make_rows: Any, tmp_path: Path
) -> None:
    other: Any = copy.copy(processor)
    other.patch_size *= 2
    args = MDPOConfig(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True)
    with pytest.raises(ValueError, match=r"LlavaProcessor writes \d+ image tokens"):
        MDPOTrainer(
            model_dir,
            args=args,
            train_dataset=make_rows(2),
            processing_class=other,
            peft_config=LoraConfig(r=2),
        )


def targets(model: Any, given: Any, frozen: set[str] = FROZEN, **options: Any) -> None:
    check_targets(
        model, LoraConfig(target_modules=given, **options), find_parts(model), frozen=frozen
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["q_prj"], r"'q_prj' is no module of Llava.* Did you mean 'q_proj'\?"),
        (["q_proj", "wqkv"], r"'wqkv' is no module of Llava"),
        ("q_proj", r"A text is a pattern on full names; a list is of ends of names: \['q_proj'\]"),
        (r".*\.attention\..*", r"called q_proj, k_proj, .*begin with 'model.language_model'"),
    ],
)
def test_targets_that_match_nothing_are_refused(
    model: LlavaForConditionalGeneration, given: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        targets(model, given, frozen=set())


@pytest.mark.parametrize("given", [["q_proj", "v_proj"], "all-linear", r".*\.q_proj"])
def test_targets_in_the_frozen_tower_are_refused_with_a_pattern_that_works(
    model: LlavaForConditionalGeneration, given: Any
) -> None:
    words = r"reach model\.vision_tower\..* and \d+ more, but the vision_tower is to stay frozen"
    with pytest.raises(ValueError, match=words) as error:
        targets(model, given)
    pattern = ast.literal_eval(str(error.value).split("Take ")[1].split(" instead")[0])
    targets(model, pattern)
    policy: Any = prepare_policy(model, LoraConfig(target_modules=pattern), frozen=FROZEN)
    adapted = {name for name, each in policy.named_parameters() if each.requires_grad}
    assert adapted
    assert all("language_model" in name for name in adapted)
    if isinstance(given, list):
        assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in adapted} == set(given)


def test_targets_that_stay_in_the_language_model_are_taken(
    model: LlavaForConditionalGeneration,
) -> None:
    targets(model, ["gate_proj", "o_proj"])
    targets(model, r"model\.language_model\..*\.q_proj")
    targets(model, ["q_proj"], exclude_modules=r"model\.vision_tower\..*")
    targets(model, ["q_proj"], frozen={"projector"})


def test_modules_to_save_in_a_frozen_part_are_refused(model_dir: Path) -> None:
    config = LoraConfig(r=2, modules_to_save=["linear_1"])
    with pytest.raises(ValueError, match=r"the projector is to stay frozen.*`modules_to_save`"):
        prepare_policy(load_model(model_dir), config, frozen=FROZEN)


def test_policies_are_made_of_checked_targets_only(model_dir: Path) -> None:
    for given, words in ((["q_proj"], r"Take '.*' instead"), (["q_prj"], r"Did you mean 'q_proj'")):
        with pytest.raises(ValueError, match=words):
            prepare_policy(load_model(model_dir), LoraConfig(target_modules=given), frozen=FROZEN)
