"""Converted Bunny checkpoints against the original model, prompt and preprocessing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_checkpoints import END, NUM_PATCHES, SIGLIP, SPACES, Original, write_bunny
from original_models import (
    IMAGE,
    Conversation,
    normalise,
    phi_logits,
    project,
    siglip_features,
    splice,
    square,
)
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, CodeGenTokenizer

from mdpo.models.conversion import bunny_to_standard

HALF = (0.5, 0.5, 0.5)
QUESTION = "How many red birds are  shown?"
ANSWER = "Two   birds and a boat."


@pytest.fixture(scope="module")
def bunny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Original, Path]:
    """The original and its conversion."""
    folder = tmp_path_factory.mktemp("bunny")
    original = write_bunny(folder / "original")
    bunny_to_standard(original.folder, folder / "standard", vision_config=folder / "siglip.json")
    return original, folder / "standard"


@pytest.fixture(scope="module")
def loaded(bunny: tuple[Original, Path]) -> tuple[Any, Any]:
    """Model and processor, by the classes that anyone would use."""
    folder = bunny[1]
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    return model.eval(), AutoProcessor.from_pretrained(folder)


def authors_pixels(image: Image.Image) -> Tensor:
    return normalise(square(image, (127, 127, 127)), SIGLIP["image_size"], HALF, HALF)


def authors_ids(original: Original, prompt: str) -> list[int]:
    """Cut at the image, tokenize the pieces apart, join with -200."""
    tokenizer = CodeGenTokenizer.from_pretrained(original.folder)
    ids: list[int] = []
    for number, piece in enumerate(prompt.split("<image>")):
        ids += [IMAGE] * (number > 0) + tokenizer(piece).input_ids
    return ids


def authors_logits(original: Original, prompt: str, images: list[Image.Image]) -> Tensor:
    w = original.weights
    features = [project(w, siglip_features(w, authors_pixels(i), SIGLIP)) for i in images]
    return phi_logits(w, splice(w, authors_ids(original, prompt), features), original.config)


def prompt_of(*, images: int, question: str = QUESTION, answer: str | None = None) -> str:
    said = Conversation(END).say("USER", "<image>\n" * images + question)
    return said.say("ASSISTANT", answer).prompt()


def messages_of(*, images: int, question: str = QUESTION) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": question}, *[{"type": "image"}] * images]
    return [{"role": "user", "content": parts}]


def render(processor: Any, messages: list[dict[str, Any]], **more: Any) -> str:
    return processor.apply_chat_template(messages, tokenize=False, **more)


@torch.no_grad()
def ours(loaded: tuple[Any, Any], texts: list[str], images: list[list[Image.Image]]) -> Any:
    model, processor = loaded
    given = [each for each in images if each] or None
    inputs = processor(text=texts, images=given, padding=True, return_tensors="pt")
    return inputs, model(**inputs).logits


CASES: list[tuple[str, list[tuple[int, tuple[int, int]]]]] = [
    ("square", [(1, (40, 40))]),
    ("wide", [(2, (61, 30))]),
    ("tall", [(3, (29, 62))]),
    ("two", [(4, (50, 40)), (5, (26, 26))]),
    ("text", []),
]


@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_logits_are_those_of_the_original(
    bunny: Any, loaded: Any, make_picture: Callable[..., Image.Image], name: str, sizes: Any
) -> None:
    original = bunny[0]
    images = [make_picture(seed, size) for seed, size in sizes]
    prompt = prompt_of(images=len(images), answer=ANSWER)
    theirs = authors_logits(original, prompt, images)
    inputs, logits = ours(loaded, [prompt], [images])
    num_tokens = original.config["vocab_size"]
    assert logits.shape == (1, len(theirs), 384)
    torch.testing.assert_close(logits[0, :, :num_tokens], theirs, rtol=0, atol=1e-5)
    assert logits[0, :, num_tokens:].eq(0).all()
    assert theirs.std() > 0.3
    if images:
        pixels = torch.stack([authors_pixels(each) for each in images])
        torch.testing.assert_close(inputs["pixel_values"], pixels, rtol=0, atol=2e-7)
        other = [make_picture(99, size) for _, size in sizes]
        assert (authors_logits(original, prompt, other) - theirs).abs().max() > 0.05


def test_rows_of_a_padded_batch(
    bunny: Any, loaded: Any, make_picture: Callable[..., Image.Image]
) -> None:
    images = [[make_picture(1)], [], [make_picture(2), make_picture(3, (20, 70))]]
    prompts = [
        prompt_of(images=len(each), answer="A boat." * (k + 1)) for k, each in enumerate(images)
    ]
    inputs, logits = ours(loaded, prompts, images)
    for row, (prompt, pictures) in enumerate(zip(prompts, images, strict=True)):
        theirs = authors_logits(bunny[0], prompt, pictures)
        real = logits[row][inputs["attention_mask"][row].bool()][:, : theirs.shape[1]]
        torch.testing.assert_close(real, theirs, rtol=0, atol=1e-5)


def test_the_feature_is_not_the_normalised_one(bunny: Any, loaded: Any) -> None:
    # A release that ties the last hidden state to the normalised output would change this.
    pixels = torch.randn(1, 3, 26, 26, generator=torch.Generator().manual_seed(0))
    model = loaded[0]
    with torch.no_grad():
        features = model.get_image_features(pixels, return_dict=True).pooler_output[0]
        states = model.model.vision_tower(pixels, output_hidden_states=True)
    w = bunny[0].weights
    theirs = siglip_features(w, pixels[0], SIGLIP)
    torch.testing.assert_close(features, project(w, theirs), rtol=0, atol=1e-5)
    torch.testing.assert_close(states.hidden_states[-1][0], theirs, rtol=0, atol=1e-5)
    assert (states.last_hidden_state - states.hidden_states[-1]).abs().max() > 0.1


def test_config_is_set_where_the_classes_assume_otherwise(bunny: Any, loaded: Any) -> None:
    config, text, vision = (
        loaded[0].config,
        loaded[0].config.text_config,
        loaded[0].config.vision_config,
    )
    end = bunny[0].config["eos_token_id"]
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-1, "full")
    assert (config.image_seq_length, config.image_token_index) == (NUM_PATCHES, 323)
    assert (text.bos_token_id, text.eos_token_id, text.pad_token_id) == (end, end, end)
    assert text.rope_parameters["partial_rotary_factor"] == 0.4
    assert text.resid_pdrop == 0.1
    assert (vision.num_hidden_layers, vision.vision_use_head) == (3, False)
    assert text.vocab_size == 384


@pytest.mark.parametrize("number", [0, 1, 2])
def test_prompts_are_the_originals_strings(loaded: Any, number: int) -> None:
    prompt = render(loaded[1], messages_of(images=number), add_generation_prompt=True)
    assert prompt == prompt_of(images=number)


def test_turns_with_answers(loaded: Any) -> None:
    said = Conversation(END).say("USER", "<image>\nWhat?").say("ASSISTANT", "A boat.")
    said.say("USER", "Which colour?")
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A boat."}]},
        {"role": "user", "content": "Which colour?"},
    ]
    for space in (" ", ""):
        # Earlier answers always have their space; the variable is about the last one.
        prompt = render(loaded[1], messages, add_generation_prompt=True, answer_space=space)
        assert prompt == said.prompt() + "ASSISTANT:"
        whole = [*messages, {"role": "assistant", "content": "Red."}]
        assert render(loaded[1], whole, answer_space=space) == f"{prompt}{space}Red.{END}"
    assert render(loaded[1], whole) == f"{prompt} Red.{END}"


def test_the_system_text_can_be_given_or_left_out(loaded: Any) -> None:
    user = {"role": "user", "content": "Hi"}
    given = [{"role": "system", "content": "Be brief."}, user]
    assert render(loaded[1], given) == "Be brief. USER: Hi "
    empty = [{"role": "system", "content": [{"type": "text", "text": ""}]}, user]
    assert render(loaded[1], empty) == "USER: Hi "


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": [{"type": "image"}]}],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}],
        [{"role": "user", "content": [{"type": "video"}]}],
    ],
)
def test_what_the_prompt_cannot_say_is_refused(loaded: Any, messages: Any) -> None:
    with pytest.raises(Exception, match=r"must be") as caught:
        render(loaded[1], messages)
    assert type(caught.value).__name__ == "TemplateError"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_ids_are_the_originals_with_the_image_expanded(
    bunny: Any, loaded: Any, make_picture: Callable[..., Image.Image], number: int
) -> None:
    prompt = prompt_of(images=number, answer=ANSWER)
    wanted: list[int] = []
    for each in authors_ids(bunny[0], prompt):
        wanted += [323] * NUM_PATCHES if each == IMAGE else [each]
    assert any(bunny[0].config["vocab_size"] - len(SPACES) <= i < 323 for i in wanted)
    images = [make_picture(k) for k in range(number)]
    found = loaded[1](text=[prompt], images=images or None)["input_ids"][0]
    assert found == wanted


def test_padding_is_the_end_token_and_the_mask_comes_from_lengths(loaded: Any) -> None:
    tokenizer = loaded[1].tokenizer
    assert tokenizer.pad_token == END
    batch = tokenizer([f"A boat.{END}", f"A boat and a bird.{END}"], padding=True)
    assert [sum(mask) for mask in batch["attention_mask"]] == [
        len(tokenizer(text)["input_ids"]) for text in (f"A boat.{END}", f"A boat and a bird.{END}")
    ]


def test_facts_survive_saving_again(bunny: Any, loaded: Any, tmp_path: Path) -> None:
    model, processor = loaded
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    for each in (model, again):
        assert each.config.real_vocab_size == 323
        assert each.config.original_config == bunny[0].config
        assert each.generation_config.suppress_tokens == list(range(323, 384))
        assert each.generation_config.eos_token_id == bunny[0].config["eos_token_id"]
    assert all(a.equal(b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert AutoProcessor.from_pretrained(tmp_path).chat_template == processor.chat_template


@torch.no_grad()
def test_generation_writes_original_tokens_only(loaded: Any, make_picture: Any) -> None:
    model, processor = loaded
    prompt = render(processor, messages_of(images=1), add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[make_picture(0)], return_tensors="pt")
    # The logits of the rows of zeros are 0; with all others below, they would be chosen.
    model.lm_head.weight[:323].neg_()
    try:
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=True, top_k=0)
    finally:
        model.lm_head.weight[:323].neg_()
    new = ids[0, inputs["input_ids"].shape[1] :]
    assert new.max() < 323
