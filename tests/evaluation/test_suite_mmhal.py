"""MMHal-Bench: ratings read from replies of a judge."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import DATA, expected, needs_data

from mdpo.evaluation.suite import score_all, total
from mdpo.evaluation.suites.mmhal import CATEGORIES, MMHalSuite, official_rating, robust_rating


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Two questions of each type."""
    return [
        {"image_id": f"i{k}", "question_type": CATEGORIES[k % 8], "model_answer": ""}
        for k in range(16)
    ]


@pytest.fixture
def suite(rows: list[dict[str, Any]], tmp_path: Path) -> MMHalSuite:
    (tmp_path / "mmhal-bench_answer_template.json").write_text(json.dumps(rows), encoding="utf-8")
    return MMHalSuite.load(tmp_path)


def metrics(suite: MMHalSuite, replies: dict[str, str]) -> dict[str, tuple[float, float | None]]:
    sums = total(score_all(suite, replies))
    return {
        each.name: (float(each.of(sums)), each.official(sums) if each.official else None)
        for each in suite.metrics
    }


@pytest.mark.parametrize(
    ("reply", "official", "robust"),
    [
        ("Fine.\nRating: 4, somewhat informative", 4, 4),
        ("rating: 0", 0, 0),
        ("**Rating**: 4", 0, 4),
        ("**Rating:** 5", 0, 5),
        ("Rating:\n6", 0, 6),
        ("Rating - 3", 0, 3),
        ("Rating \u2013 3", 0, 3),
        ("My rating is 2.", 0, 2),
        ("Rating: [[5]]", 0, 5),
        ("Rating: 6/6", 6, 6),
        ("Rating: 10", 1, None),
        ("Rating: 3.5", 3, None),
        ("Rating: 7", 0, None),
        ("Rating: 5, or Rating: 2", 0, None),
        ("Rating: 5. So rating: 5", 5, 5),
        ("Underrating: 4", 4, None),
        ("No score.", 0, None),
        ("", 0, None),
    ],
)
def test_replies_are_read_by_both_rules(reply: str, official: int, robust: int | None):
    assert official_rating(reply) == official
    assert robust_rating(reply) == robust


def test_metrics_by_hand(suite: MMHalSuite):
    replies = {"i0": "Rating: 6", "i8": "Rating: 1", "i1": "**Rating**: 3", "i2": "none"}
    found = metrics(suite, replies)
    # Official 6, 1, 0, 0; robust 6, 1, 3 and one unread.
    assert found["score"] == (7 / 4, 1.75)
    assert found["hallucination_rate"] == (75, 75)
    assert found["informativeness"] == (pytest.approx(100 / 3), 33.33)
    assert found["attribute"] == (3.5, 3.5)
    assert found["adversarial"] == (0, 0)
    assert found["robust/score"] == (pytest.approx(10 / 3), None)
    assert found["robust/hallucination_rate"] == (pytest.approx(100 / 3), None)
    assert found["robust/adversarial"] == (3, None)
    assert (found["disagreements"][0], found["unscored"][0]) == (1, 1)


def test_the_official_rate_is_a_fraction_of_two_decimals(suite: MMHalSuite):
    replies = {f"i{k}": "Rating: 4" for k in range(14)} | {f"i{k}": "Rating: 0" for k in (14, 15)}
    # 2 / 16 = 0.125 prints as 0.12.
    assert metrics(suite, replies)["hallucination_rate"] == (12.5, 12.0)


def test_replies_are_read_from_rows(suite: MMHalSuite, tmp_path: Path):
    path = tmp_path / "replies.jsonl"
    path.write_text('{"image_id": "i3", "model_answer": "A cat.", "gpt4_review": "Rating: 2"}\n')
    assert suite.read(path) == {"i3": "Rating: 2"}


def test_chat_completions_are_in_the_order_of_the_questions(suite: MMHalSuite, tmp_path: Path):
    def completion(content: str | None) -> dict[str, Any]:
        return {"model": "judge", "choices": [{"message": {"content": content}}]}

    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps([completion(f"Rating: {k % 7}") for k in range(15)]))
    with pytest.raises(ValueError, match=r"there must be 16, got 15"):
        suite.read(path)
    path.write_text(json.dumps([completion(f"r{k}") for k in range(15)] + [completion(None)]))
    assert suite.read(path) == {f"i{k}": f"r{k}" for k in range(15)} | {"i15": ""}


def test_answers_without_replies_are_refused(
    suite: MMHalSuite, rows: list[dict[str, Any]], tmp_path: Path
):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r":1: has `model_answer` but no judge's reply"):
        suite.read(path)


def test_broken_data_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"mmhal-bench_answer_template\.json"):
        MMHalSuite.load(tmp_path)
    path = tmp_path / "mmhal-bench_answer_template.json"
    row = {"image_id": "a", "question_type": "colour"}
    path.write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=r":1: `question_type` must be one of .* got 'colour'"):
        MMHalSuite.load(tmp_path)
    path.write_text(json.dumps([row | {"question_type": "other"}] * 2))
    with pytest.raises(ValueError, match=r"each `image_id` must occur once"):
        MMHalSuite.load(tmp_path)


@needs_data
def test_official_scorer_agrees():
    for each in expected("mmhal_judge_replies")["replies"]:
        rating = official_rating(each["reply"])
        assert rating == each["official_score"]
        assert (rating < 3) == each["official_hallucinated"]


@needs_data
def test_types_of_the_benchmark_are_in_the_order_that_the_official_script_assumes():
    suite = MMHalSuite.load(DATA / "mmhal")
    kinds = [row["question_type"] for row in suite.rows.values()]
    assert kinds == [*CATEGORIES] * 12
