"""Encoding: what the model is fed is what it would see at inference, then exactly the response."""

from collections.abc import Iterator
from typing import Any

import pytest
from transformers import LlavaProcessor

from conftest import picture
from mdpo.data.encoding import Encoder, TokenCounter
from mdpo.data.parsing import parse_row

QUESTION = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown?"}]}
]


@pytest.fixture
def encoder(processor: LlavaProcessor) -> Encoder:
    return Encoder(processor)


@pytest.fixture
def template(processor: LlavaProcessor) -> Iterator[Any]:
    """Swap the chat template for one test."""
    before = processor.chat_template

    def swap(text: str | None) -> None:
        processor.chat_template = text

    yield swap
    processor.chat_template = before


def test_prompt_ends_where_the_assistant_begins(encoder: Encoder) -> None:
    assert encoder.prompt_text(QUESTION) == "USER: <image>\nWhat is shown? ASSISTANT:"


def test_response_ends_with_one_end_of_turn(encoder: Encoder) -> None:
    assert encoder.response_text(QUESTION, "A boat.") == " A boat.</s>"
    ids = encoder.response_ids(QUESTION, "A boat.")
    assert encoder.tokenizer.decode(ids) == " A boat.</s>"
    assert ids.count(encoder.tokenizer.eos_token_id) == 1


def test_a_template_without_end_of_turn_gets_one(encoder: Encoder, template: Any) -> None:
    # as llava-hf's: answers end in a space, nothing tells the model to stop
    template(
        "{% for m in messages %}{{ m['role'].upper() }}: "
        "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>\n{% else %}{{ p['text'] }}"
        "{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    assert encoder.response_text(QUESTION, "A boat.") == " A boat.</s>"


def test_what_follows_the_end_of_turn_is_not_trained_on(encoder: Encoder, template: Any) -> None:
    # as ChatML: a line break after the end of each turn
    template(
        "{% for m in messages %}<s>{{ m['role'] }}\n"
        "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}"
        "{% endif %}{% endfor %}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    assert encoder.response_text(QUESTION, "A boat.") == "A boat.</s>"


def test_a_template_that_changes_the_prompt_is_refused(encoder: Encoder, template: Any) -> None:
    template("{{ messages | length }}{% if add_generation_prompt %}ASSISTANT:{% endif %}")
    with pytest.raises(ValueError, match=r"does not begin with"):
        encoder.response_text(QUESTION, "A boat.")


def test_a_response_that_would_merge_with_the_prompt_is_tokenized_apart(
    encoder: Encoder, template: Any
) -> None:
    # "ASSISTANT" is one token: at inference its first half stands alone
    template(
        "{% for m in messages %}{% if m['role'] == 'user' %}USER: ASSIS{% else %}"
        "{% for p in m['content'] %}{{ p['text'] }}{% endfor %}</s>{% endif %}{% endfor %}"
    )
    ids = encoder.response_ids(QUESTION, "TANT.")
    joined = encoder.tokenizer("USER: ASSISTANT.</s>", add_special_tokens=False).input_ids
    prompt = encoder.tokenizer("USER: ASSIS", add_special_tokens=False).input_ids
    assert joined[: len(prompt)] != prompt
    assert ids == encoder.tokenizer("TANT.</s>", add_special_tokens=False).input_ids


def test_a_beginning_of_sequence_token_is_added_unless_the_template_writes_it(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    processor = encoder.processor

    def spy(**arguments: Any) -> Any:
        seen.append(arguments["add_special_tokens"])
        return processor(**arguments)

    monkeypatch.setattr(encoder, "processor", spy)
    encoder.prompts(["USER: hi ASSISTANT:"], [[]])
    encoder.prompts(["<s>USER: hi ASSISTANT:"], [[]])
    assert seen == [True, False]


def test_image_tokens_are_expanded_per_image(encoder: Encoder) -> None:
    text = encoder.prompt_text(
        [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]
    )
    inputs = encoder.prompts([text], [[picture(0), picture(1)]])
    image_token = encoder.tokenizer.convert_tokens_to_ids("<image>")
    assert (inputs["input_ids"] == image_token).sum() == 2 * 36
    assert inputs["pixel_values"].shape[0] == 2


@pytest.mark.parametrize("missing", ["tokenizer", "image_processor"])
def test_half_a_processor_is_refused(
    processor: LlavaProcessor, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, missing, None)
    with pytest.raises(ValueError, match=f"without {missing}. Load it with AutoProcessor"):
        Encoder(processor)


def test_a_processor_without_chat_template_is_refused(
    processor: LlavaProcessor, template: Any
) -> None:
    template(None)
    with pytest.raises(ValueError, match=r"must have a chat template, LlavaProcessor has none"):
        Encoder(processor)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_counted_tokens_are_those_of_the_real_row(encoder: Encoder, number: int) -> None:
    images = [picture(k, (30 + 9 * k, 50)) for k in range(number)]
    raw = {
        "images": images,
        "prompt": [{"role": "user", "content": "What is shown?"}],
        "chosen": "A boat.",
        "rejected": "Two boats and a very long answer.",
    }
    row = parse_row(raw, row_id="0", place="row 0")
    counter = TokenCounter(encoder)
    real = encoder.prompts([encoder.prompt_text(row.prompt)], [images])["input_ids"]
    sizes = [image.size for image in images]
    assert counter.prompt_length(row.prompt, sizes) == real.shape[1]
    assert counter.prompt_length(row.prompt, sizes) == real.shape[1]
    assert counter.response_length(row.prompt, row.chosen) == len(
        encoder.tokenizer(" A boat.</s>", add_special_tokens=False).input_ids
    )
