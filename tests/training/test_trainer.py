"""The trainer: what must hold on a tiny CPU model, whatever the settings."""

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from mdpo import MDPOConfig, MDPOTrainer
from mdpo.data.dataset import PreferenceDataset
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE, Anchor, Objective

QUICK: dict[str, Any] = {
    "use_cpu": True,
    "disable_tqdm": True,
    "logging_steps": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "save_strategy": "no",
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
    "seed": 3,
}

LORA = LoraConfig(r=4, lora_alpha=8)


@pytest.fixture
def trainer(model_dir: Path, make_rows: Any, tmp_path: Path) -> Callable[..., MDPOTrainer]:
    def make(rows: Any = None, *, lora: bool = True, **settings: Any) -> MDPOTrainer:
        given = {key: settings.pop(key) for key in ("ref_model", "model") if key in settings}
        rows = make_rows(8) if rows is None else rows
        quick: dict[str, Any] = {"output_dir": str(tmp_path / "run")} | QUICK | settings
        return MDPOTrainer(
            given.pop("model", model_dir),
            args=MDPOConfig(**quick),
            train_dataset=rows,
            eval_dataset=rows,
            peft_config=copy.deepcopy(LORA) if lora else None,
            **given,
        )

    return make


def losses(run: MDPOTrainer) -> list[float]:
    return [row["loss"] for row in run.state.log_history if "loss" in row]


def state(run: MDPOTrainer) -> dict[str, Tensor]:
    assert run.model is not None
    return {name: value.detach().clone() for name, value in run.model.state_dict().items()}


@pytest.mark.parametrize("lora", [True, False])
def test_step_zero_costs_three_log_two(trainer: Any, lora: bool) -> None:
    metrics = trainer(lora=lora).evaluate()
    assert metrics["eval_loss"] == pytest.approx(3 * math.log(2), rel=1e-6)
    assert metrics["eval_rewards/chosen"] == pytest.approx(0, abs=1e-5)
    for term in ("response", "image", "anchor"):
        assert metrics[f"eval_loss/{term}"] == pytest.approx(math.log(2), rel=1e-6)


def test_a_trl_style_dataset_trains_as_the_readme_says(
    model_dir: Path, make_rows: Any, tmp_path: Path
) -> None:
    data = Dataset.from_list(make_rows(4))
    for objective in ("mdpo", "dpo"):
        args = MDPOConfig(
            output_dir=str(tmp_path / objective),
            objective=objective,
            max_length=None,
            use_cpu=True,
            max_steps=1,
            disable_tqdm=True,
        )
        run = MDPOTrainer(model=str(model_dir), args=args, train_dataset=data)
        run.train()
        assert run.state.global_step == 1


@pytest.mark.parametrize("lora", [True, False])
def test_loss_falls_and_only_the_language_model_moves(trainer: Any, lora: bool) -> None:
    run = trainer(lora=lora, max_steps=6)
    before = state(run)
    run.train()
    assert losses(run)[-1] < losses(run)[0] - 0.1
    moved = {name for name, value in state(run).items() if not value.equal(before[name])}
    assert moved
    if lora:
        assert all("lora_" in name for name in moved)
    assert not any("vision_tower" in name or "projector" in name for name in moved)


def test_the_reference_does_not_move_in_full_fine_tuning(trainer: Any, mixed_rows: Any) -> None:
    run = trainer(mixed_rows, lora=False, max_steps=3)
    batch = next(iter(run.get_eval_dataloader()))
    before = run.reference(run.scorer, batch, [CHOSEN])[CHOSEN]
    run.train()
    after = run.reference(run.scorer, batch, [CHOSEN])[CHOSEN]
    assert after.equal(before)


def test_adapter_off_reference_equals_a_separate_copy(
    trainer: Any, model_dir: Path, mixed_rows: Any
) -> None:
    first = trainer(mixed_rows, max_steps=4)
    reference = AutoModelForImageTextToText.from_pretrained(model_dir)
    second = trainer(mixed_rows, max_steps=4, ref_model=reference)
    for run in (first, second):
        run.train()
    assert losses(first) == pytest.approx(losses(second), rel=1e-5)


