"""Plans: what they say of a run is what the run then does."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from mdpo import MDPOConfig, MDPOTrainer
from mdpo.cli import main
from mdpo.conformance.tiny import TINY_MODELS
from mdpo.data.encoding import Encoder, TokenCounter
from mdpo.data.reading import Rows
from mdpo.data.sources import load_raw
from mdpo.models.policy import prepare_policy
from mdpo.objectives import CHOSEN, REJECTED, REJECTED_IMAGE
from mdpo.planning.memory import SavedBytes
from mdpo.planning.model import MeasuredModel, RunSettings, meta_model
from mdpo.planning.plan import Plan, make_plan
from mdpo.planning.tokens import (
    Counted,
    RowLengths,
    count_rows,
    largest_sum,
    make_schedule,
    padded_tokens,
)
from mdpo.training.arguments import parse_settings

MDPO = (CHOSEN, REJECTED, REJECTED_IMAGE)
DPO = (CHOSEN, REJECTED)

PAIR = RowLengths(
    prompts={"chosen": 10, "rejected": 12},
    responses={"chosen": 3, "rejected": 4},
    images={"chosen": 1, "rejected": 1},
    image_tokens={"chosen": 6, "rejected": 8},
)


@pytest.fixture
def pairs(tmp_path: Path, make_rows: Any) -> Path:
    """Eight pairs on disk."""
    path = tmp_path / "pairs.jsonl"
    lines = []
    for k, row in enumerate(make_rows(8)):
        row["images"][0].save(tmp_path / f"{k}.png")
        lines.append(json.dumps(row | {"images": [f"{k}.png"]}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def words(model_dir: Path, pairs: Path, tmp_path: Path) -> list[str]:
    """The settings of a small run, as on the command line."""
    given = ["--model_name_or_path", str(model_dir), "--dataset_name", str(pairs)]
    given += ["--output_dir", str(tmp_path / "run"), "--lora_r", "4", "--use_cpu", "true"]
    given += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]
    return [*given, "--disable_tqdm", "true"]


@pytest.fixture
def plan(words: list[str]) -> Callable[..., Plan]:
    def make(*more: str, **options: Any) -> Plan:
        return make_plan(parse_settings([*words, *more]), **options)

    return make


def need(made: Plan, name: str) -> int | None:
    (size,) = [each.num_bytes for each in made.memory if each.name == name]
    return size


# Tokens


def test_tokens_of_a_pair_by_hand() -> None:
    # [10 | 3 | 4] and [12 | 3]
    assert PAIR.shared(MDPO) == 17 + 15
    assert PAIR.shared(DPO) == 17
    assert PAIR.plain(MDPO) == [13, 14, 15]
    assert PAIR.scored(MDPO) == 3 + 4 + 3
    # 10 prompt positions see 55 pairs; each of the 3 sees 10 and its own 1, 2, 3
    assert PAIR.attending(DPO, sharing=True) == 55 + (30 + 6) + (40 + 10)
    assert PAIR.attending(DPO, sharing=False) == 13 * 14 // 2 + 14 * 15 // 2


def test_padding_by_hand() -> None:
    longer = replace(PAIR, responses={"chosen": 5, "rejected": 4})
    # in one batch both chosen rows have 15 tokens, both rejected ones 14
    assert padded_tokens([PAIR, longer], DPO, pairs_per_batch=2, seed=0) == 2 * 15 + 2 * 14
    assert padded_tokens([PAIR, longer], DPO, pairs_per_batch=1, seed=0) == 13 + 14 + 15 + 14
    assert largest_sum([PAIR, longer, PAIR], lambda each: each.shared(DPO), 2) == 19 + 17


def counted_rows(processor: Any, rows: Any, **options: Any) -> Counted:
    counter = TokenCounter(Encoder(processor))
    return count_rows(
        Rows(load_raw(rows)), counter, image_root=None, slots=["chosen", "rejected"], **options
    )


@pytest.mark.parametrize("max_length", [None, 64])
def test_tokens_are_those_of_a_collated_batch(
    processor: Any, mixed_rows: Any, model_dir: Path, tmp_path: Path, max_length: int | None
) -> None:
    # texts and pictures few enough that `max_length` cuts but leaves room
    rows = mixed_rows[:1] if max_length else mixed_rows
    counted = counted_rows(processor, rows, max_length=max_length)
    run = MDPOTrainer(
        model_dir,
        args=MDPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            max_length=max_length,
            per_device_train_batch_size=len(rows),
            disable_tqdm=True,
        ),
        train_dataset=rows,
    )
    dataset: Any = run.train_dataset
    batch = next(iter(run.get_eval_dataloader(dataset)))
    order = batch["rows"].tolist()
    for slot in ("chosen", "rejected"):
        prompts = batch["prompts"][slot]["attention_mask"].sum(dim=1).tolist()
        responses = batch["responses"][slot]["attention_mask"].sum(dim=1).tolist()
        assert prompts == [counted.lengths[k].prompts[slot] for k in order]
        assert responses == [counted.lengths[k].responses[slot] for k in order]
        image_tokens = (batch["prompts"][slot]["input_ids"] == processor.image_token_id).sum(dim=1)
        assert image_tokens.tolist() == [counted.lengths[k].image_tokens[slot] for k in order]


def test_rows_without_images_are_counted_without(processor: Any, make_rows: Any) -> None:
    (with_image,) = counted_rows(processor, make_rows(1)).lengths
    (without,) = counted_rows(processor, make_rows(1), with_images=False).lengths
    assert with_image.images == {"chosen": 1, "rejected": 1}
    assert with_image.image_tokens == {"chosen": 36, "rejected": 36}
    assert without.images == without.image_tokens == {"chosen": 0, "rejected": 0}
    assert without.prompts["chosen"] < with_image.prompts["chosen"] - 35


def test_bad_rows_are_named(processor: Any, make_rows: Any) -> None:
    rows = make_rows(3)
    rows[1]["chosen"] = ""
    assert "row 1 of data" in counted_rows(processor, rows).problems[0]
    (_, problem, _) = counted_rows(processor, make_rows(3), needs_rejected_images=True).problems
    assert "`rejected_images` must be given" in problem
    problems = counted_rows(processor, make_rows(1), max_length=20).problems
    assert "must leave room for a response" in problems[0]
    problems = counted_rows(processor, make_rows(1), context=40).problems
    assert "must fit the model's 40 positions" in problems[0]


# Steps


@pytest.mark.parametrize("pairs_per_batch", [1, 3, 8])
@pytest.mark.parametrize("batches_per_step", [1, 2, 5])
@pytest.mark.parametrize(("epochs", "max_steps"), [(3.0, -1), (1.5, -1), (1.0, 7)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_steps_are_those_of_the_trainer(
    trainer_of_eight: Callable[..., MDPOTrainer],
    pairs_per_batch: int,
    batches_per_step: int,
    epochs: float,
    max_steps: int,
    drop_last: bool,
) -> None:
    run = trainer_of_eight()
    run.args.per_device_train_batch_size = pairs_per_batch
    run._train_batch_size = pairs_per_batch
    run.args.gradient_accumulation_steps = batches_per_step
    run.args.num_train_epochs, run.args.max_steps = epochs, max_steps
    run.args.dataloader_drop_last = drop_last
    values = run.set_initial_training_values(run.args, run.get_train_dataloader())
    schedule = make_schedule(
        8,
        pairs_per_batch=pairs_per_batch,
        batches_per_step=batches_per_step,
        epochs=epochs,
        max_steps=max_steps,
        drop_last=drop_last,
    )
    assert (schedule.steps_per_epoch, schedule.steps) == (values[1], values[-1])


@pytest.fixture(scope="module")
def trainer_of_eight(
    model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], MDPOTrainer]:
    from conftest import picture

    rows = [
        {"images": [picture(k)], "prompt": "What?", "chosen": "A cup.", "rejected": f"{k} cups."}
        for k in range(8)
    ]
    args = MDPOConfig(
        output_dir=str(tmp_path_factory.mktemp("run")), use_cpu=True, disable_tqdm=True
    )
    run = MDPOTrainer(model_dir, args=args, train_dataset=rows)
    return lambda: run


def test_steps_by_hand() -> None:
    made = make_schedule(10, pairs_per_batch=2, batches_per_step=2, epochs=3)
    assert (made.steps_per_epoch, made.steps, made.pairs_trained) == (3, 9, 30)
    made = make_schedule(10, pairs_per_batch=2, batches_per_step=2, epochs=3, max_steps=4)
    assert (made.steps, made.pairs_trained) == (4, 14)
    made = make_schedule(10, pairs_per_batch=2, batches_per_step=1, epochs=1, devices=2)
    assert (made.steps_per_epoch, made.pairs_trained) == (3, 10)
    with pytest.raises(ValueError, match="leaves no batch"):
        make_schedule(3, pairs_per_batch=4, batches_per_step=1, epochs=1, drop_last=True)


def test_work_by_scorer_reference_and_cache(plan: Callable[..., Plan]) -> None:
    shared, plain = plan(), plan("--scorer", "plain")
    assert shared.work == plain.other_work
    assert shared.other_work == plain.work
    assert shared.work.policy_per_run == 3 * shared.work.policy_per_epoch
    assert shared.work.reference_per_run == shared.work.policy_per_run
    assert (shared.work.images_per_pair, shared.work.images_per_run) == (2, 3 * 8 * 2)
    assert (plain.work.images_per_pair, plain.work.images_per_run) == (6, 3 * 8 * 6)
    before = plan("--precompute_ref_log_probs", "true")
    assert before.work.reference_per_epoch == 0
    assert before.work.reference_per_run == shared.work.policy_per_epoch
    assert before.work.images_per_run == 4 * 8 * 2
    cached = plan("--feature_cache", "memory")
    assert cached.work.images_per_run == 8 * 2
    assert cached.feature_cache_bytes == 8 * 2 * 36 * 128 * 4
    redrawn = plan("--feature_cache", "memory", "--corruption_per_epoch", "true")
    assert redrawn.work.images_per_run == 8 + 3 * 8
    dpo = plan("--objective", "dpo")
    assert (dpo.work.images_per_pair, dpo.other_work.images_per_pair) == (1, 4)
    trained = plan("--objective", "dpo", "--freeze_multi_modal_projector", "false")
    assert trained.work.images_per_pair == 2


def test_the_longest_pass_stays_within_the_budget(plan: Callable[..., Plan]) -> None:
    whole, within = plan(), plan("--max_tokens_per_batch", "240")
    assert whole.longest_pass > 240 >= within.longest_pass
    assert (whole.longest_pass_pairs, within.longest_pass_pairs) == (2, 1)
    assert (need(within, "activations kept") or 0) < (need(whole, "activations kept") or 0)
    one = plan("--per_device_train_batch_size", "1")
    # a pass holds at least one pair
    assert plan("--max_tokens_per_batch", "1").longest_pass == one.longest_pass


# Memory


def loaded_policy(settings: Any, dtype: torch.dtype = torch.float32) -> Any:
    model = AutoModelForImageTextToText.from_pretrained(
        settings.model.model_name_or_path, dtype=dtype
    )
    frozen = {"vision_tower", "projector"}
    policy = prepare_policy(model, settings.model.lora(), frozen=frozen).train()
    if settings.training.gradient_checkpointing:
        policy.activation_checkpointing_enable()  # pyright: ignore[reportCallIssue]
    return policy


def kept_on_cpu(policy: Any, length: int, *, autocast: bool = False) -> int:
    """Bytes that a real forward pass of the decoder keeps."""
    base = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    fixed = [*policy.parameters(), *policy.buffers()]
    saved = SavedBytes(frozenset(each.untyped_storage()._cdata for each in fixed))
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False),
        saved_tensors_hooks(saved.pack, lambda each: each),
    ):
        embedded = base.get_input_embeddings()(torch.zeros(1, length, dtype=torch.long))
        base.get_decoder()(inputs_embeds=embedded, use_cache=False)
    return saved.total


@pytest.mark.parametrize("checkpointing", ["true", "false"])
@pytest.mark.parametrize("lora", ["true", "false"])
@pytest.mark.parametrize("autocast", [False, True])
def test_kept_activations_are_those_of_a_real_pass(
    words: list[str], checkpointing: str, lora: str, autocast: bool
) -> None:
    flags = ["--activation_checkpointing", checkpointing, "--use_peft", lora]
    settings = parse_settings([*words, *flags, "--bf16", str(autocast).lower()])
    made = make_plan(settings)
    real = kept_on_cpu(loaded_policy(settings), made.longest_pass, autocast=autocast)
    assert need(made, "activations kept") == pytest.approx(real, rel=0.02)


def test_layers_add_up(model_dir: Path, words: list[str], tmp_path: Path) -> None:
    sizes = []
    for layers in (1, 2, 4):
        folder = tmp_path / str(layers)
        shutil.copytree(model_dir, folder)
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["num_hidden_layers"] = layers
        (folder / "config.json").write_text(json.dumps(config))
        settings = parse_settings([*words, "--model_name_or_path", str(folder)])
        sizes.append(need(make_plan(settings), "activations kept"))
    one, two, four = sizes
    assert four == one + 3 * (two - one)  # pyright: ignore[reportOptionalOperand]


def test_parameters_are_those_of_the_loaded_model(
    plan: Callable[..., Plan], words: list[str]
) -> None:
    made, policy = plan(), loaded_policy(parse_settings(words))
    counts = made.parameters
    parts = sum(counts[name] for name in ("vision_tower", "projector", "language_model", "head"))
    assert (
        parts
        == sum(each.numel() for each in policy.get_base_model().parameters()) - (counts["adapters"])
    )
    assert counts["adapters"] == counts["trained"]
    assert counts["trained"] == sum(e.numel() for e in policy.parameters() if e.requires_grad)
    assert need(made, "adapters") == 4 * counts["adapters"] == need(made, "gradients")
    assert need(made, "optimizer states") == 8 * counts["adapters"]
    assert counts["head"] == 0  # its weights are those of the embedding


def test_dtype_reaches_weights_and_features(plan: Callable[..., Plan]) -> None:
    single, half = plan(), plan("--dtype", "bfloat16")
    for name in ("weights: language model", "weights: vision tower", "image features"):
        assert need(single, name) == 2 * (need(half, name) or 0)
    # peft keeps adapters in float32
    assert need(single, "adapters") == need(half, "adapters")


def test_a_reference_takes_memory_only_if_there_is_one(
    plan: Callable[..., Plan], model_dir: Path
) -> None:
    full = plan("--use_peft", "false")
    weights = sum(e.num_bytes or 0 for e in full.memory if e.name.startswith("weights"))
    assert need(full, "reference model") == weights
    assert need(full, "gradients") == 4 * full.parameters["trained"]
    assert need(plan(), "reference model") == 0
    assert need(plan("--ref_model_name_or_path", str(model_dir)), "reference model") == weights
    before = plan("--use_peft", "false", "--precompute_ref_log_probs", "true")
    assert need(before, "reference model") == 0


def test_what_is_not_modelled_is_said(plan: Callable[..., Plan]) -> None:
    made = plan("--optim", "adafactor")
    assert need(made, "optimizer states") is None
    assert not made.to_dict()["peak_is_complete"]
    text = "\n".join(made.lines())
    assert "adafactor is not modelled" in text
    assert "total, at least" in text
    with pytest.raises(ValueError, match="`offload` of gradient checkpointing"):
        plan(
            "--activation_checkpointing",
            "true",
            "--activation_checkpointing_kwargs",
            '{"offload": true}',
        )


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_a_tower_that_cannot_be_measured_is_said(
    name: str, words: list[str], tmp_path: Path
) -> None:
    tiny = TINY_MODELS[name]()
    tiny.config.save_pretrained(tmp_path / "tiny")
    settings = parse_settings([*words, "--model_name_or_path", str(tmp_path / "tiny")])
    made = make_plan(settings, processor=tiny.processor)
    is_measured = name == "llava"
    assert (made.flops is not None) == is_measured
    assert made.to_dict()["peak_is_complete"] == is_measured
    assert ("total, at least" in "\n".join(made.lines())) != is_measured


def test_quantized_and_text_models_are_refused(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quantized"
    shutil.copytree(model_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    path = folder / "config.json"
    path.write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    given: dict[str, Any] = {"revision": None, "dtype": "auto", "trust_remote_code": False}
    with pytest.raises(ValueError, match="quantized weights"):
        meta_model(str(folder), **given)
    path.write_text(json.dumps(config["text_config"]))
    with pytest.raises(ValueError, match="must be a vision-language model"):
        meta_model(str(folder), **given)


def test_a_trained_projector_keeps_activations_of_images(plan: Callable[..., Plan]) -> None:
    made = plan("--freeze_multi_modal_projector", "false")
    # 2 pairs with 2 images each of 36 patches: at least what enters the projector
    assert (need(made, "activations kept of images") or 0) > 4 * 36 * 96 * 4


def tiny_qwen(folder: Path, processor: Any) -> None:
    """A model whose text part has rotary positions on three axes, and grouped keys."""
    text = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "depth": 2,
        "num_heads": 2,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=3)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)


def test_another_family_keeps_what_a_real_pass_keeps(
    tmp_path: Path, processor: Any, words: list[str]
) -> None:
    tiny_qwen(tmp_path / "qwen", processor)
    settings = parse_settings([*words, "--model_name_or_path", str(tmp_path / "qwen")])
    base = meta_model(str(tmp_path / "qwen"), revision=None, dtype="auto", trust_remote_code=False)
    counted = Counted((PAIR,) * 4, {}, ())
    made = MeasuredModel(
        base, settings.model, RunSettings.of(settings.training), Encoder(processor), counted
    )
    assert made.longest_pass == 2 * PAIR.shared(MDPO)
    real = kept_on_cpu(loaded_policy(settings), made.longest_pass)
    (cost,) = made.training.values()
    assert cost.kept == pytest.approx(real, rel=0.02)


# Time


def test_matrix_products_by_hand(plan: Callable[..., Plan], processor: Any, make_rows: Any) -> None:
    made = plan("--objective", "dpo", "--image_condition", "none", "--num_train_epochs", "1")
    lengths = counted_rows(processor, make_rows(8), with_images=False).lengths
    policy = made.work.policy_per_run
    assert policy == sum(each.shared(DPO) for each in lengths)
    # 4 layers: q, k, v, o of 128 x 128 and three of 128 x 320; adapters of rank 4 on each
    linear = 4 * (4 * 128 * 128 + 3 * 128 * 320)
    adapters = 4 * 4 * (4 * 256 + 3 * 448)
    # Forward and input gradient through frozen weights; adapters have a gradient of their own.
    # The first layer's inputs need no gradient: its q, k, v pass none on.
    first = 3 * 128 * 128 + 3 * 4 * 128
    training = 2 * policy * (2 * linear + 3 * adapters - first)
    inference = 2 * policy * linear
    # 4 layers of 128: scores and weighted values; the gradient costs twice as much
    attending = sum(each.attending(DPO, sharing=True) for each in lengths)
    attention = (1 + 2 + 1) * 4 * (2 * 128 + 2 * 128) * attending
    # forward and input gradient, and the reference
    head = (2 + 1) * 2 * 128 * 320 * sum(each.scored(DPO) for each in lengths)
    assert made.flops == training + inference + attention + head
    assert made.seconds is None
    timed = plan("--objective", "dpo", rate=2.0, devices=2)
    assert timed.flops is not None
    assert timed.seconds == pytest.approx(timed.flops / 4e12)


def test_checkpointing_costs_another_forward(plan: Callable[..., Plan]) -> None:
    without, with_ = plan(), plan("--activation_checkpointing", "true")
    assert without.flops is not None
    assert with_.flops is not None
    linear = 4 * (4 * 128 * 128 + 3 * 128 * 320) + 4 * 4 * (4 * 256 + 3 * 448)
    assert with_.flops - without.flops >= 2 * linear * without.work.policy_per_run


# The command line


def test_the_verb_prints_text_and_json(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words]) == 0
    text = capsys.readouterr().out
    assert "time: not known (no measured rate given" in text
    assert "peak memory of a device" in text
    assert main(["plan", *words, "--json", "--rate", "1"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["schedule"]["steps"] == 6
    assert values["seconds"] > 0
    assert values["peak_bytes"] == sum(each["num_bytes"] for each in values["memory"])
    assert math.isclose(values["epochs"], 3)


def test_no_weights_are_needed(
    model_dir: Path, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words]) == 0
    with_weights = capsys.readouterr().out
    bare = tmp_path / "bare"
    shutil.copytree(model_dir, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    assert main(["plan", *words, "--model_name_or_path", str(bare)]) == 0
    without = capsys.readouterr().out
    assert without.replace(str(bare), str(model_dir)) == with_weights
    AutoProcessor.from_pretrained(bare)


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--dataset_name", "gone.jsonl"], 1, "gone.jsonl"),
        (["--dataset_name", "bad.jsonl"], 1, "1 of 1 rows cannot be trained on"),
        (["--dataset_name", "broken.jsonl"], 1, "broken.jsonl:1"),
        (["--on_bad_row", "skip", "--dataset_name", "bad.jsonl"], 1, "No row of the data"),
        (["--bta", "1"], 2, "`--bta` is not a setting. Did you mean `--beta`?"),
        (["--rate", "0"], 2, "`--rate` must be > 0, got 0.0."),
        (["--rate", "fast"], 2, "invalid float value: 'fast'"),
        (["--devices", "-1"], 2, "`--devices` must be > 0, got -1."),
        (["--config", "gone.yaml"], 2, "`--config` 'gone.yaml' not found."),
    ],
    ids=["no-data", "bad-row", "broken", "none-left", "flag", "rate", "word", "devices", "config"],
)
def test_wrong_input_ends_in_a_message(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"images": ["gone.png"], "prompt": "What?", "chosen": "A", "rejected": "B"}
    Path("bad.jsonl").write_text(json.dumps(row) + "\n")
    Path("broken.jsonl").write_text("{\n")
    assert main(["plan", *words, *more]) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_required_settings_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model_name_or_path", "somewhere"]) == 2
    assert "--dataset_name" in capsys.readouterr().err


def test_quantized_settings_are_refused(words: list[str]) -> None:
    for name in ("load_in_4bit", "load_in_8bit"):
        with pytest.raises(ValueError, match=rf"`{name}`: the memory of quantized weights is not"):
            make_plan(parse_settings([*words, f"--{name}", "true"]))


def test_adapters_to_train_on_with_are_counted_twice(
    model_dir: Path, words: list[str], tmp_path: Path
) -> None:
    fresh = make_plan(parse_settings(words))
    policy: Any = prepare_policy(
        AutoModelForImageTextToText.from_pretrained(model_dir),
        parse_settings(words).model.lora(),
        frozen={"vision_tower", "projector"},
    )
    policy.save_pretrained(tmp_path / "start")
    rank = words.index("--lora_r")
    rest = [*words[:rank], *words[rank + 2 :], "--adapter_name_or_path", str(tmp_path / "start")]
    plan = make_plan(parse_settings(rest))
    assert plan.training == fresh.training == "LoRA r 4"
    assert plan.parameters == fresh.parameters
    reference = {each.name: each.num_bytes for each in plan.memory}["reference model"]
    assert reference == 4 * plan.parameters["adapters"] > 0
    assert plan.flops is not None
    assert fresh.flops is not None
    assert plan.flops > fresh.flops
