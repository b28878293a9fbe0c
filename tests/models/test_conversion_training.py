"""A converted Bunny on the rows that the authors of mDPO released their data in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_checkpoints import END, NUM_PATCHES, Original, write_bunny
from original_models import Conversation, phi_logits, splice
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, CodeGenTokenizer

from mdpo import MDPOConfig, MDPOTrainer
from mdpo.cli import main
from mdpo.data.encoding import Encoder
from mdpo.models.conversion import bunny_to_standard
from mdpo.models.parts import find_parts, linear_targets

PROMPT = Conversation(END).say("USER", "<image>\nWhat is shown?").say("ASSISTANT", None).prompt()


@pytest.fixture(scope="module")
def bunny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Original, Path]:
    folder = tmp_path_factory.mktemp("bunny")
    original = write_bunny(folder / "original")
    bunny_to_standard(original.folder, folder / "standard", vision_config=folder / "siglip.json")
    return original, folder / "standard"


@pytest.fixture
def official(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> Path:
    """Rows as the authors write them."""
    rows = []
    for k in range(4):
        make_picture(k, (60, 30 + k)).save(tmp_path / f"{k}.png")
        answers = {"chosen": f"Two birds, {k} boats.", "rejected": "Three lamps."}
        rows.append({"img_path": f"{k}.png", "prompt": PROMPT, **answers})
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("space", [" ", ""])
def test_one_step_on_the_authors_rows(
    bunny: tuple[Original, Path], official: Path, tmp_path: Path, space: str
) -> None:
    original, standard = bunny
    args = MDPOConfig(
        output_dir=str(tmp_path / "run"),
        image_root=str(official.parent),
        chat_template_kwargs={"answer_space": space},
        max_length=None,
        max_steps=1,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        learning_rate=1e-3,
        warmup_steps=0,
        report_to="none",
    )
    run = MDPOTrainer(str(standard), args=args, train_dataset=str(official))
    batch = next(iter(run.get_train_dataloader()))
    run.train()
    assert run.state.global_step == 1
    tokenizer: Any = AutoProcessor.from_pretrained(standard).tokenizer
    inputs = batch["prompts"]["chosen"]
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        text = tokenizer.decode(ids[mask.bool()], clean_up_tokenization_spaces=False)
        assert text.replace("<image>" * NUM_PATCHES, "<image>") == PROMPT
    slow = CodeGenTokenizer.from_pretrained(original.folder)
    wanted = slow(f"{space}Three lamps.{END}")["input_ids"]
    responses = batch["responses"]["rejected"]
    for ids, mask in zip(responses["input_ids"], responses["attention_mask"], strict=True):
        assert ids[mask.bool()].tolist() == wanted


def test_responses_are_tokenized_as_the_authors_do(bunny: tuple[Original, Path]) -> None:
    original, standard = bunny
    messages: Any = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": "What is shown?"}],
        }
    ]
    encoder = Encoder(
        AutoProcessor.from_pretrained(standard), chat_template_kwargs={"answer_space": ""}
    )
    assert encoder.prompt_text(messages) == PROMPT
    tokenizer = CodeGenTokenizer.from_pretrained(original.folder)
    for answer in ("Two birds.", "  A red   boat", "?", "a\n\nb "):
        # The answer apart, then the end token. What the template ends in is not stripped.
        wanted = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
        assert encoder.response_ids(messages, answer) == wanted
    default = Encoder(AutoProcessor.from_pretrained(standard))
    assert default.response_text(messages, "Two.") == f" Two.{END}"


def test_merged_adapters_reach_the_original_layout(
    bunny: tuple[Original, Path], tmp_path: Path
) -> None:
    original, standard = bunny
    base = AutoModelForImageTextToText.from_pretrained(standard)
    targets = linear_targets(base, find_parts(base), {"language_model"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted: Any = get_peft_model(
            base, LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
        ).eval()
    names = ("adapter", "merged", "back")
    adapter, merged, back = (tmp_path / name for name in names)
    adapted.save_pretrained(str(adapter))
    AutoProcessor.from_pretrained(standard).save_pretrained(adapter)
    assert main(["merge", "--adapter", str(adapter), "--out", str(merged)]) == 0
    assert main(["convert", "bunny", "--reverse", str(merged), str(back)]) == 0
    weights = {n: t for file in back.glob("*.safetensors") for n, t in load_file(file).items()}
    kept = [name for name in weights if ".layers." not in name or "vision_tower" in name]
    assert all(weights[name].equal(original.weights[name]) for name in kept)
    ids = CodeGenTokenizer.from_pretrained(back)("A red boat and two birds.")["input_ids"]
    theirs = phi_logits(weights, splice(weights, ids, []), original.config)
    with torch.no_grad():
        ours = adapted(input_ids=torch.tensor([ids])).logits[0, :, :323]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)
    before = phi_logits(original.weights, splice(original.weights, ids, []), original.config)
    assert (before - theirs).abs().max() > 0.1