def test_the_policy_itself_is_no_reference(model_dir: Path, make_rows: Any, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(model_dir)
    with pytest.raises(ValueError, match=r"`ref_model` must be another object than `model`"):
        MDPOTrainer(model, model, MDPOConfig(output_dir=str(tmp_path), use_cpu=True))


def test_accumulation_equals_a_larger_batch(trainer: Any) -> None:
    large = trainer(per_device_train_batch_size=8, max_steps=3)
    small = trainer(per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=3)
    for run in (large, small):
        run.train()
    assert losses(large) == pytest.approx(losses(small), rel=1e-4)

    def norms(run: MDPOTrainer) -> list[float]:
        return [row["grad_norm"] for row in run.state.log_history if "grad_norm" in row]

    assert norms(large) == pytest.approx(norms(small), rel=1e-3)


def test_gradient_checkpointing_changes_nothing(trainer: Any) -> None:
    # transformers 5.23 renames the setting; 5.21 knows the old name only
    names = [field.name for field in dataclasses.fields(MDPOConfig)]
    name = "activation_checkpointing"
    name = name if name in names else "gradient_checkpointing"
    plain, saving = trainer(max_steps=3), trainer(max_steps=3, **{name: True})
    for run in (plain, saving):
        run.train()
    assert losses(plain) == pytest.approx(losses(saving), rel=1e-5)


def test_each_report_covers_only_the_steps_since_the_last(trainer: Any) -> None:
    run = trainer(max_steps=4)
    run.train()
    reports = [row for row in run.state.log_history if "loss" in row]
    terms = [sum(row[f"loss/{t}"] for t in ("response", "image", "anchor")) for row in reports]
    assert [row["loss"] for row in reports] == pytest.approx(terms, rel=1e-5)
    assert len(reports) == 4


def test_weights_scale_the_loss_and_not_the_rewards(trainer: Any) -> None:
    plain = trainer().evaluate()
    weighted = trainer(loss_weights=[2.0, 0.5, 0.0]).evaluate()
    assert weighted["eval_loss"] == pytest.approx(2.5 * math.log(2), rel=1e-6)
    assert weighted["eval_rewards/margins"] == plain["eval_rewards/margins"]
    assert "eval_loss/anchor" not in weighted


def test_text_only_rows_have_no_image_term(trainer: Any, mixed_rows: Any) -> None:
    # one row of four has no image: its image term adds nothing
    metrics = trainer(mixed_rows).evaluate()
    assert metrics["eval_loss"] == pytest.approx((4 + 4 + 3) / 4 * math.log(2), rel=1e-5)
    assert metrics["eval_loss/image"] == pytest.approx(math.log(2), rel=1e-5)


def test_a_written_objective_is_trained(trainer: Any) -> None:
    objective = Objective("mine", (Anchor(name="up", candidate=CHOSEN, floor=1.0),), beta=0.2)
    metrics = trainer(objective=objective).evaluate()
    assert metrics["eval_loss"] == pytest.approx(math.log1p(math.exp(1)), rel=1e-5)
    assert metrics["eval_rewards/anchor_violations"] == 1.0


def test_no_image_control_trains_on_text_alone(trainer: Any) -> None:
    run = trainer(objective="dpo", image_condition="none", max_steps=2)
    batch = next(iter(run.get_train_dataloader()))
    assert set(batch["prompts"]) == {"chosen"}
    assert "pixel_values" not in batch["prompts"]["chosen"]
    run.train()
    assert "eval_rewards/image_accuracies" not in run.evaluate()


def test_dpo_reports_image_metrics_on_held_out_pairs(trainer: Any) -> None:
    run = trainer(objective="dpo", max_steps=2)
    run.train()
    training = [row for row in run.state.log_history if "loss" in row][-1]
    assert "rewards/image_accuracies" not in training
    assert "eval_rewards/image_accuracies" in run.evaluate()


def test_not_finite_loss_stops_before_the_update(trainer: Any) -> None:
    run = trainer(max_steps=2)
    before = state(run)
    poisoned = next(name for name in before if "lora_B" in name)
    run.model.get_parameter(poisoned).data.fill_(math.nan)
    with pytest.raises(RuntimeError, match=r"Loss is not finite at step 0.*Stopped before the upd"):
        run.train()
    after = state(run)
    assert all(after[name].equal(before[name]) for name in before if name != poisoned)


def test_dropout_is_off_in_the_policy(trainer: Any, model_dir: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(model_dir)
    for part in (model.config.text_config, model.config.vision_config):
        part.attention_dropout = 0.5
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            setattr(module, "attention_dropout", 0.5)  # noqa: B010 - no declared attribute
    noisy = trainer(model=copy.deepcopy(model), disable_dropout=False)
    calm = trainer(model=model)
    for run, is_random in ((noisy, True), (calm, False)):
        batch = next(iter(run.get_eval_dataloader()))
        run.model.train()
        with torch.no_grad():
            scores = [run.scorer(run.model, batch, [CHOSEN])[CHOSEN] for _ in range(2)]
        assert scores[0].equal(scores[1]) != is_random


def test_rewards_by_candidate_reach_compute_metrics(
    model_dir: Path, make_rows: Any, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def compute(prediction: Any) -> dict[str, float]:
        seen.append(prediction)
        return {"mine": 1.0}

    run = MDPOTrainer(
        model_dir,
        args=MDPOConfig(output_dir=str(tmp_path), **QUICK),
        eval_dataset=make_rows(4),
        compute_metrics=compute,
        peft_config=copy.deepcopy(LORA),
    )
    metrics = run.evaluate()
    assert metrics["eval_mine"] == 1.0
    assert len(seen[0].predictions) == len({CHOSEN, REJECTED, REJECTED_IMAGE})
    assert all(len(each) == 4 for each in seen[0].predictions)


def test_adapters_that_reach_the_frozen_tower_are_refused(
    model_dir: Path, make_rows: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"the vision_tower is to stay frozen"):
        MDPOTrainer(
            model_dir,
            args=MDPOConfig(output_dir=str(tmp_path), **QUICK),
            train_dataset=make_rows(2),
            peft_config=LoraConfig(target_modules=["q_proj"]),
        )


def test_thawed_parts_are_adapted(trainer: Any) -> None:
    run = trainer(freeze_vision_tower=False, freeze_multi_modal_projector=False, max_steps=2)
    before = state(run)
    run.train()
    moved = {name for name, value in state(run).items() if not value.equal(before[name])}
    for part in ("vision_tower", "multi_modal_projector", "language_model"):
        assert any(part in name for name in moved)


def test_bad_rows_stop_the_run_or_are_dropped(trainer: Any, make_rows: Any) -> None:
    rows = make_rows(4)
    rows[1]["chosen"][0]["content"] = ""
    with pytest.raises(ValueError, match=r"1 of 4 rows of the train data.*\nrow 1"):
        trainer(rows)
    run = trainer(rows, on_bad_row="skip")
    assert len(run.train_dataset) == 3
    assert [problem.index for problem in run.reports["train"].problems] == [1]


def test_a_set_without_images_cannot_be_compared_by_image(trainer: Any, make_rows: Any) -> None:
    rows = make_rows(2)
    for row in rows:
        row["images"] = []
    with pytest.raises(ValueError, match=r"has no row with an image"):
        trainer(rows)


def test_what_is_saved_loads_without_mdpo(trainer: Any, model_dir: Path, tmp_path: Path) -> None:
    run = trainer(max_steps=2)
    run.train()
    run.save_model()
    folder = tmp_path / "run"
    base = AutoModelForImageTextToText.from_pretrained(model_dir)
    loaded = PeftModel.from_pretrained(base, str(folder)).eval()
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.chat_template
    batch = next(iter(run.get_eval_dataloader()))
    run.model.eval()
    with torch.no_grad():
        ours = run.scorer(run.model, batch, [CHOSEN])[CHOSEN]
        theirs = run.scorer(loaded, batch, [CHOSEN])[CHOSEN]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
    card = (folder / "README.md").read_text()
    for words in ("PeftModel.from_pretrained", "objective `mdpo`", "crop_keep", "rewards/margins"):
        assert words in card


def test_the_record_is_written_before_the_first_step(trainer: Any, tmp_path: Path) -> None:
    run = trainer(max_steps=1)

    def stop(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    run.training_step = stop
    with pytest.raises(KeyboardInterrupt):
        run.train()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["objective"]["name"] == "mdpo"
    assert record["data"]["train"] == run.reports["train"].fingerprint
    assert record["versions"]["torch"] == torch.__version__
    assert record["settings"]["beta"] == 0.1
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["train"]["num_good"] == 8


def test_resuming_on_other_data_is_refused(trainer: Any, make_rows: Any, tmp_path: Path) -> None:
    run = trainer(max_steps=2, save_strategy="steps", save_steps=1)
    run.train()
    other = trainer(make_rows(8, first=20), max_steps=3)
    with pytest.raises(ValueError, match=r"this run began with other training data"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_rejected_images_move_with_the_epoch_also_when_resumed(
    trainer: Any, tmp_path: Path
) -> None:
    settings = {
        "corruption": "noise",
        "corruption_per_epoch": True,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    whole = trainer(**settings)
    whole.train()
    resumed = trainer(**settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert all(value.equal(state(resumed)[name]) for name, value in state(whole).items())
    # four steps of four pairs end in the second pass over eight rows
    fresh, seen = trainer(**settings).train_dataset, {}
    assert isinstance(fresh, PreferenceDataset)
    for epoch in (0, 1):
        fresh.set_epoch(epoch)
        seen[epoch] = fresh[0]["images"]["rejected"][0].tobytes()
    last = whole.train_dataset[0]["images"]["rejected"][0].tobytes()
    assert last == seen[1]
    assert last != seen[0]
