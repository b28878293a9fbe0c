"""Quantized weights: which, how exactly, and that all else goes on as without."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, LlavaProcessor

from mdpo import MDPOConfig, MDPOTrainer
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.models.adapted import load_adapted, merge_adapter
from mdpo.models.fingerprints import weights_of
from mdpo.models.loading import load_model
from mdpo.models.parts import find_parts
from mdpo.models.processors import load_processor
from mdpo.models.quantization import Quantization, is_quantized

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: extra `quant`")

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Levels of NF4 as in appendix E of arXiv:2305.14314."""

QUICK: dict[str, Any] = {
    "use_cpu": True,
    "disable_tqdm": True,
    "logging_steps": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "save_strategy": "no",
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
    "seed": 3,
    "max_steps": 2,
}


def rounded(weight: Tensor) -> Tensor:
    """Weights as NF4 stores them: blocks of 64 by their largest, each value to the next level."""
    blocks = weight.flatten().reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(NF4)
    nearest = (blocks / scale)[..., None].sub(levels).abs().argmin(dim=-1)
    return (levels[nearest] * scale).reshape(weight.shape)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "llava_next", "gemma3", "mllama"])
@pytest.mark.parametrize("bits", [4, 8])
def test_linear_layers_of_the_decoder_and_no_others(family: str, bits: Any, tmp_path: Path) -> None:
    plain = TINY_MODELS[family]().model()
    plain.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, quantization=Quantization(bits))
    assert is_quantized(loaded)
    assert not is_quantized(plain)
    root, head = find_parts(plain).language_model, plain.get_output_embeddings()
    expected = {
        name
        for name, each in plain.named_modules()
        if isinstance(each, nn.Linear) and name.startswith(f"{root}.") and each is not head
    }
    kind = bnb.nn.Linear4bit if bits == 4 else bnb.nn.Linear8bitLt
    assert {name for name, each in loaded.named_modules() if isinstance(each, kind)} == expected
    weights = plain.state_dict()
    for name, each in loaded.state_dict().items():
        if name.rpartition(".")[0] not in expected and name in weights:
            assert each.equal(weights[name])


def test_four_bits_are_nf4(model_dir: Path, processor: LlavaProcessor) -> None:
    quantized = load_model(model_dir, quantization=Quantization(4)).eval()
    expected = AutoModelForImageTextToText.from_pretrained(model_dir).eval()
    for name, each in expected.model.language_model.named_modules():
        if isinstance(each, nn.Linear):
            stored = quantized.model.language_model.get_submodule(name).weight
            each.weight.data = rounded(each.weight.data)
            got = bnb.functional.dequantize_4bit(stored.data, stored.quant_state)
            torch.testing.assert_close(got, each.weight.data, rtol=1e-5, atol=1e-6)
    given: dict[str, Any] = {"text": ["USER: hi ASSISTANT:"], "return_tensors": "pt"}
    inputs = processor(**given)
    with torch.no_grad():
        torch.testing.assert_close(
            quantized(**inputs).logits, expected(**inputs).logits, rtol=1e-4, atol=1e-4
        )


def test_products_are_computed_in_the_type_asked_for(model_dir: Path) -> None:
    def compute(**options: Any) -> set[Any]:
        model = load_model(
            model_dir, quantization=Quantization(4, **options), dtype=options.pop("dtype", "auto")
        )
        layers = [each for each in model.modules() if isinstance(each, bnb.nn.Linear4bit)]
        return {each.compute_dtype for each in layers}

    assert compute() == {torch.float32}
    assert compute(compute_dtype=torch.bfloat16) == {torch.bfloat16}
    half = load_model(model_dir, dtype="bfloat16", quantization=Quantization(4))
    layer: Any = half.get_submodule("model.language_model.layers.0.mlp.up_proj")
    assert (layer.compute_dtype, half.lm_head.weight.dtype) == (torch.bfloat16, torch.bfloat16)


def test_fingerprints_tell_ways_of_storing_apart(model_dir: Path) -> None:
    def of(quantization: Quantization | None) -> str:
        return weights_of(load_model(model_dir, quantization=quantization))

    ways = [Quantization(4), Quantization(4, "fp4"), Quantization(4, nested=True), Quantization(8)]
    assert len({of(each) for each in (None, *ways)}) == 5
    assert [of(each) for each in ways] == [of(each) for each in ways]


@pytest.mark.parametrize("bits", [4, 8])
def test_fingerprints_stay_when_the_model_works_or_gets_adapters(
    model_dir: Path, bits: Any
) -> None:
    model = load_model(model_dir, quantization=Quantization(bits))
    before = weights_of(model)
    model(input_ids=torch.arange(6)[None] + 5)
    assert weights_of(model) == before
    adapted: Any = get_peft_model(
        model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    )
    adapted(input_ids=torch.arange(6)[None] + 5)
    assert weights_of(adapted) == before


