"""What is saved is used without mdpo: adapters by peft, merged models by transformers."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from mdpo.cli import main
from mdpo.conformance.rows import SEVERAL_SIZES, make_rows
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.data.collation import PreferenceCollator
from mdpo.data.encoding import Encoder
from mdpo.models.policy import prepare_policy
from mdpo.models.processors import load_processor

FROZEN = {"vision_tower", "projector"}


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl"])
def test_adapter_and_merged_model_are_those_that_were_trained(name: str, tmp_path: Path) -> None:
    tiny, base, run, merged = TINY_MODELS[name](), *(tmp_path / n for n in ("base", "run", "m"))
    tiny.model().save_pretrained(base)
    tiny.processor.save_pretrained(base)
    policy: Any = prepare_policy(
        AutoModelForImageTextToText.from_pretrained(base),
        LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM"),
        frozen=FROZEN,
    )
    policy.eval().save_pretrained(run)
    tiny.processor.save_pretrained(run)
    inputs: Any = PreferenceCollator(Encoder(tiny.processor))(make_rows(0)[SEVERAL_SIZES])
    prompt = inputs["prompts"]["chosen"]
    with torch.no_grad():
        trained = policy(**prompt).logits
        plain = AutoModelForImageTextToText.from_pretrained(base)
        loaded = PeftModel.from_pretrained(plain, str(run)).eval()
        assert torch.equal(loaded(**prompt).logits, trained)

        assert main(["merge", "--adapter", str(run), "--out", str(merged)]) == 0
        folded: Any = AutoModelForImageTextToText.from_pretrained(merged).eval()
        torch.testing.assert_close(folded(**prompt).logits, trained, rtol=1e-4, atol=1e-4)
        with policy.disable_adapter():
            bare = policy(**prompt).logits
    assert (bare - trained).abs().max() > 0.1

    with safe_open(run / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names
    assert all(n.startswith("base_model.model.model.language_model.layers.") for n in names)
    for file in ("config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json"):
        assert (merged / file).exists()
    again = Encoder(load_processor(merged))
    row = make_rows(0)[SEVERAL_SIZES][0]
    text = again.prompt_text(row["prompt"])
    given = again.prompts([text], [row["images"]["chosen"]])
    expected = Encoder(tiny.processor).prompts([text], [row["images"]["chosen"]])
    assert all(torch.equal(given[key], expected[key]) for key in expected)


class Trained(NamedTuple):
    """Folders of a run from the command line, and a prompt with an image."""

    base: Path
    run: Path
    merged: Path
    prompt: dict[str, Tensor]


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder, tiny = tmp_path_factory.mktemp("served"), TINY_MODELS[request.param]()
    base, run, merged = (folder / name for name in ("base", "run", "merged"))
    tiny.model().save_pretrained(base)
    tiny.processor.save_pretrained(base)
    # Published checkpoints of LLaVA have one level more than transformers 5 has modules.
    weights = load_file(base / "model.safetensors")
    weights = {
        n.replace("vision_tower.", "vision_tower.vision_model."): w for n, w in weights.items()
    }
    save_file(weights, base / "model.safetensors", {"format": "pt"})

    pixels = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    row = {"images": ["image.png"], "prompt": "What?", "chosen": "A red boat", "rejected": "Cups"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    words = ["train", "--model_name_or_path", base, "--dataset_name", folder / "rows.jsonl"]
    words += ["--output_dir", run, "--use_cpu", "--disable_tqdm", "true", "--max_steps", "3"]
    words += ["--learning_rate", "3e-3", "--lora_r", "4", "--lora_alpha", "8"]
    assert main([str(word) for word in words]) == 0
    assert main(["merge", "--adapter", str(run), "--out", str(merged)]) == 0

    inputs: Any = PreferenceCollator(Encoder(tiny.processor))(make_rows(0)[SEVERAL_SIZES])
    return Trained(base, run, merged, inputs["prompts"]["chosen"])


def logits(model: Any, prompt: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.eval()(**prompt).logits


def test_trained_weights_by_hand(trained: Trained) -> None:
    def base() -> Any:
        return AutoModelForImageTextToText.from_pretrained(trained.base)

    by_hand, adapter = base(), load_file(trained.run / "adapter_model.safetensors")
    with torch.no_grad():
        for name, a in adapter.items():
            if name.endswith(".lora_A.weight"):
                b = adapter[name.replace("lora_A", "lora_B")]
                path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                by_hand.get_submodule(path).weight += 8 / 4 * (b @ a)
    expected = logits(by_hand, trained.prompt)
    assert (logits(base(), trained.prompt) - expected).abs().max() > 0.1

    adapted = PeftModel.from_pretrained(base(), str(trained.run))
    torch.testing.assert_close(logits(adapted, trained.prompt), expected, rtol=1e-4, atol=1e-4)
    load: Any = AutoModelForImageTextToText.from_pretrained
    merged, found = load(trained.merged, output_loading_info=True)
    assert not any(found[each] for each in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(merged, trained.prompt), expected, rtol=1e-4, atol=1e-4)


def test_a_merged_model_has_the_tensor_names_of_its_base(trained: Trained) -> None:
    before = load_file(trained.base / "model.safetensors")
    after = load_file(trained.merged / "model.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    # 7 linear layers in each of 2 layers of the language model
    assert len(changed) == 14
    assert all(name.endswith("_proj.weight") and "vision" not in name for name in changed)


def test_adapters_are_what_vllm_reads(trained: Trained) -> None:
    """Its rules, as of its source: lora/lora_model.py, lora/peft_helper.py, models/llava.py."""
    config = json.loads((trained.run / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    assert config["base_model_name_or_path"] == str(trained.base)
    assert config["bias"] == "none"
    for refused in ("modules_to_save", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern"):
        assert not config[refused]
    modules = dict(AutoModelForImageTextToText.from_pretrained(trained.base).named_modules())
    for name in load_file(trained.run / "adapter_model.safetensors"):
        assert name.startswith("base_model.model.model.language_model.layers.")
        module, kind = name.removeprefix("base_model.model.").rsplit(".lora_", 1)
        assert kind in ("A.weight", "B.weight")
        assert module in modules
