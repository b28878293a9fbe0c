"""The plain scorer equals a naive loop over single rows, in value and gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mdpo.data.batch import Batch
from mdpo.data.collation import PreferenceCollator
from mdpo.data.dataset import PreferenceDataset
from mdpo.data.encoding import Encoder
from mdpo.data.reading import Rows
from mdpo.data.rejected_images import make_rejected_image_source
from mdpo.data.sources import load_raw
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Candidate
from mdpo.scoring import PlainScorer
from mdpo.scoring.layout import lay_out

CANDIDATES = (CHOSEN, REJECTED, REJECTED_IMAGE, Candidate("none", "chosen"))


def dataset_of(rows: list[dict[str, Any]]) -> PreferenceDataset:
    return PreferenceDataset(
        Rows(load_raw(rows)),
        image_root=None,
        rejected_image=make_rejected_image_source("crop_keep", {}),
        seed=3,
        image_slots=("chosen", "rejected", "none"),
    )


def batch_of(rows: list[dict[str, Any]], processor: LlavaProcessor) -> Batch:
    dataset = dataset_of(rows)
    return PreferenceCollator(Encoder(processor))([dataset[k] for k in range(len(dataset))])


def naive_logps(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rows: list[dict[str, Any]],
    candidate: Candidate,
) -> list[Tensor]:
    """Row by row, token by token, unpadded, through the processor's public calls only."""
    dataset, sums = dataset_of(rows), []
    for k in range(len(dataset)):
        example = dataset[k]
        images = example["images"][candidate.image]
        prompt = example["prompt"]
        if candidate.image == "none":
            text_parts = [p for p in prompt[0]["content"] if p["type"] == "text"]
            prompt = [{"role": "user", "content": text_parts}]
        text = processor.apply_chat_template(prompt, add_generation_prompt=True)
        given: dict[str, Any] = {"images": images or None, "return_tensors": "pt"}
        inputs = processor(text=[text], **given)
        response = example["chosen" if candidate.response == "chosen" else "rejected"]
        ids = processor.tokenizer(f" {response}</s>", add_special_tokens=False).input_ids
        whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
        arguments = {"pixel_values": inputs["pixel_values"]} if images else {}
        logits = model(input_ids=whole, **arguments).logits[0]
        start = inputs["input_ids"].shape[1]
        total = torch.zeros(())
        for offset, token in enumerate(ids):
            scores = logits[start + offset - 1]
            total = total + scores[token] - scores.exp().sum().log()
        sums.append(total)
    return sums


@pytest.mark.parametrize("candidate", CANDIDATES, ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_equal_the_naive_loop(
    candidate: Candidate,
    side: str,
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    mixed_rows: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processor.tokenizer, "padding_side", side)
    batch = batch_of(mixed_rows, processor)
    with torch.no_grad():
        scores = PlainScorer(model)(model, batch, [candidate])[candidate]
        naive = torch.stack(naive_logps(model, processor, mixed_rows, candidate))
    torch.testing.assert_close(scores, naive, rtol=1e-5, atol=1e-4)


def test_gradients_equal_the_naive_loop(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    mixed_rows: list[dict[str, Any]],
) -> None:
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    scores = PlainScorer(model)(model, batch_of(mixed_rows, processor), [REJECTED_IMAGE])
    (weights * scores[REJECTED_IMAGE]).sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    naive = torch.stack(naive_logps(model, processor, mixed_rows, REJECTED_IMAGE))
    (weights * naive).sum().backward()
    assert any("vision_tower" in name for name in ours)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-4)


def test_a_model_that_cannot_select_logits_gives_the_same(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    mixed_rows: list[dict[str, Any]],
) -> None:
    batch, scorer = batch_of(mixed_rows, processor), PlainScorer(model)
    assert scorer.selects_logits
    with torch.no_grad():
        selected = scorer(model, batch, [CHOSEN])[CHOSEN]
        scorer.selects_logits = False
        whole = scorer(model, batch, [CHOSEN])[CHOSEN]
    torch.testing.assert_close(selected, whole)


def test_scored_tokens_decode_to_the_response(
    processor: LlavaProcessor, mixed_rows: list[dict[str, Any]]
) -> None:
    batch = batch_of(mixed_rows, processor)
    rows = lay_out(batch["prompts"]["chosen"], batch["responses"]["rejected"])
    for number, row in enumerate(mixed_rows):
        ids = rows.response_ids[rows.row_of_token == number]
        assert processor.tokenizer.decode(ids) == f" {row['rejected'][0]['content']}</s>"


def test_each_scored_token_is_predicted_from_the_one_before() -> None:
    # two rows: prompts of 2 and 1 tokens (left-padded), responses of 1 and 3
    prompt = {
        "input_ids": torch.tensor([[11, 12], [0, 13]]),
        "attention_mask": torch.tensor([[1, 1], [0, 1]]),
        "mm_token_type_ids": torch.tensor([[1, 0], [0, 1]]),
        "pixel_values": torch.zeros(2, 3, 4, 4),
    }
    response = {
        "input_ids": torch.tensor([[21, 0, 0], [22, 23, 24]]),
        "attention_mask": torch.tensor([[1, 0, 0], [1, 1, 1]]),
    }
    rows = lay_out(prompt, response)
    assert rows.inputs["input_ids"].tolist() == [[11, 12, 21, 0], [13, 22, 23, 24]]
    assert rows.inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert rows.inputs["mm_token_type_ids"].tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert rows.inputs["pixel_values"] is prompt["pixel_values"]
    assert rows.predicts_response.int().tolist() == [[0, 1, 0, 0], [1, 1, 1, 0]]
    assert rows.response_ids.tolist() == [21, 22, 23, 24]
    assert rows.row_of_token.tolist() == [0, 1, 1, 1]


def test_batched_equals_single(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    make_rows: Callable[..., list[dict[str, Any]]],
) -> None:
    rows = make_rows(4)
    scorer = PlainScorer(model)
    with torch.no_grad():
        together = scorer(model, batch_of(rows, processor), [CHOSEN])[CHOSEN]
        alone = [scorer(model, batch_of([row], processor), [CHOSEN])[CHOSEN] for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-4)