@pytest.fixture
def trainer(model_dir: Path, make_rows: Any, tmp_path: Path) -> Any:
    def make(bits: Any, **settings: Any) -> MDPOTrainer:
        rows = make_rows(4)
        return MDPOTrainer(
            load_model(model_dir, quantization=Quantization(bits)),
            args=MDPOConfig(output_dir=str(tmp_path / "run"), **QUICK | settings),
            train_dataset=rows,
            eval_dataset=rows,
            peft_config=LoraConfig(r=4, lora_alpha=8),
        )

    return make


def losses(run: MDPOTrainer) -> list[float]:
    return [row["loss"] for row in run.state.log_history if "loss" in row]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_training_is_the_same_with_both_scorers_and_checkpointing(trainer: Any, bits: int) -> None:
    runs = [trainer(bits, **each) for each in (
        {}, {"scorer": "plain"}, {"gradient_checkpointing": True},
    )]  # fmt: skip
    for run in runs:
        run.train()
    shared, plain, saving = map(losses, runs)
    assert type(runs[0].scorer).__name__ == "SharedPrefixScorer"
    assert shared == pytest.approx(plain, rel=1e-4)
    assert saving == pytest.approx(shared, rel=1e-5)
    # 8-bit products on the CPU have one kernel for training and one for inference
    assert shared[0] == pytest.approx(3 * math.log(2), rel=1e-6 if bits == 4 else 2e-3)
    assert shared[-1] < shared[0] - 0.05


def test_stored_log_probabilities_belong_to_the_quantized_model(
    trainer: Any, tmp_path: Path
) -> None:
    stored = {"precompute_ref_log_probs": True, "ref_cache_dir": str(tmp_path / "cache")}
    run = trainer(4, **stored)
    run.train()
    assert losses(run)[0] == pytest.approx(3 * math.log(2), rel=1e-5)
    again = trainer(4, **stored)
    assert again.reference.store.folder == run.reference.store.folder
    assert again.precompute_reference() == 0
    assert trainer(8, **stored).reference.store.folder != run.reference.store.folder


def test_adapters_merge_into_the_base_in_full_precision(
    trainer: Any, model_dir: Path, tmp_path: Path
) -> None:
    run = trainer(4)
    run.train()
    run.save_model()
    folder = tmp_path / "run"
    assert {path.parent for path in folder.rglob("adapter_*")} == {folder}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(model_dir)
    merge_adapter(folder, tmp_path / "merged", model=None, dtype="auto")
    merged: Any = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    assert not is_quantized(merged)
    adapted = load_adapted(None, folder)
    assert isinstance(adapted, PeftModel)
    ids = torch.arange(9)[None] + 5
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_merging_into_quantized_files_is_refused(
    trainer: Any, model_dir: Path, tmp_path: Path
) -> None:
    load_model(model_dir, quantization=Quantization(4)).save_pretrained(tmp_path / "small")
    run = trainer(4)
    run.save_model()
    with pytest.raises(ValueError, match=r"small' has quantized weights.*`--model`"):
        merge_adapter(
            tmp_path / "run", tmp_path / "out", model=tmp_path / "small", dtype="auto"
        )  # fmt: skip


def test_quantized_weights_are_not_trained_themselves(
    model_dir: Path, make_rows: Any, tmp_path: Path
) -> None:
    load_model(model_dir, quantization=Quantization(4)).save_pretrained(tmp_path / "small")
    for model in (load_model(model_dir, quantization=Quantization(8)), tmp_path / "small"):
        with pytest.raises(ValueError, match=r"quantized weights cannot be trained.*`use_peft`"):
            MDPOTrainer(
                model,
                args=MDPOConfig(output_dir=str(tmp_path / "run"), **QUICK),
                train_dataset=make_rows(2),
                processing_class=load_processor(model_dir),
            )


def test_quantized_files_are_not_quantized_again(model_dir: Path, tmp_path: Path) -> None:
    load_model(model_dir, quantization=Quantization(4)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"`load_in_8bit` has no effect on .* quantized already"):
        load_model(tmp_path, quantization=Quantization(8))


def test_values_that_bitsandbytes_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"`bnb_4bit_quant_type` must be one of nf4, fp4, got 'n"):
        Quantization(4, "nf5")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"`bits` must be 4 or 8, got 2"):
        Quantization(2)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("mdpo.models.quantization.is_bitsandbytes_available", lambda: False)
    with pytest.raises(ValueError, match=r"`load_in_4bit` needs bitsandbytes.*multimodal-dpo\[qua"):
        Quantization(4)
