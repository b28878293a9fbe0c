"""Stores of a run: another store for whatever changes the numbers, the same for what does not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mdpo import MDPOConfig
from mdpo.training.caches import cache_folder, open_feature_cache, open_logp_store


@pytest.fixture
def folder(model: LlavaForConditionalGeneration, processor: LlavaProcessor, tmp_path: Path) -> Any:
    def of(*, data: str = "d", adapters: str | None = None, **settings: Any) -> str:
        args = MDPOConfig(output_dir="x", use_cpu=True, ref_cache_dir=str(tmp_path), **settings)
        store = open_logp_store(
            args, model, processor, data_fingerprints=[data], adapters=adapters
        )  # fmt: skip
        return store.folder.name

    return of


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 1.0},
        {"objective": "dpo"},
        {"beta": 0.5},
        {"num_train_epochs": 7},
        {"scorer": "plain"},
        {"max_tokens_per_batch": 9},
        {"seed": 5, "data_seed": 42},
        {"data": "other rows of the same run"},
    ],
)
def test_what_changes_no_number_changes_no_store(folder: Any, settings: dict[str, Any]) -> None:
    assert folder(**settings) == folder()


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 5},
        {"data_seed": 5},
        {"corruption": "black"},
        {"corruption_options": {"area_low": 0.05}},
        {"image_condition": "swapped"},
        {"max_length": 100},
        {"bf16": True},
        {"chat_template_kwargs": {"answer_space": ""}},
        {"adapters": "hash of those of the start"},
    ],
)
def test_what_changes_a_number_changes_the_store(folder: Any, settings: dict[str, Any]) -> None:
    assert folder(**settings) != folder()


@pytest.mark.parametrize(
    "settings", [{"corruption": "random_image"}, {"image_condition": "swapped"}]
)
def test_borrowed_images_depend_on_all_rows(folder: Any, settings: dict[str, Any]) -> None:
    assert folder(data="a", **settings) != folder(data="b", **settings)


def test_the_model_changes_the_store(folder: Any, model: LlavaForConditionalGeneration) -> None:
    before = folder()
    model.config._name_or_path = "elsewhere"
    assert folder() == before
    layer = model.config.vision_feature_layer
    model.config.vision_feature_layer = -3
    assert folder() != before
    model.config.vision_feature_layer = layer
    assert folder() == before
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert folder() != before


def test_the_processor_changes_the_store(folder: Any, processor: LlavaProcessor) -> None:
    before, old = folder(), processor.chat_template
    processor.chat_template = f"{old} "
    try:
        assert folder() != before
    finally:
        processor.chat_template = old


def test_the_size_of_the_feature_cache_is_told(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mdpo.training.caches.logger.warning", lines.append)
    width = model.config.get_text_config().hidden_size
    tokens = 2**30 // (width * 4)  # 1 GiB in float32
    for per_epoch, expected in ((False, "2.00 GiB"), (True, "1.00 GiB")):
        for kind in ("memory", "disk"):
            args = MDPOConfig(
                output_dir="x", use_cpu=True, feature_cache=kind, feature_cache_dir=str(tmp_path),
                corruption_per_epoch=per_epoch,
            )  # fmt: skip
            open_feature_cache(args, model, processor, image_tokens=tokens)
            assert expected in lines[-1]


def test_caches_lie_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/mdpo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "mdpo"
