"""Which scorer a run uses: what is told by the config, and what the self-check finds."""

import logging
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from mdpo.models.sharing import reason_against_sharing, scales_logits
from mdpo.objectives import CHOSEN, REJECTED
from mdpo.scoring import PlainScorer, SharedPrefixScorer, choice
from mdpo.scoring.attention import BRANCHES
from mdpo.scoring.choice import attention_for, checked, choose_scorer

WANTED = (CHOSEN, REJECTED)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(choice.logger, "warning", lines.append)
    return lines


class Changed(SharedPrefixScorer):
    """A scorer whose numbers are wrong by a share."""

    share = 0.0

    def __call__(self, model: Any, batch: Any, candidates: Any) -> Any:
        logps = super().__call__(model, batch, candidates)
        return logps | {REJECTED: logps[REJECTED] * (1 + self.share)}


def text_batch() -> Any:
    """Two pairs without images."""
    return {
        "prompts": {"chosen": {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]]),
                               "attention_mask": torch.ones(2, 3, dtype=torch.int64)}},
        "responses": {
            slot: {"input_ids": torch.tensor([[11, 12], [13, 14 + k]]),
                   "attention_mask": torch.tensor([[1, 1], [1, k]])}
            for k, slot in enumerate(("chosen", "rejected"))
        },
        "image_keys": {"chosen": []},
        "has_image": torch.tensor([False, False]),
        "rows": torch.tensor([0, 1]),
        "digests": torch.tensor([0, 1]),
    }  # fmt: skip


def test_agreement_keeps_the_shared_prefix(
    model: LlavaForConditionalGeneration, log: list[str]
) -> None:
    scorer = choose_scorer(model)
    assert isinstance(scorer, SharedPrefixScorer)
    assert checked(scorer, model, text_batch(), WANTED) is scorer
    assert log == []


@pytest.mark.parametrize("share", [1e-3, -0.5, float("nan")])
def test_disagreement_falls_back_and_shows_the_difference(
    model: LlavaForConditionalGeneration, log: list[str], share: float
) -> None:
    scorer = Changed(model)
    scorer.share = share
    chosen = checked(scorer, model, text_batch(), WANTED)
    assert isinstance(chosen, PlainScorer)
    (line,) = log
    assert "differ by" in line
    assert "chosen/rejected" in line
    assert "Plain rows it is" in line
    assert model.config.get_text_config()._attn_implementation == "sdpa"


def test_a_model_that_takes_no_such_arguments_falls_back(
    model: LlavaForConditionalGeneration, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("unexpected keyword argument 'packed'")

    scorer = SharedPrefixScorer(model)
    monkeypatch.setattr(SharedPrefixScorer, "__call__", refuse)
    assert isinstance(checked(scorer, model, text_batch(), WANTED), PlainScorer)
    assert "unexpected keyword argument 'packed'" in log[0]


def test_attention_follows_that_of_the_model(model: LlavaForConditionalGeneration) -> None:
    kinds = {"sdpa": "branches", "eager": "dense", "flex_attention": "flex"}
    for loaded, expected in kinds.items():
        model.set_attn_implementation({"text_config": loaded})
        assert attention_for(model) == expected
    SharedPrefixScorer(model)(model, text_batch(), WANTED)
    assert model.config.get_text_config()._attn_implementation == BRANCHES
    vision: Any = model.config.vision_config
    assert vision._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"layer_types": ["sliding_attention"]}, "sliding_attention"),
        ({"sliding_window": 128}, "sliding window of 128"),
        ({"cross_attention_layers": [3]}, "across"),
    ],
)
def test_reasons_are_read_off_the_config(
    model: LlavaForConditionalGeneration, log: list[str], changes: dict[str, Any], words: str
) -> None:
    text: Any = model.config.get_text_config()
    for name, value in changes.items():
        setattr(text, name, value)
    assert words in str(reason_against_sharing(model))
    assert isinstance(choose_scorer(model), PlainScorer)
    assert len(log) == 1
    assert words in log[0]


def test_a_window_that_is_switched_off_is_none(model: LlavaForConditionalGeneration) -> None:
    text: Any = model.config.get_text_config()
    text.sliding_window, text.use_sliding_window = 128, False
    assert reason_against_sharing(model) is None


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logit_scale", "logits_scaling"])
def test_a_scale_after_the_head_is_seen(
    model: LlavaForConditionalGeneration, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    text: Any = model.config.get_text_config()
    assert not scales_logits(model)
    setattr(text, name, 1.0)
    assert not scales_logits(model)
    setattr(text, name, 30.0)
    assert scales_logits(model)
    # The model here ignores the setting: the way without the stand-in gives the same numbers.
    expected = PlainScorer(model)(model, text_batch(), WANTED)
    got = SharedPrefixScorer(model)(model, text_batch(), WANTED)
    for each in WANTED:
        torch.testing.assert_close(got[each], expected[each])
