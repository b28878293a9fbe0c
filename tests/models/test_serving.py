"""What is saved is used without mdpo: adapters by peft, merged models by transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors import safe_open
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
