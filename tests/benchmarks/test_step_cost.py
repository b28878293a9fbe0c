"""The benchmark counts what it says it counts. Nothing is timed here."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

from child import prepare_for_steps
from geometry import (
    FAMILIES,
    Family,
    Geometry,
    LanguageShape,
    TextLengths,
    TowerShape,
    make_geometry,
    make_model,
    make_processor,
    make_rows,
)
from measure import Traffic
from roofline import (
    PrefixRow,
    image_multiply_adds,
    necessary_rows,
    necessary_work,
)
from sides import RunSpec, make_trainer
from step_cost import comparison_tasks, make_parser, sweep_tasks
from table import align, summarise

# One layer of width 2: q, k, v, o are 2 x 2 and gate, up, down 2 x 3, so 4 * 4 + 3 * 6 = 34
# multiply-adds per token; LoRA of rank 1 adds 4 * (2 + 2) + 3 * (2 + 3) = 31.
SMALL = LanguageShape(hidden=2, layers=1, heads=1, key_value_heads=1, feed_forward=3, vocabulary=5)
ONE_PATCH = TowerShape(hidden=2, layers=1, heads=1, feed_forward=3, image_size=2, patch_size=2)
LLAVA = Geometry("llava-1.5", SMALL, ONE_PATCH, TextLengths())


def test_pairs_of_a_prefix_row_are_those_of_its_mask() -> None:
    row = PrefixRow(prompt=3, responses=(2, 1))
    allowed = torch.ones(6, 6, dtype=torch.bool).tril()
    allowed[5, 3:5] = False  # the second response does not see the first
    assert row.pairs == int(allowed.sum()) == 19
    assert row.tokens == 6
    assert row.scored == 3


def test_work_of_a_step_by_hand() -> None:
    work = necessary_work(
        LLAVA,
        [PrefixRow(3, (2, 1))],
        images=1,
        rank=1,
        online_reference=True,
        checkpointing=True,
    )
    linear, lora, attention, head = 6 * 34, 6 * 31, 19 * 2 * 2, 3 * 2 * 5
    assert work.forward == 2 * (linear + lora + attention + head)
    assert work.backward == 2 * (linear + 2 * lora + 2 * attention + head)
    assert work.recompute == 2 * (linear + lora + attention)
    assert work.reference == 2 * (linear + attention + head)
    # patch 3 * 2 * 2 pixels to 2 features; 2 tokens through 4 * 4 + 2 * 6 weights, attending to
    # 2 * 2 pairs of 2 features twice; projector 2 x 2 twice
    assert work.images == 2 * (12 * 2 + 2 * 28 + 4 * 2 * 2 + 8)
    assert work.total == work.useful + work.recompute


def test_cached_reference_and_no_checkpointing_cost_nothing() -> None:
    work = necessary_work(
        LLAVA, [PrefixRow(3, (2,))], images=0, rank=1, online_reference=False, checkpointing=False
    )
    assert (work.reference, work.recompute, work.images) == (0, 0, 0)


def test_work_of_a_windowed_tower_by_hand() -> None:
    # 10 x 10 patches: windows of 8 and 2 patches per side, (64 + 4) ** 2 pairs in the first layer
    # and 100 ** 2 in the second; patches hold two frames; 25 merged tokens of 4 * 2 features.
    tower = TowerShape(2, 2, 1, 3, image_size=20, patch_size=2, full_attention=(1,))
    layers = 2 * 100 * (16 + 18) + 2 * (68**2 + 100**2) * 2
    expected = 100 * 24 * 2 + layers + 25 * (64 + 16)
    assert image_multiply_adds(Geometry("qwen2.5-vl", SMALL, tower, TextLengths())) == expected


@pytest.mark.parametrize(("family", "share"), [("llava-1.5", 0.05), ("qwen2.5-vl", 0.41)])
def test_small_width_keeps_the_share_of_the_tower(family: Family, share: float) -> None:
    for width in ("full", "small"):
        geometry = make_geometry(family, width)
        language = geometry.language
        per_token = sum(a * b for a, b in language.linear_layers) * language.layers
        prompt = per_token * (geometry.image_tokens + 60)
        assert image_multiply_adds(geometry) / prompt == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_have_the_lengths_they_are_said_to_have(family: Family, tmp_path: Path) -> None:
    geometry = make_geometry(family, "tiny", text=TextLengths((5, 9), 7, 0.5, (3, 20), images=2))
    rows, lengths = make_rows(geometry, 3, seed=0)
    run, spec = trainer("dpo-online", family, rows, tmp_path)
    batch: Any = collated(run, spec)
    found = batch["prompts"]["chosen"]["attention_mask"].sum(dim=1).tolist()
    assert found == [each.prompt for each in lengths]
    for slot in ("chosen", "rejected"):
        found = batch["responses"][slot]["attention_mask"].sum(dim=1).tolist()
        assert found == [getattr(each, slot) for each in lengths]


@pytest.mark.parametrize("family", FAMILIES)
def test_official_pattern_has_our_loss_and_its_own_cost(family: Family, tmp_path: Path) -> None:
    rows, lengths = make_rows(make_geometry(family, "tiny"), 2, seed=0)
    losses = {}
    for side in ("official-mdpo", "mdpo-online"):
        run, spec = trainer(side, family, copy.deepcopy(rows), tmp_path)
        prepare_for_steps(run, spec)
        model: Any = run.model
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first: policy and reference would be the same
                parameter.data = torch.randn(parameter.shape, generator=generator) / 2
        traffic = Traffic()
        traffic.watch(model.get_base_model())
        batch = collated(run, spec)
        losses[side] = run.compute_loss(model, batch).item()
        if side == "official-mdpo":
            assert traffic.images == 2 * 6
            longest = max(each.prompt + max(each.chosen, each.rejected) for each in lengths)
            assert traffic.tokens == 2 * 6 * longest
    assert abs(losses["mdpo-online"] - 3 * 0.6931) > 0.01
    assert losses["official-mdpo"] == pytest.approx(losses["mdpo-online"], rel=1e-4)


def test_ratios_are_taken_within_a_round() -> None:
    runs = [run("trl-dpo", 0, 1.0), run("a", 0, 0.5), run("trl-dpo", 1, 4.0), run("a", 1, 3.0)]
    failed = {"side": "b", "round": 0, "error": "first line\nout of memory"}
    summary = summarise([*runs, run("trl-dpo", 2, 2.0), run("a", 2, 2.0), failed])
    assert summary["a"]["ratio"] == {"median": 0.75, "low": 0.5, "high": 1.0}
    assert summary["b"]["failed"] == 1
    assert summary["b"]["notes"] == ["failed: out of memory"]


def test_sides_take_turns() -> None:
    args = make_parser().parse_args(
        ["--rounds", "2", "--sides", "trl-dpo", "dpo-online", "--geometry", "llava-1.5"]
    )
    order = [(each.spec.round, each.spec.side) for each in comparison_tasks(args, "cache")]
    assert order == [(0, "trl-dpo"), (0, "dpo-online"), (1, "trl-dpo"), (1, "dpo-online")]


def test_sweep_varies_one_thing_at_a_time() -> None:
    args = make_parser().parse_args(["--sweep", "--rounds", "1", "--geometry", "llava-1.5"])
    tasks = [each for each in sweep_tasks(args, "cache") if not each.spec.only_fill]
    lengths = {each.varied: each.spec.text for each in tasks}
    assert lengths["images", 3] == TextLengths((50, 50), 110, spread=0.0, images=3)
    assert len(tasks) == 2 * 10


def test_necessary_rows_of_mdpo_read_the_rejected_image_once() -> None:
    _, lengths = make_rows(make_geometry("llava-1.5", "tiny"), 1, seed=0)
    (row,) = lengths
    first = PrefixRow(row.prompt, (row.chosen, row.rejected))
    assert necessary_rows("dpo", lengths) == [first]
    assert necessary_rows("mdpo", lengths) == [first, PrefixRow(row.prompt, (row.chosen,))]


def test_columns_stand_under_each_other() -> None:
    assert align([["a", "bb"], ["ccc", "d"], ["e"]]) == "a    bb\nccc   d\ne"


def trainer(side: str, family: Family, rows: list[dict[str, Any]], folder: Path) -> Any:
    spec = RunSpec(
        side=side,
        family=family,
        width="tiny",
        device="cpu",
        batch_size=len(rows),
        warm_up=1,
        steps=1,
        round=0,
        rounds=1,
        seed=0,
        rank=4,
        threads=1,
        checkpointing=False,
    )
    geometry = make_geometry(family, "tiny")
    model = make_model(geometry, device="cpu", seed=0)
    return make_trainer(spec, model, make_processor(geometry), rows, folder), spec


def collated(run: Any, spec: RunSpec) -> Any:
    return run.data_collator([run.train_dataset[row] for row in range(spec.batch_size)])


def run(side: str, number: int, seconds: float) -> dict[str, Any]:
    figures = dict.fromkeys(
        (
            "tokens_per_pair",
            "images_per_pair",
            "peak_bytes",
            "peak_bytes_above_model",
            "roofline",
            "collation_seconds",
        ),
        1.0,
    )
    return {
        "side": side,
        "round": number,
        "step_seconds": [seconds],
        "mfu": None,
        "missing_settings": [],
        **figures,
    }


def test_rounds_have_rows_of_their_own() -> None:
    args = make_parser().parse_args(
        ["--rounds", "2", "--steps-per-round", "2", "--warm-up", "3", "--geometry", "llava-1.5"]
    )
    specs = [each.spec for each in comparison_tasks(args, "cache") if not each.spec.only_fill]
    assert {spec.timed_batches for spec in specs} == {range(3, 5), range(5, 7)}
    assert specs[0].num_rows == 7 * specs[0].batch_size


def test_settings_of_a_process_survive_the_command_line() -> None:
    args = make_parser().parse_args(["--sweep", "--rounds", "1", "--image-tokens", "64"])
    for task in sweep_tasks(args, "cache"):
        again = RunSpec.from_json(task.spec.to_json())
        assert again.to_json() == task.spec.to_json()
        assert again.geometry.image_tokens == 64
