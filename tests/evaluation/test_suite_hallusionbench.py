"""HallusionBench: figures and questions that must be right together, against a plain recount."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import DATA, needs_data

from mdpo.evaluation.suite import Suite, score_all, summarise, total
from mdpo.evaluation.suites.hallusionbench import (
    HallusionBenchJudgeSuite,
    HallusionBenchSuite,
    judged,
)


def row(category: str, figure: int, number: int, visual: int, answer: int) -> dict[str, Any]:
    return {
        "category": category,
        "subcategory": "chart",
        "set_id": "0",
        "figure_id": str(figure),
        "question_id": str(number),
        "visual_input": str(visual),
        "gt_answer": str(answer),
        "question": "Is it?",
    }


ROWS = [
    # VS: figure 0 is no figure, figure 1 shows the truth, figure 2 is altered.
    row("VS", 0, 0, 0, 1),
    row("VS", 0, 1, 0, 0),
    row("VS", 1, 0, 1, 1),
    row("VS", 1, 1, 1, 0),
    row("VS", 2, 0, 2, 0),
    # VD: figure 0 is the original.
    row("VD", 0, 0, 1, 1),
    row("VD", 1, 0, 2, 0),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "HallusionBench.json").write_text(json.dumps(ROWS), encoding="utf-8")
    return tmp_path


def values(suite: Suite, responses: dict[str, str]) -> dict[str, float]:
    sums = total(score_all(suite, responses))
    return {each.name: round(float(each.of(sums)), 6) for each in suite.metrics}


def test_accuracies_by_hand(folder: Path):
    suite = HallusionBenchSuite.load(folder)
    said = ["Yes", "No.", "Yes", "Yes", "no", "Yes", "Yes"]
    found = values(suite, dict(zip(suite.items, said, strict=True)))
    assert found["aAcc"] == round(500 / 7, 6)
    # Figures VS 1 (wrong on question 1), VS 2, VD 0, VD 1 (wrong); VS 0 is no figure.
    assert found["fAcc"] == 50
    # Pairs VS 0 (all three right), VS 1, VD 0 (wrong).
    assert found["qAcc"] == round(100 / 3, 6)
    # Easy: VS 0 right, VS 1 wrong, VD 0 right. Hard: VS 0 right, VD 0 wrong.
    assert found["easy"] == round(200 / 3, 6)
    assert found["hard"] == 50
    assert (found["disagreements"], found["unscored"]) == (0, 0)


def test_unread_answers_leave_their_figures_out_of_robust_scores(folder: Path):
    suite = HallusionBenchSuite.load(folder)
    said = ["Yes", "No", "Yes", "It is unclear.", "no", "Yes", "No, I see no eyes in it: yes"]
    found = values(suite, dict(zip(suite.items, said, strict=True)))
    # `eyes` and `yes` make the last answer a yes to the official rule.
    assert found["aAcc"] == round(600 / 7, 6)
    assert found["robust/aAcc"] == 100
    assert found["fAcc"] == 75
    assert found["robust/fAcc"] == 100
    assert (found["disagreements"], found["unscored"]) == (1, 1)
    sums = total(score_all(suite, dict(zip(suite.items, said, strict=True))))
    assert (sums["figure"], sums["robust/figure"]) == (4, 3)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("correct", "correct"),
        ("Incorrect.", "incorrect"),
        ("It is not incorrect", "incorrect"),
        ("unclear", "unclear"),
        ("?", "unclear"),
        ("0", "incorrect"),
        ("1", "correct"),
        (" 2", "unclear"),
    ],
)
def test_a_judge_is_read_as_officially(reply: str, verdict: str):
    assert judged(reply) == verdict


def test_unclear_is_right_only_without_a_figure(folder: Path):
    suite = HallusionBenchJudgeSuite.load(folder)
    found = values(suite, dict.fromkeys(suite.items, "2"))
    assert found["aAcc"] == round(200 / 7, 6)
    assert found["fAcc"] == 0
    assert found["qAcc"] == 0


def test_no_figure_counts_as_easy(folder: Path):
    suite = HallusionBenchJudgeSuite.load(folder)
    verdicts = ["unclear", "incorrect", "correct", "correct", "incorrect", "correct", "correct"]
    found = values(suite, dict(zip(suite.items, verdicts, strict=True)))
    assert found["easy"] == round(200 / 3, 6)
    assert found["hard"] == 50


def test_official_numbers_have_four_decimals(folder: Path):
    suite = HallusionBenchJudgeSuite.load(folder)
    sums = total(score_all(suite, dict.fromkeys(suite.items, "2")))
    official = {each.name: each.official(sums) for each in suite.metrics if each.official}
    assert official == {"aAcc": 28.5714, "fAcc": 0, "qAcc": 0, "easy": 0, "hard": 0}


def test_official_files_are_read(folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    fields = {"model_prediction": "Yes.", "gpt4v_output_gpt_check": "0"}
    for category in ("VD", "VS"):
        rows = [each | fields for each in ROWS if each["category"] == category]
        (run / f"hallusion_output_{category}.json").write_text(json.dumps(rows))
    judge, plain = HallusionBenchJudgeSuite.load(folder), HallusionBenchSuite.load(folder)
    assert judge.read(run) == dict.fromkeys(judge.items, "0")
    assert plain.read(run) == dict.fromkeys(plain.items, "Yes.")


def test_order_changes_nothing(folder: Path):
    suite = HallusionBenchSuite.load(folder)
    answers = dict(zip(suite.items, ["yes", "no", "no", "no", "no", "yes", "hm"], strict=True))
    turned = dict(reversed(list(answers.items())))
    first = summarise(score_all(suite, answers), suite.metrics)
    assert summarise(score_all(suite, turned), suite.metrics) == first


def test_broken_rows_are_refused(folder: Path, tmp_path: Path):
    suite = HallusionBenchSuite.load(folder)
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([ROWS[0]]))
    with pytest.raises(ValueError, match=r":1: `model_prediction` or .* is missing"):
        suite.read(path)
    path.write_text(json.dumps([ROWS[0] | {"set_id": "9", "model_prediction": "yes"}]))
    with pytest.raises(ValueError, match=r"item 'VS_chart_9_0_0' is not in the benchmark"):
        suite.read(path)
    (folder / "HallusionBench.json").write_text(json.dumps([ROWS[0]] * 2))
    with pytest.raises(ValueError, match=r"together must be unique"):
        HallusionBenchSuite.load(folder)


@needs_data
def test_numbers_of_groups_are_the_published_ones():
    suite = HallusionBenchSuite.load(DATA / "hallusionbench")
    sums = total(score_all(suite, dict.fromkeys(suite.items, "Yes")))
    counted = [sums[level] for level in ("question", "figure", "pair", "easy", "hard")]
    assert counted == [1129, 346, 455, 455, 430]


@needs_data
def test_a_recount_in_the_plainest_way_agrees():
    suite = HallusionBenchJudgeSuite.load(DATA / "hallusionbench")
    drawn = random.Random(0)
    verdicts = {item: drawn.choice("01112") for item in suite.items}
    rows = [{**suite.rows[item], "verdict": verdicts[item]} for item in suite.items]
    for each in rows:
        blind = each["category"] == "VS" and each["visual_input"] == "0"
        each["right"] = each["verdict"] in ("12" if blind else "1")

    def together(keys: str, rows: list[dict[str, Any]]) -> float:
        names = [tuple(each[key] for key in keys.split()) for each in rows]
        wrong = {name for name, each in zip(names, rows, strict=True) if not each["right"]}
        return 100 * (1 - len(wrong) / len(set(names)))

    figures = [each for each in rows if each["filename"]]
    pair = "category subcategory set_id question_id"
    found = values(suite, verdicts)
    assert found["aAcc"] == pytest.approx(100 * sum(each["right"] for each in rows) / 1129)
    assert found["fAcc"] == pytest.approx(together("filename", figures))
    assert found["qAcc"] == pytest.approx(together(pair, rows))
    hard = [each for each in rows if each["visual_input"] == "2"]
    assert found["hard"] == pytest.approx(together(pair, hard))
    easy = [each for each in rows if each["visual_input"] != "2"]
    assert found["easy"] == pytest.approx(together(pair, easy))
