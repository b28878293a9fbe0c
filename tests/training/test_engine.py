"""The trainer's engine: every fast path trains as the plain one does, and encodes what it must."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor

from mdpo import MDPOConfig, MDPOTrainer
from mdpo.data.collation import PreferenceCollator
from mdpo.models.loading import load_model
from mdpo.scoring import CachedReference, PlainScorer, SharedPrefixScorer
from mdpo.scoring.reference import FrozenCopy

QUICK: dict[str, Any] = {
    "use_cpu": True,
    "disable_tqdm": True,
    "logging_steps": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3,
    "learning_rate": 1e-3,
    "save_strategy": "no",
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
    "seed": 3,
}

Make = Callable[..., MDPOTrainer]


@pytest.fixture
def trainer(model_dir: Path, mixed_rows: Any, tmp_path: Path) -> Make:
    def make(*, lora: bool = True, rows: Any = None, model: Any = None, **settings: Any) -> Any:
        quick: dict[str, Any] = {"output_dir": str(tmp_path / "run")} | QUICK | settings
        return MDPOTrainer(
            model or model_dir,
            args=MDPOConfig(**quick),
            train_dataset=rows or mixed_rows,
            eval_dataset=rows or mixed_rows,
            peft_config=LoraConfig(r=4, lora_alpha=8) if lora else None,
        )

    return make


def trained(run: MDPOTrainer) -> tuple[list[float], dict[str, Tensor]]:
    run.train()
    assert run.model is not None
    losses = [row["loss"] for row in run.state.log_history if "loss" in row]
    return losses, {n: p.detach().clone() for n, p in run.model.named_parameters()}


def assert_trains_alike(one: MDPOTrainer, other: MDPOTrainer) -> None:
    (losses, weights), (expected, expected_weights) = trained(one), trained(other)
    assert losses == pytest.approx(expected, rel=1e-4)
    for name, value in weights.items():
        # Adam divides by the size of a gradient, so rounding shows where that is near 0.
        torch.testing.assert_close(value, expected_weights[name], rtol=1e-3, atol=1e-4, msg=name)
    assert one.evaluate()["eval_loss"] == pytest.approx(other.evaluate()["eval_loss"], rel=1e-4)


def encoded(run: MDPOTrainer, work: Callable[[], Any]) -> int:
    """Images that go through the vision tower meanwhile, of policy and reference together."""
    counts = []
    base: Any = run.model.get_base_model() if isinstance(run.model, PeftModel) else run.model
    towers = [base.model.vision_tower]
    online = getattr(run.reference, "online", run.reference)
    if isinstance(online, FrozenCopy):
        reference: Any = online.model
        towers.append(reference.model.vision_tower)

    def count(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        counts.append(len(kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]))

    hooks = [each.register_forward_pre_hook(count, with_kwargs=True) for each in towers]
    work()
    for hook in hooks:
        hook.remove()
    return sum(counts)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_tokens_per_batch": 1},
        {"max_tokens_per_batch": 150, "gradient_accumulation_steps": 2,
         "per_device_train_batch_size": 2},
        {"precompute_ref_log_probs": True},
        {"feature_cache": "memory"},
        {"feature_cache": "disk"},
        {"activation_checkpointing": True},
        {"train_sampling_strategy": "sequential", "corruption_per_epoch": True},
        {"precompute_ref_log_probs": True, "corruption_per_epoch": True},
    ],
    ids=lambda settings: "-".join(settings) or "default",
)  # fmt: skip
def test_every_path_trains_as_the_plain_scorer(
    trainer: Make, tmp_path: Path, lora: bool, settings: dict[str, Any]
) -> None:
    caches = {"ref_cache_dir": str(tmp_path / "refs"), "feature_cache_dir": str(tmp_path / "feats")}
    engine = {"max_tokens_per_batch", "precompute_ref_log_probs", "feature_cache"}
    same = {key: value for key, value in settings.items() if key not in engine}
    one = trainer(lora=lora, **caches, **settings)
    assert isinstance(one.scorer, SharedPrefixScorer)
    plain = trainer(lora=lora, scorer="plain", **same)
    assert isinstance(plain.scorer, PlainScorer)
    assert_trains_alike(one, plain)


def test_eager_attention_keeps_its_attention(trainer: Make, model_dir: Path) -> None:
    run = trainer(model=load_model(model_dir, attn_implementation="eager"))
    assert isinstance(run.scorer, SharedPrefixScorer)
    assert run.scorer.attention == "dense"
    plain = trainer(model=load_model(model_dir, attn_implementation="eager"), scorer="plain")
    assert_trains_alike(run, plain)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize(("objective", "images"), [("dpo", 1), ("mdpo", 2)])
def test_images_encoded_per_pair(
    trainer: Make, make_rows: Any, lora: bool, objective: str, images: int
) -> None:
    run = trainer(rows=make_rows(4), lora=lora, objective=objective, num_train_epochs=1)
    assert encoded(run, run.train) == images * 4


def test_no_image_is_encoded_twice_with_the_feature_cache(
    trainer: Make, make_rows: Any, tmp_path: Path
) -> None:
    rows = make_rows(4)
    run = trainer(rows=rows, feature_cache="memory", corruption_per_epoch=True, seed=8)
    # The self-check has encoded two pairs already; rejected images are new in each epoch.
    assert encoded(run, run.train) == (4 - 2) + 3 * 4
    fixed = trainer(rows=rows, feature_cache="disk", feature_cache_dir=str(tmp_path / "f"))
    assert encoded(fixed, fixed.train) == 8 - 4
    again = trainer(rows=rows, feature_cache="disk", feature_cache_dir=str(tmp_path / "f"))
    assert encoded(again, again.train) == 0


def test_a_trained_tower_shares_nothing_and_caches_nothing(trainer: Make, make_rows: Any) -> None:
    thawed = {"freeze_vision_tower": False, "num_train_epochs": 1, "lora": False}
    run = trainer(rows=make_rows(4), **thawed)
    assert encoded(run, run.train) == 2 * 2 * 4
    with pytest.raises(ValueError, match=r"`feature_cache` needs a frozen vision tower"):
        trainer(rows=make_rows(4), feature_cache="memory", **thawed)


def test_a_reference_with_another_tower_has_its_own_features(
    trainer: Make, model_dir: Path, make_rows: Any, tmp_path: Path
) -> None:
    reference: Any = load_model(model_dir)
    with torch.no_grad():
        reference.model.multi_modal_projector.linear_1.weight.mul_(1.5)
    results = []
    for scorer in ("shared_prefix", "plain"):
        args = MDPOConfig(output_dir=str(tmp_path), scorer=scorer, **QUICK)
        run = MDPOTrainer(
            model_dir, copy.deepcopy(reference), args, eval_dataset=make_rows(4),
            peft_config=LoraConfig(r=4),
        )  # fmt: skip
        results.append(run.evaluate()["eval_rewards/chosen"])
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    assert abs(results[1]) > 1e-4, "the other projector must show"


def test_full_fine_tuning_with_stored_references_keeps_no_second_model(
    trainer: Make, tmp_path: Path
) -> None:
    stored = {"precompute_ref_log_probs": True, "ref_cache_dir": str(tmp_path / "refs")}
    run = trainer(lora=False, **stored)
    assert isinstance(run.reference, CachedReference)
    assert run.reference.online is None
    run.train()
    assert run.evaluate()["eval_loss"] < 3 * math.log(2)


def test_stored_references_are_shared_between_runs(
    trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {"precompute_ref_log_probs": True, "ref_cache_dir": str(tmp_path / "refs")}
    first = trainer(**stored)
    assert first.precompute_reference() == 4
    assert first.precompute_reference() == 0
    # Adapters do not count, other settings of training do not count.
    assert trainer(lora=False, **stored, learning_rate=1e-5).precompute_reference() == 0
    # Another draw of the rejected images does.
    assert trainer(**stored, data_seed=9).precompute_reference() == 4
    facts = [json.loads(each.read_text()) for each in (tmp_path / "refs").glob("*/facts.json")]
    assert sorted(each["corruption seed"] for each in facts) == [3, 9]


def test_a_first_pass_that_was_cut_off_goes_on(
    trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {"precompute_ref_log_probs": True, "ref_cache_dir": str(tmp_path / "refs")}
    run = trainer(precompute_ref_batch_size=1, **stored)
    original, calls = PreferenceCollator.__call__, []

    def cut(self: PreferenceCollator, examples: Any) -> Any:
        calls.append(len(examples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, examples)

    monkeypatch.setattr(PreferenceCollator, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    monkeypatch.undo()
    assert trainer(**stored).precompute_reference() == 2


def test_rows_that_no_reference_is_left_for_are_refused(
    trainer: Make, make_rows: Any, tmp_path: Path
) -> None:
    stored = {"precompute_ref_log_probs": True, "ref_cache_dir": str(tmp_path / "refs")}
    run = trainer(lora=False, num_train_epochs=1, **stored)
    run.train()
    with pytest.raises(ValueError, match=r"2 rows have no reference .* Give this data as `eval_d"):
        run.evaluate(make_rows(2, first=40))


def test_resuming_with_stored_references_changes_nothing(trainer: Make, tmp_path: Path) -> None:
    stored = {"precompute_ref_log_probs": True, "ref_cache_dir": str(tmp_path / "refs")}
    saving = {"save_strategy": "epoch", "lora": False, **stored}
    whole = trainer(**saving)
    whole.train()
    resumed = trainer(**saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert whole.model is not None
    assert resumed.model is not None
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=1e-6, atol=1e-7)


def test_the_loss_of_passes_is_the_mean_over_pairs(trainer: Make) -> None:
    run = trainer(max_tokens_per_batch=1, num_train_epochs=1, weight_decay=0)
    run.train()
    (step,) = [row for row in run.state.log_history if "loss" in row]
    assert step["loss"] < 3 * math.log(2) + 1e-4
    # Before the first step every margin is 0: 3 log 2, less 1 log 2 for the row without images.
    assert step["loss"] == pytest.approx((3 + 3 + 2 + 3) / 4 * math.log(2), rel=1e-5)


def test_grouped_lengths_are_an_order_of_the_same_rows(trainer: Make, make_rows: Any) -> None:
    run = trainer(rows=make_rows(8), train_sampling_strategy="group_by_length")
    loader = run.get_train_dataloader()
    rows = [row for batch in loader for row in batch["rows"].tolist()]
    assert sorted(rows) == list(range(8))
    lengths = run.train_dataset.lengths  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    assert lengths[rows[0]] == max(lengths)
    run.train()
    assert run.evaluate()["eval_loss"] > 0


def test_compiled_code_trains_alike(trainer: Make) -> None:
    compiled = trainer(torch_compile=True, torch_compile_backend="aot_eager")
    assert_trains_alike(compiled, trainer(scorer="plain"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorer": "plane"}, "`scorer` must be one of .* Did you mean 'plain'"),
        ({"max_tokens_per_batch": 0}, "`max_tokens_per_batch` must be at least 1, got 0"),
        ({"precompute_ref_batch_size": 0}, "`precompute_ref_batch_size` must be at least 1"),
        ({"feature_cache": "ram"}, "`feature_cache` must be one of none, memory, disk"),
        ({"feature_cache": "disk", "scorer": "plain"}, "no effect with `scorer` plain"),
    ],
)
def test_settings_of_the_engine_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MDPOConfig(output_dir="x", **settings)


def test_the_best_checkpoint_comes_back_whole(trainer: Make, tmp_path: Path) -> None:
    best = {"metric_for_best_model": "loss", "greater_is_better": True}  # so the first is the best
    saving = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
    run = trainer(lora=False, **saving, **best)
    run.train()
    assert str(run.state.best_model_checkpoint).endswith("checkpoint-1")
    first: Any = load_model(tmp_path / "run" / "checkpoint-1")
    assert run.model is not None
    for name, value in first.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value)
