"""Adapters to train on with, and kinds of adapters: what they start from, and what is saved."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from mdpo import MDPOConfig, MDPOTrainer
from mdpo.models.adapted import load_adapter
from mdpo.models.loading import load_model
from mdpo.models.parts import find_parts, linear_targets
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE
from mdpo.scoring import AdapterOff, AtStart, CachedReference, PlainScorer
from mdpo.training.references import starting_adapters

SCORED = (CHOSEN, REJECTED, REJECTED_IMAGE)

QUICK: dict[str, Any] = {
    "use_cpu": True,
    "disable_tqdm": True,
    "logging_steps": 1,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-2,
    "save_strategy": "no",
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
    "seed": 3,
}


@pytest.fixture
def start(model_dir: Path, tmp_path: Path) -> Path:
    """Adapters with an effect of many nats."""
    torch.manual_seed(5)
    base = AutoModelForImageTextToText.from_pretrained(model_dir)
    targets = linear_targets(base, find_parts(base), {"language_model"})
    adapted: Any = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    with torch.no_grad():
        for name, each in adapted.named_parameters():
            if "lora_B" in name:
                each.normal_(0, 0.1)
    adapted.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.fixture
def trainer(model_dir: Path, make_rows: Any, tmp_path: Path) -> Callable[..., MDPOTrainer]:
    def make(start: Path | None = None, **settings: Any) -> MDPOTrainer:
        model: Any = load_model(model_dir)
        config = settings.pop("peft_config", None)
        if start is not None:
            model = load_adapter(model, start, is_trainable=True)
        quick = {"output_dir": str(tmp_path / "run"), "max_steps": 3} | QUICK | settings
        rows = make_rows(8)
        return MDPOTrainer(
            model,
            args=MDPOConfig(**quick),
            train_dataset=rows,
            eval_dataset=rows,
            peft_config=config,
        )

    return make


def first_batch(run: Any) -> Any:
    return dict(run._own_collator([run.eval_dataset[position] for position in range(4)]))


def of_reference(run: MDPOTrainer) -> dict[Any, Tensor]:
    return run.reference(run.scorer, first_batch(run), SCORED)


def independently(run: MDPOTrainer, model_dir: Path, adapter: Path | None) -> dict[Any, Tensor]:
    """Log-probabilities of base and adapter loaded by transformers and peft alone."""
    model: Any = AutoModelForImageTextToText.from_pretrained(model_dir).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    with torch.no_grad():
        return PlainScorer(model)(model, first_batch(run), SCORED)


def assert_equal(one: dict[Any, Tensor], other: dict[Any, Tensor]) -> None:
    assert one.keys() == other.keys()
    for each in one:
        torch.testing.assert_close(one[each], other[each], rtol=1e-5, atol=1e-4)


def losses(run: MDPOTrainer) -> list[float]:
    return [row["loss"] for row in run.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    "settings",
    [{}, {"scorer": "plain"}, {"gradient_checkpointing": True}, {"max_tokens_per_batch": 120}],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_the_reference_is_the_starting_adapter_before_and_after_training(
    trainer: Any, model_dir: Path, start: Path, settings: dict[str, Any]
) -> None:
    run = trainer(start, objective="dpo", **settings)
    expected = independently(run, model_dir, start)
    bare = independently(run, model_dir, None)
    assert all((expected[each] - bare[each]).abs().max() > 1 for each in SCORED)
    assert_equal(of_reference(run), expected)
    run.train()
    assert losses(run)[0] == pytest.approx(math.log(2), rel=1e-6)
    assert losses(run)[-1] < losses(run)[0] - 0.05
    assert_equal(of_reference(run), expected)
    with torch.no_grad():
        policy = run.scorer(run.model.eval(), first_batch(run), SCORED)
    assert all((policy[each] - expected[each]).abs().max() > 0.1 for each in SCORED)


def test_one_adapter_is_saved_in_the_usual_layout(
    trainer: Any, model_dir: Path, start: Path, tmp_path: Path
) -> None:
    run = trainer(start)
    run.train()
    run.save_model()
    folder = tmp_path / "run"
    assert [path.relative_to(folder) for path in folder.rglob("adapter_*")] != []
    assert {path.parent for path in folder.rglob("adapter_*")} == {folder}
    before, after = (load_file(path / "adapter_model.safetensors") for path in (start, folder))
    assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}
    assert any(not before[name].equal(after[name]) for name in before)
    with torch.no_grad():
        policy = run.scorer(run.model.eval(), first_batch(run), SCORED)
    assert_equal(policy, independently(run, model_dir, folder))
    trained = {n for n, each in run.model.named_parameters() if each.requires_grad}
    grouped = [each for group in run.optimizer.param_groups for each in group["params"]]
    assert len(grouped) == len(trained)


def test_a_resumed_run_keeps_its_first_reference(
    trainer: Any, model_dir: Path, start: Path, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trainer(start, **saving)
    whole.train()
    resumed = trainer(start, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert_equal(of_reference(resumed), independently(resumed, model_dir, start))
    assert losses(resumed)[-2:] == pytest.approx(losses(whole)[-2:], rel=1e-6)
    # from the checkpoint as a start of its own, the reference would be the trained weights
    other = trainer(tmp_path / "run" / "checkpoint-2", **saving)
    with pytest.raises(ValueError, match=r"this run began with other adapters"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_stored_log_probabilities_are_those_of_the_starting_adapter(
    trainer: Any, model_dir: Path, start: Path, tmp_path: Path
) -> None:
    stored = {"precompute_ref_log_probs": True, "ref_cache_dir": str(tmp_path / "cache")}
    fresh = trainer(peft_config=LoraConfig(r=4), **stored)
    fresh.precompute_reference()
    run = trainer(start, **stored)
    assert isinstance(run.reference, CachedReference)
    assert isinstance(fresh.reference, CachedReference)
    assert run.reference.store.folder != fresh.reference.store.folder
    run.train()
    assert_equal(of_reference(run), independently(run, model_dir, start))
    assert losses(run)[0] == pytest.approx(3 * math.log(2), rel=1e-6)
    again = trainer(start, **stored)
    assert again.precompute_reference() == 0


def test_what_the_adapter_does_decides_the_reference(trainer: Any, start: Path) -> None:
    fresh = trainer(peft_config=LoraConfig(r=2))
    assert isinstance(fresh.reference, AdapterOff)
    assert starting_adapters(fresh.model) is None
    assert isinstance(trainer(start).reference, AtStart)
    # PiSSA changes the base: with its adapters off, it is no longer the model that was given
    pissa = trainer(peft_config=LoraConfig(r=2, init_lora_weights="pissa"))
    assert isinstance(pissa.reference, AtStart)
    assert pissa.evaluate()["eval_loss"] == pytest.approx(3 * math.log(2), rel=1e-6)


def test_a_saved_copy_of_a_module_counts_as_an_effect(model_dir: Path) -> None:
    def adapted() -> Any:
        base = load_model(model_dir)
        return get_peft_model(
            base,
            LoraConfig(r=2, target_modules=r".*language_model.*q_proj", modules_to_save=["norm"]),
        )

    model = adapted()
    assert starting_adapters(model) is None
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "modules_to_save" in n).add_(0.5)
    assert starting_adapters(model) is not None


def test_sharded_weights_need_a_store_for_the_adapters_of_the_start(
    trainer: Any, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(start)
    monkeypatch.setattr(run.accelerator.state, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ValueError, match=r"under FSDP they cannot be kept.*`mdpo merge`"):
        run._make_reference(None)
    run.args.precompute_ref_log_probs, run.args.ref_cache_dir = True, str(tmp_path)
    reference = run._make_reference(None)
    assert isinstance(reference, CachedReference)
    assert reference.online is None


def test_a_reference_model_of_its_own_comes_first(
    model_dir: Path, start: Path, make_rows: Any, tmp_path: Path
) -> None:
    run = MDPOTrainer(
        load_adapter(load_model(model_dir), start, is_trainable=True),
        ref_model=load_model(model_dir),
        args=MDPOConfig(output_dir=str(tmp_path / "run"), **QUICK),
        eval_dataset=make_rows(4),
    )
    assert_equal(of_reference(run), independently(run, model_dir, None))


def test_adapters_of_a_reference_model_are_part_of_the_stores_key(
    model_dir: Path, start: Path, make_rows: Any, tmp_path: Path
) -> None:
    folders = set()
    for reference in (load_model(model_dir), load_adapter(load_model(model_dir), start)):
        run = MDPOTrainer(
            model_dir,
            ref_model=reference,  # pyright: ignore[reportArgumentType]  # works with adapters too
            args=MDPOConfig(
                output_dir=str(tmp_path / "run"),
                precompute_ref_log_probs=True,
                ref_cache_dir=str(tmp_path / "cache"),
                **QUICK,
            ),
            eval_dataset=make_rows(2),
            peft_config=LoraConfig(r=2),
        )
        assert isinstance(run.reference, CachedReference)
        folders.add(run.reference.store.folder)
    assert len(folders) == 2


def test_adapters_of_other_names_are_refused(trainer: Any, model_dir: Path, start: Path) -> None:
    model: Any = PeftModel.from_pretrained(
        load_model(model_dir), str(start), adapter_name="mine", is_trainable=True
    )
    with pytest.raises(ValueError, match=r"one set of adapters, named 'default', got 'mine'"):
        MDPOTrainer(model, args=MDPOConfig(output_dir="x", **QUICK))
    frozen = load_adapter(load_model(model_dir), start)
    with pytest.raises(ValueError, match=r"No parameter is left to train.*`is_trainable=True`"):
        MDPOTrainer(frozen, args=MDPOConfig(output_dir="x", **QUICK))


def test_the_copies_return_the_trained_weights_when_scoring_fails(
    trainer: Any, start: Path
) -> None:
    run = trainer(start)
    before = {name: each for name, each in run.model.named_parameters()}

    def fail(*_: object) -> Any:
        assert any(each is not before[n] for n, each in run.model.named_parameters())
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run.reference(fail, {}, [])
    assert all(each is before[name] for name, each in run.model.named_parameters())


KINDS = {
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "head": {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    "norms": {"modules_to_save": ["input_layernorm"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_adapters_train_alike_with_both_scorers(trainer: Any, kind: str) -> None:
    config = LoraConfig(r=4, lora_alpha=8, **KINDS[kind])
    runs = []
    for scorer in ("shared_prefix", "plain"):
        run = trainer(peft_config=copy.deepcopy(config), scorer=scorer, learning_rate=1e-3)
        run.train()
        runs.append(run)
    assert type(runs[0].scorer).__name__ == "SharedPrefixScorer"
    assert losses(runs[0])[0] == pytest.approx(3 * math.log(2), rel=1e-4)
    assert losses(runs[0])[-1] < losses(runs[0])[0] - 0.05
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)


def test_run_record_names_the_starting_adapters(trainer: Any, start: Path, tmp_path: Path) -> None:
    run = trainer(start, max_steps=1)
    run.train()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["starting_adapters"] == run._starting_adapters
    assert len(record["starting_adapters"]) == 32


def test_template_variables_reach_training_and_evaluation(
    model_dir: Path, processor: Any, make_rows: Any, tmp_path: Path
) -> None:
    other = copy.copy(processor)
    other.chat_template = "{{ opening | default('') }}" + processor.chat_template
    args = MDPOConfig(
        output_dir=str(tmp_path), chat_template_kwargs={"opening": "USER: USER: "}, **QUICK
    )
    run: Any = MDPOTrainer(
        model_dir, args=args, train_dataset=make_rows(2), processing_class=other,
        peft_config=LoraConfig(r=2),
    )  # fmt: skip
    seen: list[Any] = []
    prepare = run._prepare
    run._prepare = lambda *given: seen.append(given[3]) or prepare(*given)
    run.evaluate(make_rows(2))
    encoders = [run._own_collator.encoder, *seen]
    prompt = make_rows(1)[0]["prompt"]
    assert len(encoders) == 2
    assert all(each.prompt_text(prompt).startswith("USER: USER: ") for each in encoders)
