"""The suite passes on sound models of three families, says what it found, and leaves no trace."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES, Family
from transformers.utils import logging

from mdpo.cli import main
from mdpo.conformance import CheckResult, ConformanceReport, check_model
from mdpo.conformance.preserving import adapted, facts_of, preserving
from mdpo.conformance.rows import KINDS, SIZES, make_rows, quarters
from mdpo.conformance.subject import Subject
from mdpo.conformance.suite import CHECKS, UNCHANGED
from mdpo.conformance.tolerances import FLOAT, HALF, relative_difference, tolerances_for
from mdpo.data.encoding import Encoder
from mdpo.models.policy import disable_dropout


@cache
def tiny(name: str) -> Family:
    return FAMILIES[name](["What is shown? A red boat and a blue cup.", "How many lamps? Three."])


@pytest.mark.parametrize(
    ("family", "attention"), [*((name, "sdpa") for name in FAMILIES), ("llava", "eager")]
)
def test_sound_models_pass(family: str, attention: str) -> None:
    model = tiny(family).model(attention=attention)
    report = check_model(model, tiny(family).processor)
    assert report.passed, "\n".join(report.lines())
    assert {each.status for each in report.results} == {"passed"}
    expected = [*(f"rows: {kind}" for kind in KINDS), *CHECKS, UNCHANGED]
    assert [each.name for each in report.results] == expected


def test_half_precision_passes() -> None:
    model = tiny("llava").model()
    model.bfloat16()
    report = check_model(model, tiny("llava").processor)
    assert report.passed, "\n".join(report.lines())
    batched = next(each for each in report.results if each.name == "batch = single")
    assert batched.figure is not None
    assert FLOAT.logps < batched.figure < HALF.logps


def test_a_model_is_left_as_it_was() -> None:
    family = tiny("bunny")  # it has dropout
    model, tokenizer = family.model().train(), family.processor.tokenizer
    first, *_ = model.parameters()
    first.requires_grad_(False)
    last = list(model.parameters())[-1]
    last.grad = torch.ones_like(last)
    model.get_decoder().eval()
    before = facts_of(model, tokenizer)
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    names = ["shared prefix = plain", "gradients, full", "a step lowers the loss"]
    assert check_model(model, family.processor, names=names).passed
    assert facts_of(model, tokenizer) == before
    assert last.grad is not None
    assert not hasattr(model, "peft_config")
    assert all(torch.equal(each, weights[name]) for name, each in model.state_dict().items())


@pytest.mark.parametrize(
    ("fact", "change"),
    [
        ("weights", lambda model: model.lm_head.weight.data.add_(1)),
        ("mode", lambda model: model.train()),
        ("requires_grad", lambda model: model.lm_head.requires_grad_(False)),
        ("dropout", disable_dropout),
        ("modules", lambda model: setattr(model, "more", torch.nn.Identity())),
        ("attention", lambda model: model.set_attn_implementation("eager")),
    ],
)
def test_facts_see_each_change(fact: str, change: Any) -> None:
    model, tokenizer = tiny("bunny").model().eval(), tiny("bunny").processor.tokenizer
    before = facts_of(model, tokenizer)
    change(model)
    after = facts_of(model, tokenizer)
    assert [name for name in before if before[name] != after[name]][:1] == [fact]


def test_an_error_under_adapters_leaves_none_behind() -> None:
    model, processor = tiny("llava").model(), tiny("llava").processor
    subject = Subject(model, Encoder(processor), {}, {}, FLOAT, seed=0)
    before = facts_of(model, processor.tokenizer)

    def stop_halfway() -> None:
        with adapted(subject, strong=True) as policy:
            policy.train()
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        stop_halfway()
    assert facts_of(model, processor.tokenizer) == before
    with preserving(model):
        model.requires_grad_(False)
    assert facts_of(model, processor.tokenizer) == before


def test_strong_adapters_change_the_model_and_weak_ones_do_not() -> None:
    model, processor = tiny("llava").model(), tiny("llava").processor
    rows = {"one image": make_rows(0)["one image"]}
    subject = Subject(model, Encoder(processor), rows, rows, FLOAT, seed=0)
    batch = subject.batch(rows["one image"])
    bare = subject.logps(batch)
    with adapted(subject, strong=False) as policy:
        assert torch.equal(subject.logps(batch, model=policy), bare)
    with adapted(subject, strong=True) as policy:
        assert relative_difference(subject.logps(batch, model=policy), bare) > 1e-2


def test_made_rows_differ_and_seeds_decide_them() -> None:
    rows, again, others = make_rows(0), make_rows(0), make_rows(1)
    assert [len(each["images"]["chosen"]) for each in rows["several images"]] == [2, 3]
    assert [each["images"]["chosen"][0].size for each in rows["images of different sizes"]] == [
        *SIZES
    ]
    assert not any(each["images"]["chosen"] for each in rows["text only"])
    pixels = [
        [image.tobytes() for each in made["one image"] for image in each["images"]["chosen"]]
        for made in (rows, again, others)
    ]
    assert pixels[0] == pixels[1]
    assert len({*pixels[0], *pixels[2]}) == 4
    for each in rows["one image"]:
        assert each["images"]["chosen"] != each["images"]["rejected"]


def test_quarters_cover_an_image_once() -> None:
    covered = torch.zeros(48, 64)
    for _, (left, upper, right, lower) in quarters((64, 48)):
        covered[upper:lower, left:right] += 1
    assert torch.equal(covered, torch.ones(48, 64))


def test_differences_are_relative_to_the_value_or_one() -> None:
    def of(found: list[float], expected: list[float]) -> float:
        return relative_difference(torch.tensor(found), torch.tensor(expected))

    assert of([-101.0], [-100.0]) == pytest.approx(0.01)
    assert of([0.25], [0.125]) == pytest.approx(0.125)
    assert of([1.0, 3.0], [1.0, 2.0]) == pytest.approx(0.5)
    assert of([float("nan")], [1.0]) == float("inf")
    assert of([], []) == 0.0
    assert tolerances_for(torch.float32) is FLOAT
    assert tolerances_for(torch.bfloat16) is HALF


REPORT = ConformanceReport(
    "Model",
    (
        CheckResult("a", "passed", 0.125, "half of a quarter"),
        CheckResult("longer", "failed", float("inf"), "no number"),
        CheckResult("b", "not applicable", None, "reason"),
    ),
)


def test_the_table_is_aligned() -> None:
    assert REPORT.lines() == [
        "check   result          figure  remark",
        "a       passed           0.125  half of a quarter",
        "longer  failed             inf  no number",
        "b       not applicable          reason",
        "",
        "Model: 1 passed, 1 failed, 1 not applicable",
    ]
    assert not REPORT.passed
    assert ConformanceReport("Model", REPORT.results[::2]).passed


def test_json_holds_the_same() -> None:
    found = json.loads(REPORT.to_json())
    assert (found["model"], found["passed"]) == ("Model", False)
    assert [each["figure"] for each in found["results"]] == [0.125, None, None]
    assert found["results"][1]["status"] == "failed"


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'speed' is not a check. Known: one placeholder per"):
        check_model(tiny("llava").model(), tiny("llava").processor, names=["speed"])


@pytest.fixture(autouse=True)
def verbosity() -> Iterator[None]:
    """The verb silences transformers, which other tests listen to."""
    level = logging.get_verbosity()
    yield
    logging.set_verbosity(level)
    logging.enable_progress_bar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny("llava").model().save_pretrained(path)
    tiny("llava").processor.save_pretrained(path)
    return path


def test_the_verb_prints_a_table_or_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check-model", str(folder), "--check", "batch = single", "--seed", "3"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "batch = single" in table
    assert table.endswith("LlavaForConditionalGeneration: 7 passed, 0 failed, 0 not applicable\n")
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    assert len(found["results"]) == 7


def test_the_verb_fails_where_a_check_does(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    settings["vision_feature_select_strategy"] = "full"  # one image token more
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    assert main(["check-model", str(tmp_path), "--check", "image tokens = image features"]) == 1
    assert "10 image tokens for 9 image features of [(64, 64)]" in capsys.readouterr().out


def test_the_verb_refuses_what_it_cannot_check(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert main(["check-model", str(tmp_path)]) == 1
    assert "must have a chat template" in capsys.readouterr().err
    assert main(["check-model", str(folder), "--dtype", "int8"]) == 1
    assert "`dtype` must be one of" in capsys.readouterr().err
    assert main(["check-model"]) == 2


def test_the_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-model", "--help"]) == 0
    assert "examples:\n  mdpo check-model" in capsys.readouterr().out
