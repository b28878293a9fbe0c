"""MuirBench: letters read from answers, accuracy by task."""

import json
from pathlib import Path

import pytest

from mdpo.evaluation.results import score_responses
from mdpo.evaluation.suite import score_all, total
from mdpo.evaluation.suites.muirbench import MuirBenchSuite, official_choice, robust_choice

OPTIONS = ["a red ball", "a blue cube", "None of the choices provided"]


def row(idx: str, task: str, answer: str, other: str) -> dict[str, object]:
    return {
        "idx": idx,
        "task": task,
        "question": "Which?",
        "options": OPTIONS,
        "answer": answer,
        "counterpart_idx": other,
    }


ROWS = [
    row("1", "Counting", "A", "2"),
    row("2", "Counting", "C", "1"),
    row("3", "Ordering", "B", "4"),
    row("4", "Ordering", "C", "3"),
]


@pytest.fixture
def suite(tmp_path: Path) -> MuirBenchSuite:
    (tmp_path / "muirbench.json").write_text(json.dumps(ROWS), encoding="utf-8")
    return MuirBenchSuite.load(tmp_path)


@pytest.mark.parametrize(
    ("answer", "official", "robust"),
    [
        ("B", "b", "b"),
        ("b", "b", None),
        (" B. a blue cube", "b", "b"),
        ("B) a blue cube", "b) a blue cube", "b"),
        ("Z. What?", "z", None),
        ("(B)", "(b)", "b"),
        ("The answer is B", "the answer is b", "b"),
        ("Not (A) but (B), so A is out", "not (a) but (b), so a is out", "b"),
        ("I think that it shows a red ball here", None, "a"),
        ("a red ball", "a red ball", None),
        ("Cube.", "cube.", None),
        ("D", "d", None),
    ],
)
def test_answers_are_read_by_both_rules(answer: str, official: str | None, robust: str | None):
    assert official_choice(answer) == (official or answer.lower())
    assert robust_choice(answer, OPTIONS) == robust


def test_accuracy_over_all_and_by_task(suite: MuirBenchSuite):
    sums = total(score_all(suite, {"1": "A", "2": "(C)", "3": "A. a red ball", "4": "hm"}))
    found = {each.name: float(each.of(sums)) for each in suite.metrics}
    assert (found["accuracy"], found["Counting"], found["Ordering"]) == (25, 50, 0)
    assert found["robust/accuracy"] == pytest.approx(200 / 3)
    assert (found["robust/Counting"], found["robust/Ordering"]) == (100, 0)
    assert (found["disagreements"], found["unscored"]) == (1, 1)


def test_a_question_and_its_variant_are_one_cluster(suite: MuirBenchSuite):
    clusters = [suite.score(item, "A").cluster for item in suite.items]
    assert clusters == ["1", "1", "3", "3"]


def test_always_the_first_option(suite: MuirBenchSuite):
    assert suite.baselines()["always A"]["accuracy"] == 25


def test_answers_are_joined_by_idx(suite: MuirBenchSuite, tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"idx": 3, "pred": "B", "answer": "B"}\n{"idx": "1", "pred": "C"}\n')
    assert suite.read(path) == {"3": "B", "1": "C"}


def test_broken_data_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"muirbench\.jsonl or muirbench\.json"):
        MuirBenchSuite.load(tmp_path)
    path = tmp_path / "muirbench.json"
    path.write_text(json.dumps([ROWS[0] | {"answer": "D"}]))
    with pytest.raises(ValueError, match=r":1: `answer` must be one of A, B, C, got 'D'"):
        MuirBenchSuite.load(tmp_path)
    path.write_text(json.dumps([ROWS[0] | {"options": "A"}]))
    with pytest.raises(ValueError, match=r":1: `options` must be a list"):
        MuirBenchSuite.load(tmp_path)
    path.write_text(json.dumps([ROWS[0]] * 2))
    with pytest.raises(ValueError, match=r"each `idx` must occur once"):
        MuirBenchSuite.load(tmp_path)


def test_numbers_of_a_task_are_those_of_its_questions(suite: MuirBenchSuite):
    results = score_responses(suite, {"1": "A.", "2": "hm", "3": "B."})
    assert (results.scored["accuracy"], results.scored["Counting"]) == (3, 2)
    assert (results.unscored["Ordering"], results.scored["robust/Counting"]) == (1, 1)


def test_prompts_letter_the_options_and_answers_go_out_by_idx(tmp_path: Path):
    rows = [
        each | {"images": ["a.jpg", "b.jpg"], "question": "<image> or <image>?"} for each in ROWS
    ]
    (tmp_path / "muirbench.json").write_text(json.dumps(rows), encoding="utf-8")
    suite = MuirBenchSuite.load(tmp_path)
    first = suite.prompts()[0]
    assert (first.item, list(first.images)) == ("1", ["a.jpg", "b.jpg"])
    assert first.text.split("\n")[:3] == ["<image> or <image>?", "A. a red ball", "B. a blue cube"]
    assert first.text.endswith("choices directly.")
    (file,) = suite.export({"1": "A", "3": "B."}, tmp_path / "out")
    assert suite.read(file) == {"1": "A", "3": "B."}
    (tmp_path / "muirbench.json").write_text(json.dumps(ROWS), encoding="utf-8")
    with pytest.raises(ValueError, match="item '1' must name its images"):
        MuirBenchSuite.load(tmp_path).prompts()
