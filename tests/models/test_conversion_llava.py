"""Converted LLaVA checkpoints against the original model, prompt, tokens and preprocessing."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_checkpoints import CLIP, NUM_PATCHES, Original, write_llava
from original_models import (
    IMAGE,
    Conversation,
    clip_features,
    llama_logits,
    normalise,
    project,
    splice,
    square,
)
from peft import LoraConfig
from PIL import Image
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from mdpo import MDPOConfig, MDPOTrainer
from mdpo.models.conversion import llava_to_standard

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
END = "</s>"


def convert(folder: Path, *, legacy: bool) -> tuple[Original, Any, Any]:
    original = write_llava(folder / "original", legacy=legacy)
    llava_to_standard(original.folder, folder / "standard", vision_tower=folder / "clip")
    model = AutoModelForImageTextToText.from_pretrained(
        folder / "standard", attn_implementation="eager"
    )
    return original, model.eval(), AutoProcessor.from_pretrained(folder / "standard")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> tuple[Original, Any, Any]:
    return convert(tmp_path_factory.mktemp("llava"), legacy=False)


@pytest.fixture(scope="module")
def legacy_llava(tmp_path_factory: pytest.TempPathFactory) -> tuple[Original, Any, Any]:
    return convert(tmp_path_factory.mktemp("legacy"), legacy=True)


def slow_ids(original: Original, text: str, *, legacy: bool) -> list[int]:
    """The slow tokenizer: a space before the text; the legacy one, after special tokens too."""
    content = json.loads((original.folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    merges: Any = [m.split(" ") if isinstance(m, str) else m for m in content["model"]["merges"]]
    merges = [tuple(each) for each in merges]
    bare = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True))
    ids = [vocabulary["<s>"]]
    for number, piece in enumerate(text.split(END)):
        ids += [vocabulary[END]] * (number > 0)
        space = " " if piece and (legacy or number == 0) else ""
        ids += bare.encode((space + piece).replace(" ", "▁")).ids
    return ids


def authors_ids(original: Original, prompt: str, *, legacy: bool = False) -> list[int]:
    """Cut at the image; the bos of all pieces but the first is dropped."""
    first, *others = (slow_ids(original, p, legacy=legacy) for p in prompt.split("<image>"))
    return [*first, *(each for ids in others for each in [IMAGE, *ids[1:]])]


def authors_pixels(image: Image.Image) -> Tensor:
    return normalise(square(image, (122, 116, 104)), CLIP["image_size"], MEAN, STD)


def authors_logits(original: Original, prompt: str, images: list[Image.Image]) -> Tensor:
    w = original.weights
    features = [project(w, clip_features(w, authors_pixels(each), CLIP)) for each in images]
    return llama_logits(w, splice(w, authors_ids(original, prompt), features), original.config)


def prompt_of(images: int, *answers: str) -> str:
    said = Conversation(END).say("USER", "<image>\n" * images + "What is shown?")
    for answer in answers:
        said.say("ASSISTANT", answer).say("USER", "How many lamps?")
    return said.say("ASSISTANT", None).prompt()


@pytest.mark.parametrize("sizes", [[(48, 48)], [(61, 30)], [(30, 61), (24, 24)], []])
def test_logits_are_those_of_the_original(
    llava: Any, make_picture: Callable[..., Image.Image], sizes: list[tuple[int, int]]
) -> None:
    original, model, processor = llava
    images = [make_picture(k, size) for k, size in enumerate(sizes)]
    prompt = prompt_of(len(images), "A red boat.") + " Two."
    theirs = authors_logits(original, prompt, images)
    inputs = processor(text=[prompt], images=images or None, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    torch.testing.assert_close(logits[:, : theirs.shape[1]], theirs, rtol=1e-5, atol=1e-5)
    assert logits[:, theirs.shape[1] :].eq(0).all()
    assert theirs.std() > 0.3
    if images:
        pixels = torch.stack([authors_pixels(each) for each in images])
        torch.testing.assert_close(inputs["pixel_values"], pixels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("images", [0, 1, 2])
def test_ids_are_those_of_the_slow_tokenizer(
    request: pytest.FixtureRequest, make_picture: Any, legacy: bool, images: int
) -> None:
    original, _, processor = request.getfixturevalue("legacy_llava" if legacy else "llava")
    prompt = prompt_of(images, "A red boat.", "Three lamps.")
    wanted: list[int] = []
    for each in authors_ids(original, prompt, legacy=legacy):
        wanted += [330] * NUM_PATCHES if each == IMAGE else [each]
    pictures = [make_picture(k) for k in range(images)]
    assert processor(text=[prompt], images=pictures or None)["input_ids"][0] == wanted


def test_prompt_and_answer_are_the_originals_strings(llava: Any) -> None:
    processor = llava[2]
    parts = [{"type": "text", "text": "What is shown?"}, {"type": "image"}]
    messages = [{"role": "user", "content": parts}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == prompt_of(1)
    messages.append({"role": "assistant", "content": [{"type": "text", "text": "A boat."}]})
    whole = processor.apply_chat_template(messages, tokenize=False)
    assert whole == prompt + " A boat.</s>"


def test_ids_padding_and_suppression(llava: Any) -> None:
    _, model, processor = llava
    assert processor.tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [330, 331]
    assert processor.tokenizer.pad_token == "<pad>"
    config, text = model.config, model.config.text_config
    assert (config.image_token_index, text.pad_token_id, text.vocab_size) == (330, 331, 384)
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-2, "default")
    assert config.real_vocab_size == 330
    assert model.generation_config.suppress_tokens == list(range(330, 384))


def test_one_step_on_the_authors_rows(llava: Any, make_picture: Any, tmp_path: Path) -> None:
    original, model, processor = llava
    rows = []
    for k in range(2):
        make_picture(k, (60, 30 + k)).save(tmp_path / f"{k}.png")
        answers = {"chosen": f"Two birds, {k} boats.", "rejected": "Three lamps."}
        rows.append({"img_path": f"{k}.png", "prompt": prompt_of(1), **answers})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    args = MDPOConfig(
        output_dir=str(tmp_path / "run"),
        image_root=str(tmp_path),
        max_steps=1,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        warmup_steps=0,
        report_to="none",
    )
    run = MDPOTrainer(
        copy.deepcopy(model),
        args=args,
        train_dataset=str(tmp_path / "rows.json"),
        processing_class=processor,
        peft_config=LoraConfig(r=2),
    )
    batch = next(iter(run.get_train_dataloader()))
    run.train()
    assert run.state.global_step == 1
    wanted: list[int] = []
    for each in authors_ids(original, prompt_of(1)):
        wanted += [processor.image_token_id] * NUM_PATCHES if each == IMAGE else [each]
    inputs = batch["prompts"]["chosen"]
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        assert ids[mask.bool()].tolist() == wanted
    whole = slow_ids(original, prompt_of(1) + " Three lamps.</s>", legacy=False)
    response = batch["responses"]["rejected"]["input_ids"][0].tolist()
    assert response == whole[-len(response) :]
    assert response[-1] == processor.tokenizer.eos_token_id
