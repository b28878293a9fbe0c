"""Settings: defaults are the paper's, and what no run can use is refused, all at once."""

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainingArguments

from mdpo import MDPOConfig
from mdpo.objectives import CHOSEN, Anchor, Objective, Preference
from mdpo.training.preparation import refuse_devices, refuse_liger


def config(**settings: Any) -> MDPOConfig:
    return MDPOConfig(**({"output_dir": "unused", "use_cpu": True} | settings))


def test_defaults_are_the_papers() -> None:
    made = config()
    objective = made.make_objective()
    assert [term.name for term in objective.terms] == ["response", "image", "anchor"]
    assert [term.weight for term in objective.terms] == [1.0, 1.0, 1.0]
    assert (objective.beta, made.anchor_floor) == (0.1, 0.0)
    assert (made.learning_rate, made.num_train_epochs) == (1e-5, 3.0)
    assert made.lr_scheduler_type == "cosine"
    assert made.warmup_steps == 0.1
    assert made.per_device_train_batch_size * made.gradient_accumulation_steps == 32
    assert (made.corruption, made.corruption_options) == ("crop_keep", None)


def test_our_own_settings_are_exactly_these() -> None:
    inherited = {field.name for field in fields(TrainingArguments)}
    assert {field.name for field in fields(MDPOConfig)} - inherited == {
        "objective",
        "beta",
        "link",
        "label_smoothing",
        "anchor_floor",
        "loss_weights",
        "sft_weight",
        "corruption",
        "corruption_options",
        "corruption_per_epoch",
        "image_condition",
        "image_root",
        "max_length",
        "chat_template_kwargs",
        "on_bad_row",
        "scorer",
        "max_tokens_per_batch",
        "precompute_ref_log_probs",
        "precompute_ref_batch_size",
        "ref_cache_dir",
        "feature_cache",
        "feature_cache_dir",
        "disable_dropout",
        "freeze_vision_tower",
        "freeze_multi_modal_projector",
        "freeze_language_model",
    }


def test_settings_reach_the_objective() -> None:
    made = config(
        beta=0.3,
        link="hinge",
        anchor_floor=0.5,
        loss_weights=[1.0, 2.0, 3.0, 4.0],
        sft_weight=0.25,
    ).make_objective()
    response, image, anchor, sft = made.terms
    assert isinstance(response, Preference)
    assert isinstance(image, Preference)
    assert isinstance(anchor, Anchor)
    assert (response.link, image.link, anchor.floor, made.beta) == ("hinge", "hinge", 0.5, 0.3)
    assert [term.weight for term in (response, image, anchor, sft)] == [1.0, 2.0, 3.0, 4.0]
    smoothed = config(label_smoothing=0.1).make_objective().terms[0]
    assert isinstance(smoothed, Preference)
    assert smoothed.label_smoothing == 0.1


def test_an_objective_may_be_given_as_one() -> None:
    mine = Objective("mine", (Anchor(name="up", candidate=CHOSEN),), beta=0.2)
    assert config(objective=mine).make_objective() == mine
    assert config(objective=mine.to_spec()).make_objective() == mine
    assert config(objective=json.dumps(mine.to_spec())).make_objective() == mine


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beta": 0.0}, "`beta` must be > 0, got 0.0. The paper uses 0.1."),
        ({"beta": -1.0}, "`beta` must be > 0"),
        ({"objective": "mdp"}, "`objective` 'mdp' is unknown. Known: dpo, mdpo"),
        ({"link": "square"}, "`link` must be one of logsigmoid, hinge, ipo, got 'square'"),
        ({"label_smoothing": 0.5}, r"`label_smoothing` must be in \[0, 0.5\)"),
        ({"loss_weights": [1.0]}, r"one weight per term of `mdpo` \(response, image, anchor\)"),
        ({"loss_weights": [0.0, 0.0, 0.0]}, "must have a term with weight > 0"),
        ({"sft_weight": -1.0}, "`sft_weight` must be >= 0"),
        ({"corruption": "crop"}, "`corruption` 'crop' is unknown"),
        ({"corruption_options": {"area": 1}}, "area"),
        ({"corruption_options": "{"}, "`corruption_options` must be JSON"),
        (
            {"corruption": "provided", "corruption_options": {"a": 1}},
            "must be empty for 'provided'",
        ),
        ({"image_condition": "non"}, "`image_condition` must be one of .* Did you mean 'none'?"),
        ({"image_condition": "none"}, "leaves objective 'mdpo' no images to compare"),
        ({"on_bad_row": "drop"}, "`on_bad_row` must be one of error, skip, got 'drop'"),
        ({"max_length": 1}, "`max_length` must be at least 2, got 1"),
        ({"chat_template_kwargs": "{"}, "`chat_template_kwargs` must be JSON"),
        ({"chat_template_kwargs": "[1]"}, r"`chat_template_kwargs` must be a mapping, got \[1\]"),
        ({"chat_template_kwargs": {"tokenize": True}}, "must not set `tokenize`, which mdpo sets"),
        (
            {"use_liger_kernel": True, "liger_kernel_config": {"fused_linear_cross_entropy": True}},
            "`liger_kernel_config` must not set fused_linear_cross_entropy true",
        ),
    ],
)
def test_values_no_run_can_use_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**settings)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"(?s)`beta`.*`corruption`.*`on_bad_row`"):
        config(beta=0.0, corruption="crop", on_bad_row="drop")


def test_settings_beside_a_written_objective_have_no_effect_and_are_refused() -> None:
    spec = Objective("mine", (Anchor(name="up", candidate=CHOSEN),)).to_spec()
    with pytest.raises(ValueError, match=r"`link` has no effect beside a written objective"):
        config(objective=spec, link="hinge")


def test_no_image_control_goes_with_dpo(tmp_path: Path) -> None:
    assert not config(objective="dpo", image_condition="none").make_objective().needs_image


def test_liger_keeps_its_hands_off_the_head() -> None:
    off = {"fused_linear_cross_entropy": False, "cross_entropy": False}
    assert config(use_liger_kernel=True).liger_kernel_config == off
    given = config(use_liger_kernel=True, liger_kernel_config={"rope": False})
    assert given.liger_kernel_config == {"rope": False, **off}
    assert config().liger_kernel_config is None


def test_liger_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "mdpo.training.preparation.is_liger_kernel_available"
    refuse_liger(config())
    monkeypatch.setattr(where, lambda: False)
    with pytest.raises(ValueError, match=r"needs the package liger-kernel, which is not installed"):
        refuse_liger(config(use_liger_kernel=True))
    monkeypatch.setattr(where, lambda: True)
    with pytest.raises(ValueError, match=r"needs a GPU, and this run is on the CPU"):
        refuse_liger(config(use_liger_kernel=True))


@pytest.mark.parametrize(
    ("gpus", "processes", "devices", "words"),
    [
        (2, 1, None, r"One process sees 2 GPUs"),
        (1, 4, {"a": 0, "b": 1}, r"`device_map` spreads the model .* in each of 4 processes"),
        (2, 1, {"a": 0, "b": 1}, None),
        (1, 4, {"": 0}, None),
        (1, 1, None, None),
    ],
)
def test_devices_that_do_not_go_together(
    gpus: int, processes: int, devices: Any, words: str | None
) -> None:
    args: Any = SimpleNamespace(n_gpu=gpus, world_size=processes)
    model = SimpleNamespace(hf_device_map=devices)
    if words is None:
        refuse_devices(model, args)
    else:
        with pytest.raises(ValueError, match=words):
            refuse_devices(model, args)
