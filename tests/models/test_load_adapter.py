"""Adapters fit the model that they are put on, tensor for tensor, or are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from mdpo.conformance.tiny import TINY_MODELS
from mdpo.models.adapted import adapter_folder, load_adapted, load_adapter
from mdpo.models.fingerprints import adapters_of
from mdpo.models.loading import load_model
from mdpo.models.policy import prepare_policy

FROZEN = {"vision_tower", "projector"}


def save(model: Any, folder: Path, **options: Any) -> Path:
    torch.manual_seed(1)
    policy: Any = prepare_policy(model, LoraConfig(r=2, **options), frozen=FROZEN)
    with torch.no_grad():
        for name, each in policy.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                each.add_(torch.randn_like(each) * 0.1)
    policy.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(model_dir: Path, tmp_path: Path) -> Path:
    return save(load_model(model_dir), tmp_path / "adapter")


@pytest.mark.parametrize(
    "options", [{}, {"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["up_proj"]}]
)
def test_adapters_load_as_peft_alone_does(
    model_dir: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    if "modules_to_save" in options:
        options = options | {"target_modules": r"model\.language_model\..*\.q_proj"}
        options["modules_to_save"] = ["layers.0.mlp.up_proj"]
    folder = save(load_model(model_dir), tmp_path / "adapter", **options)
    ours = load_adapter(load_model(model_dir), folder).eval()
    theirs = PeftModel.from_pretrained(load_model(model_dir), str(folder)).eval()
    bare: Any = load_model(model_dir).eval()
    ids = torch.arange(8)[None] + 5
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        torch.testing.assert_close(ours(input_ids=ids).logits, expected, rtol=0, atol=0)
        assert (bare(input_ids=ids).logits - expected).abs().max() > 1e-2
    assert not any(each.requires_grad for each in ours.parameters())


def test_only_adapters_are_trained_on(model_dir: Path, adapter: Path) -> None:
    policy = load_adapter(load_model(model_dir), adapter, is_trainable=True)
    trained = [name for name, each in policy.named_parameters() if each.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert policy.peft_config["default"].inference_mode is False


@pytest.mark.parametrize("family", ["qwen2_5_vl", "bunny"])
def test_an_adapter_of_another_model_is_refused(family: str, adapter: Path) -> None:
    model = TINY_MODELS[family]().model()
    with pytest.raises(ValueError, match=r"were made for .*tiny-llava.* and do not fit") as error:
        load_adapter(model, adapter)
    assert type(model).__name__ in str(error.value)


def edited(adapter: Path, edit: Any) -> Path:
    weights = load_file(adapter / "adapter_model.safetensors")
    edit(weights)
    save_file(weights, adapter / "adapter_model.safetensors")
    return adapter


def test_missing_unknown_and_misshapen_tensors_are_refused(model_dir: Path, adapter: Path) -> None:
    first = sorted(load_file(adapter / "adapter_model.safetensors"))[0]
    kept = load_file(adapter / "adapter_model.safetensors")[first]
    edited(adapter, lambda weights: weights.pop(first))
    with pytest.raises(ValueError, match=r"the file lacks 1 tensors, the first is .*layers\.0"):
        load_adapter(load_model(model_dir), adapter)
    edited(
        adapter,
        lambda weights: weights.update(
            {first: kept, "base_model.model.x.lora_A.weight": kept.clone()}
        ),
    )
    with pytest.raises(
        ValueError, match=r"the model does not know 1 tensors, the first is .*\.x\."
    ):
        load_adapter(load_model(model_dir), adapter)
    edited(adapter, lambda weights: weights.pop("base_model.model.x.lora_A.weight"))
    load_adapter(load_model(model_dir), adapter)
    edited(adapter, lambda weights: weights.update({first: kept[:, 1:].contiguous()}))
    with pytest.raises(ValueError, match=r"(?s)do not fit Llava.*size mismatch"):
        load_adapter(load_model(model_dir), adapter)


def test_targets_that_the_model_lacks_are_named(model_dir: Path, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_modules"] = ["wqkv"]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"do not fit .*'wqkv' is no module of Llava"):
        load_adapter(load_model(model_dir), adapter)


def test_folders_without_adapters_are_refused(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"adapter_config.json is missing"):
        adapter_folder(tmp_path / "empty")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match=r"only adapter_model.bin, which may run code"):
        adapter_folder(adapter)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no adapter_model.safetensors. Take the"):
        adapter_folder(adapter)
    with pytest.raises(FileNotFoundError, match=r"no such folder, and nothing of that name"):
        adapter_folder(tmp_path / "no" / "such" / "folder")


def test_the_base_is_loaded_at_the_revision_of_the_adapter(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(load_model(model_dir), tmp_path / "adapter", revision="v2")
    seen: list[Any] = []

    def load(name: Any, *, revision: Any, dtype: str) -> Any:
        seen.append((str(name), revision))
        return load_model(name, dtype=dtype)

    monkeypatch.setattr("mdpo.models.adapted.load_model", load)
    load_adapted(None, folder)
    load_adapted(model_dir, folder)
    assert seen == [(str(model_dir), "v2"), (str(model_dir), None)]


def test_fingerprints_of_adapters(model_dir: Path, adapter: Path) -> None:
    def of(folder: Path) -> str:
        return adapters_of(load_adapter(load_model(model_dir), folder))

    before = of(adapter)
    assert of(adapter) == before
    trainable = load_adapter(load_model(model_dir), adapter, is_trainable=True)
    assert adapters_of(trainable) == before
    config = json.loads((adapter / "adapter_config.json").read_text())
    for change in ({"lora_alpha": 99}, {"use_rslora": True}):
        (adapter / "adapter_config.json").write_text(json.dumps(config | change))
        assert of(adapter) != before
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"revision": "other"}))
    assert of(adapter) == before
    name = sorted(load_file(adapter / "adapter_model.safetensors"))[-1]
    edited(adapter, lambda weights: weights[name][0, 0].add_(1e-3))
    assert of(adapter) != before


def test_saved_copies_of_modules_count_in_the_fingerprint(model_dir: Path) -> None:
    model: Any = get_peft_model(
        load_model(model_dir),
        LoraConfig(r=2, target_modules=r".*language_model.*q_proj", modules_to_save=["norm"]),
    )
    before = adapters_of(model)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "modules_to_save" in n).add_(1)
    assert adapters_of(model) != before
