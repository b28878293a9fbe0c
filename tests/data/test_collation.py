"""Collation: full expected tensors, and cuts."""

from typing import Any

import pytest
from transformers import LlavaProcessor

from conftest import picture
from mdpo.data.collation import PreferenceCollator
from mdpo.data.dataset import Example
from mdpo.data.encoding import Encoder


def example(index: int, chosen: str, rejected: str, images: int = 1) -> Example:
    parts: list[Any] = [{"type": "image"}] * images + [{"type": "text", "text": "What is shown?"}]
    slot = [picture(index)] * images
    return Example(
        index=index,
        digest=-index,
        images={"chosen": slot, "rejected": [picture(99)] * images},
        prompt=[{"role": "user", "content": parts}],
        chosen=chosen,
        rejected=rejected,
    )


def test_responses_are_written_out(processor: LlavaProcessor) -> None:
    pairs = [example(7, "A boat.", "Two birds."), example(3, "A red boat.", "A cup.", images=0)]
    batch = PreferenceCollator(Encoder(processor))(pairs)

    def ids(text: str) -> list[int]:
        return processor.tokenizer(text, add_special_tokens=False).input_ids

    short, long = ids(" A boat.</s>"), ids(" A red boat.</s>")
    pad = processor.tokenizer.pad_token_id
    padding = [pad] * (len(long) - len(short))
    assert padding
    assert batch["responses"]["chosen"]["input_ids"].tolist() == [short + padding, long]
    assert batch["responses"]["chosen"]["attention_mask"].tolist() == [
        [1] * len(short) + [0] * len(padding),
        [1] * len(long),
    ]
    assert batch["rows"].tolist() == [7, 3]
    assert batch["has_image"].tolist() == [True, False]


def test_slots_differ_in_pixels_only(processor: LlavaProcessor) -> None:
    batch = PreferenceCollator(Encoder(processor))([example(0, "A boat.", "A cup.")])
    true, spoilt = batch["prompts"]["chosen"], batch["prompts"]["rejected"]
    assert true["input_ids"].tolist() == spoilt["input_ids"].tolist()
    assert (true["pixel_values"] != spoilt["pixel_values"]).any()


def test_long_responses_are_cut_at_the_end_and_prompts_never(processor: LlavaProcessor) -> None:
    encoder = Encoder(processor)
    pair = example(0, "A red boat and two birds.", "A cup.")
    whole = PreferenceCollator(encoder)([pair])
    prompt = whole["prompts"]["chosen"]["input_ids"].shape[1]
    cut = PreferenceCollator(encoder, max_length=prompt + 3)([pair])
    assert cut["prompts"]["chosen"]["input_ids"].shape[1] == prompt
    kept = cut["responses"]["chosen"]["input_ids"].tolist()[0]
    assert kept == whole["responses"]["chosen"]["input_ids"].tolist()[0][:3]


def test_a_row_without_room_for_a_response_is_refused(processor: LlavaProcessor) -> None:
    collator = PreferenceCollator(Encoder(processor), max_length=40)
    with pytest.raises(ValueError, match=r"Row 5 has no response token left: its prompt has"):
        collator([example(5, "A boat.", "A cup.")])


def test_collating_twice_gives_the_same(processor: LlavaProcessor) -> None:
    collator, pairs = PreferenceCollator(Encoder(processor)), [example(0, "A boat.", "A cup.")]
    first, second = collator(pairs), collator(pairs)
    assert first["prompts"]["chosen"]["input_ids"].equal(second["prompts"]["chosen"]["input_ids"])
