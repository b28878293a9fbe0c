"""Passes: every pair in exactly one, within the budget, by the tokens of the real batch."""

from typing import Any

import pytest
import torch
from transformers import LlavaProcessor

from conftest import picture
from mdpo.data.collation import PassCollator, PreferenceCollator
from mdpo.data.dataset import Example
from mdpo.data.encoding import Encoder, TokenCounter
from mdpo.data.passes import PassPlanner
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE
from mdpo.scoring.layout import CandidateRows
from mdpo.scoring.packing import pack

MDPO = {"chosen": ("chosen", "rejected"), "rejected": ("chosen",)}


def example(index: int, *, words: int = 1, images: int = 1) -> Example:
    parts: list[Any] = [{"type": "image"}] * images
    parts.append({"type": "text", "text": "What is shown?" + " Say more." * index})
    return Example(
        index=index,
        digest=index,
        images={
            "chosen": [picture(index + k) for k in range(images)],
            "rejected": [picture(50 + index + k) for k in range(images)],
        },
        prompt=[{"role": "user", "content": parts}],
        chosen="A red boat" + " and a bird" * words,
        rejected="Blue cups",
    )


@pytest.fixture
def encoder(processor: LlavaProcessor) -> Encoder:
    return Encoder(processor)


def planner(encoder: Encoder, max_tokens: int, **changes: Any) -> PassPlanner:
    return PassPlanner(TokenCounter(encoder), max_tokens=max_tokens, responses=MDPO, **changes)


@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("max_length", [None, 110])
def test_tokens_are_those_of_the_packed_sequence(
    encoder: Encoder, images: int, max_length: int | None
) -> None:
    pair = example(1, words=12, images=images)
    counted = planner(encoder, 1, max_length=max_length).tokens(pair)
    batch = PreferenceCollator(encoder, max_length=max_length)([pair])

    def positions(rows: CandidateRows) -> torch.Tensor:
        return rows.inputs["input_ids"][None]

    packed = pack(batch, (CHOSEN, REJECTED, REJECTED_IMAGE), positions)
    assert counted == packed.inputs["input_ids"].numel()


def test_longest_first_into_the_first_pass_with_room(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planner(encoder, 10)
    tokens = {0: 4, 1: 7, 2: 3, 3: 6, 4: 25, 5: 10}
    monkeypatch.setattr(plan, "tokens", lambda each: tokens[each["index"]])
    passes = plan([example(k) for k in tokens])
    assert [[each["index"] for each in one] for one in passes] == [[4], [5], [1, 2], [0, 3]]


def test_a_batch_within_the_budget_is_one_pass(encoder: Encoder) -> None:
    pairs = [example(k) for k in range(3)]
    assert planner(encoder, 10**6)(pairs) == [pairs]


def test_collation_gives_the_passes_and_all_rows(encoder: Encoder) -> None:
    pairs = [example(k) for k in (4, 2, 7)]
    collator = PassCollator(PreferenceCollator(encoder), planner(encoder, 1))
    collated: Any = collator(pairs)
    assert next(iter(collated)) == "rows", "libraries read the size of a batch off its first tensor"
    assert sorted(collated["rows"].tolist()) == [2, 4, 7]
    assert [each["rows"].tolist() for each in collated["passes"]] == [
        [row] for row in collated["rows"].tolist()
    ]


def test_text_of_a_slot_without_images_is_counted_without_them(encoder: Encoder) -> None:
    pair = example(0, images=1)
    pair["images"]["none"] = []
    plan = PassPlanner(TokenCounter(encoder), max_tokens=1, responses={"none": ("chosen",)})
    batch = PreferenceCollator(encoder)([pair])
    prompt = int(batch["prompts"]["none"]["attention_mask"].sum())
    assert plan.tokens(pair) == prompt + int(batch["responses"]["chosen"]["attention_mask"].sum())
