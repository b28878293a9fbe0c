"""What families ask of the engine beyond LLaVA: tiles, deepstack, masks, vocabularies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from mdpo.conformance.rows import ONE_IMAGE, SEVERAL_IMAGES, SEVERAL_SIZES, TEXT_ONLY, make_rows
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.data.collation import PreferenceCollator
from mdpo.data.encoding import Encoder
from mdpo.models.parts import find_parts
from mdpo.models.policy import prepare_policy
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE
from mdpo.scoring import PlainScorer, SharedPrefixScorer, choice
from mdpo.scoring.choice import choose_scorer
from mdpo.scoring.images import (
    DiskCache,
    ImageEncoder,
    MemoryCache,
    feature_bytes,
    is_frozen_encoder,
)
from mdpo.scoring.layout import lay_out

WANTED = (CHOSEN, REJECTED, REJECTED_IMAGE)


def built(name: str) -> tuple[PreTrainedModel, PreferenceCollator]:
    tiny = TINY_MODELS[name]()
    return tiny.model().requires_grad_(False), PreferenceCollator(Encoder(tiny.processor))


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """Count rows of the first argument of each call."""
    rows: list[int] = []

    def hook(_: Any, arguments: Any, named: Any) -> None:
        given = arguments[0] if arguments else named["pixel_values"]
        rows.append(len(given))

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    yield rows
    handle.remove()


def scored(scorer: Any, model: PreTrainedModel, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        logps = scorer(model, batch, WANTED)
    return torch.stack([logps[each] for each in WANTED])


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["internvl", "qwen3_vl", "llava_next"])
def test_an_image_that_comes_twice_is_encoded_once(name: str) -> None:
    model, collate = built(name)
    first, second, *_ = make_rows(0)[SEVERAL_SIZES]
    batch = collate([first, second, first])
    tower: Any = model.get_submodule(find_parts(model).vision_tower)
    images = ImageEncoder(model)
    scorer = SharedPrefixScorer(model, images=images)
    with counted(tower) as rows:
        found = scored(scorer, model, batch)
    with counted(tower) as whole:
        expected = scored(PlainScorer(model), model, batch)
    close(found, expected)
    # Plain rows encode the chosen images twice and the rejected ones once, doubles included.
    alone = collate([first, second])
    with counted(tower) as distinct:
        scored(PlainScorer(model), model, alone)
    assert sum(rows) == distinct[0] + distinct[-1] < sum(whole)


@pytest.mark.parametrize("name", ["internvl", "qwen3_vl", "llava_next"])
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cached_features_give_the_same_numbers(name: str, kind: str, tmp_path: Path) -> None:
    model, collate = built(name)
    cache = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    batch = collate(make_rows(0)[SEVERAL_SIZES])
    expected = scored(PlainScorer(model), model, batch)
    tower: Any = model.get_submodule(find_parts(model).vision_tower)
    first = ImageEncoder(model, cache=cache, cached_slots=("chosen", "rejected"))
    close(scored(SharedPrefixScorer(model, images=first), model, batch), expected)
    # An encoder of a later run has seen nothing of the model's form yet: one image tells it.
    later = SharedPrefixScorer(
        model, images=ImageEncoder(model, cache=cache, cached_slots=("chosen", "rejected"))
    )
    with counted(tower) as rows:
        close(scored(later, model, batch), expected)
    assert len(rows) == 1
    # Another order of the same images takes nothing but the cache.
    shuffled = collate(make_rows(0)[SEVERAL_SIZES][::-1])
    with counted(tower) as rows:
        close(scored(later, model, shuffled), expected.flip(1))
    assert rows == []


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_the_size_of_features_is_known_before(name: str) -> None:
    model, collate = built(name)
    batch = collate(make_rows(0)[SEVERAL_SIZES])
    cache = MemoryCache()
    images = ImageEncoder(model, cache=cache, cached_slots=("chosen", "rejected"))
    scored(SharedPrefixScorer(model, images=images), model, batch)
    stored = sum(t.nbytes for image in cache._features.values() for t in image.values())
    config: Any = model.config
    prompts = [batch["prompts"][slot]["input_ids"] for slot in ("chosen", "rejected")]
    tokens = sum(int((ids == config.image_token_id).sum()) for ids in prompts)
    assert len(cache._features) == sum(len(ids) for ids in prompts)
    assert stored == feature_bytes(model, tokens)


@pytest.mark.parametrize("name", ["smolvlm", "ovis2"])
def test_features_that_cannot_be_told_apart_are_not_cached(name: str) -> None:
    model, collate = built(name)
    batch = collate(make_rows(0)[SEVERAL_SIZES])
    images = ImageEncoder(model, cache=MemoryCache(), cached_slots=("chosen",))
    with pytest.raises(ValueError, match="cannot be told apart by image"):
        scored(SharedPrefixScorer(model, images=images), model, batch)
    assert not ImageEncoder(model).separates(batch, "chosen")
    close(scored(SharedPrefixScorer(model), model, batch), scored(PlainScorer(model), model, batch))


@pytest.mark.parametrize("name", ["smolvlm", "idefics2"])
def test_rows_with_two_images_and_with_none_keep_their_own(name: str) -> None:
    # As many rows as images: features by row must not be taken for features by image.
    model, collate = built(name)
    made = make_rows(0)
    batch = collate([made[SEVERAL_IMAGES][0], made[TEXT_ONLY][0]])
    assert len(batch["image_keys"]["chosen"]) == 2
    close(scored(SharedPrefixScorer(model), model, batch), scored(PlainScorer(model), model, batch))


@pytest.mark.parametrize("name", ["llava", "llava_next", "internvl", "smolvlm", "idefics2"])
def test_encoding_inside_forward_gives_the_same_numbers(name: str) -> None:
    # Slots differ in tiles and sizes: the rejected image of the smaller picture is the larger one.
    model, collate = built(name)
    rows: list[Any] = [dict(each) for each in make_rows(0)[SEVERAL_SIZES][:2]]
    rows[0]["images"], rows[1]["images"] = (
        {"chosen": a["chosen"], "rejected": b["chosen"]}
        for a, b in ((r["images"], s["images"]) for r, s in (rows, rows[::-1]))
    )
    rows[1]["images"]["rejected"] = rows[1]["images"]["chosen"]
    batch = collate(rows)
    inside = SharedPrefixScorer(model, in_forward=True)
    close(scored(inside, model, batch), scored(PlainScorer(model), model, batch))


def test_newline_of_llava_next_belongs_to_the_projector_and_stays_frozen() -> None:
    model, _ = built("llava_next")
    model.requires_grad_(True)
    parts = find_parts(model)
    assert parts.part_of("model.image_newline") == "projector"
    assert parts.part_of("lm_head.weight") == "language_model"
    prepare_policy(model, None, frozen={"vision_tower", "projector"})
    named = dict(model.named_parameters())
    assert not named["model.image_newline"].requires_grad
    assert named["lm_head.weight"].requires_grad
    assert is_frozen_encoder(model)
    named["model.image_newline"].requires_grad_(True)
    assert not is_frozen_encoder(model)


def test_cross_attention_of_a_response_is_that_of_its_prompts_end() -> None:
    mask = torch.tensor([[[[1, 0]], [[1, 1]], [[0, 0]]], [[[0, 1]], [[1, 0]], [[0, 1]]]])
    prompt = {
        "input_ids": torch.tensor([[5, 6, 0], [5, 6, 7]]),
        "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
        "cross_attention_mask": mask,
    }
    response = {
        "input_ids": torch.tensor([[8, 9], [8, 0]]),
        "attention_mask": torch.tensor([[1, 1], [1, 0]]),
    }
    laid = lay_out(prompt, response).inputs["cross_attention_mask"]
    assert laid[0].tolist() == [[[1, 0]], [[1, 1]], [[1, 1]], [[1, 1]]]
    assert laid[1].tolist() == [[[0, 1]], [[1, 0]], [[0, 1]], [[0, 1]]]


@pytest.mark.parametrize("trained", [False, True])
def test_padded_vocabulary_takes_no_probability(trained: bool) -> None:
    model, collate = built("bunny")
    batch = collate(make_rows(0)[ONE_IMAGE])
    everything = scored(PlainScorer(model), model, batch)
    real = model.config.get_text_config().vocab_size - 1
    rows = lay_out(batch["prompts"]["chosen"], batch["responses"]["chosen"])
    logits = model(**rows.inputs).logits[rows.predicts_response][:, :real]
    by_hand = logits.log_softmax(-1).gather(-1, rows.response_ids[:, None]).sum()
    model.config.real_vocab_size = real
    head: Any = model.get_output_embeddings()
    head.requires_grad_(trained)
    plain = scored(PlainScorer(model), model, batch)
    close(plain[0].sum(), by_hand)
    close(scored(SharedPrefixScorer(model), model, batch), plain)
    assert bool((plain > everything).all())


@pytest.mark.parametrize("trained_head", [False, True])
def test_padded_vocabulary_gives_equal_gradients(trained_head: bool) -> None:
    gradients = []
    for kind in (PlainScorer, SharedPrefixScorer):
        model, collate = built("bunny")
        model.config.real_vocab_size = model.config.get_text_config().vocab_size - 1
        inner: Any = model.get_submodule("model.language_model.layers.0.mlp.fc1")
        inner.requires_grad_(True)
        head: Any = model.get_output_embeddings()
        head.requires_grad_(trained_head)
        batch = collate(make_rows(0)[SEVERAL_SIZES])
        kind(model)(model, batch, WANTED)[CHOSEN].sum().backward()
        gradients.append([each.grad for each in (inner.weight, head.weight) if each.requires_grad])
    assert len(gradients[0]) == 1 + trained_head
    for plain, shared in zip(*gradients, strict=True):
        assert plain.norm() > 0
        assert (plain - shared).norm() <= 1e-5 * plain.norm()
    if trained_head:
        # Rows beyond the real vocabulary take no part.
        assert not gradients[1][1][-1:].any()


def test_padded_vocabulary_of_a_head_with_scaled_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, collate = built("bunny")
    model.config.real_vocab_size = model.config.get_text_config().vocab_size - 1
    monkeypatch.setattr("mdpo.scoring.shared_prefix.scales_logits", lambda core: True)
    batch = collate(make_rows(0)[ONE_IMAGE])
    close(scored(SharedPrefixScorer(model), model, batch), scored(PlainScorer(model), model, batch))


def test_a_model_of_no_family_is_not_trusted_where_it_cannot_be_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, _ = built("llava")
    lines: list[str] = []
    monkeypatch.setattr(choice.logger, "warning", lines.append)
    assert isinstance(choose_scorer(model, in_forward=True), SharedPrefixScorer)
    monkeypatch.setattr(choice, "family_of", lambda config: None)
    assert isinstance(choose_scorer(model), SharedPrefixScorer)
    assert lines == []
    assert isinstance(choose_scorer(model, in_forward=True), PlainScorer)
    assert "is of no family in docs/models.md" in lines[0]
