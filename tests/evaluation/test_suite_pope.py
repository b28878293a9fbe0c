"""POPE: answers read by the official and by the robust rule, counted by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import DATA, expected, needs_data

from mdpo.evaluation.results import score_responses
from mdpo.evaluation.suite import score_all, summarise, total
from mdpo.evaluation.suites.pope import PopeSuite, official_answer, robust_answer

ASKED = "Is there a dog in the image?"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def question(number: int, image: str, thing: str, label: str) -> dict[str, Any]:
    text = f"Is there a {thing} in the image?"
    return {"question_id": number, "image": image, "text": text, "label": label}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of two images; `yes` questions are the same, as in POPE."""
    for split, absent in (("random", ("cat", "car")), ("popular", ("chair", "person"))):
        rows = [
            question(1, "a.jpg", "dog", "yes"),
            question(2, "a.jpg", absent[0], "no"),
            question(3, "b.jpg", "cup", "yes"),
            question(4, "b.jpg", absent[1], "no"),
        ]
        write(tmp_path / "data" / f"coco_pope_{split}.json", rows)
    return tmp_path / "data"


@pytest.fixture
def suite(folder: Path) -> PopeSuite:
    return PopeSuite.load(folder)


def values(suite: PopeSuite, answers: dict[str, str]) -> dict[str, float]:
    sums = total(score_all(suite, answers))
    return {each.name: float(each.of(sums)) for each in suite.metrics}


@pytest.mark.parametrize(
    ("text", "official", "robust"),
    [
        ("Yes", "yes", "yes"),
        ("no", "no", "no"),
        ("No, there is none.", "no", "no"),
        ("NO", "yes", "no"),
        ("Nope", "yes", "no"),
        ("No,it is absent", "yes", "no"),
        ("There isn't any dog.", "yes", "no"),
        ("There isn\u2019t any dog.", "yes", "no"),
        ("There is a dog.", "yes", "yes"),
        ("There is a cat.", "yes", None),
        ("The image shows a dog. It is not very large.", "yes", "yes"),
        ("It shows a sofa. No dog here.", "yes", "no"),
        ("I do not see a dog.", "no", "no"),
        ("I cannot tell.", "yes", None),
        ("not sure", "no", None),
        ("Hm, true.", "yes", None),
        ("Yes, but there is no cat.", "no", "yes"),
        ("", "yes", None),
    ],
)
def test_answers_are_read_by_both_rules(text: str, official: str, robust: str | None):
    assert official_answer(text) == official
    assert robust_answer(text, ASKED) == robust


def test_ratios_are_those_of_the_confusion_matrix(suite: PopeSuite):
    answers = {"coco/random/1": "Yes", "coco/random/2": "Yes", "coco/random/3": "No"}
    answers |= {"coco/random/4": "No", "coco/popular/1": "Yes", "coco/popular/2": "NO"}
    found = values(suite, answers)
    # Official: tp 2, fp 2 (one of them `NO`), fn 1, tn 1.
    assert found["accuracy"] == 50
    assert found["precision"] == 50
    assert found["recall"] == pytest.approx(200 / 3)
    assert found["f1"] == pytest.approx(400 / 7)
    assert found["yes_ratio"] == pytest.approx(400 / 6)
    assert found["popular/precision"] == 50
    assert found["random/precision"] == 50
    # Robust: tp 2, fp 1, fn 1, tn 2.
    assert found["robust/accuracy"] == pytest.approx(400 / 6)
    assert found["robust/precision"] == pytest.approx(200 / 3)
    assert (found["disagreements"], found["unscored"]) == (1, 0)


def test_intervals_where_some_cells_are_empty(suite: PopeSuite):
    found = summarise(
        score_all(suite, {"coco/random/1": "Yes", "coco/random/3": "Yes"}), suite.metrics
    )
    assert (found["accuracy"].value, found["accuracy"].low, found["accuracy"].n) == (100, 100, 2)
    assert found["popular/accuracy"].value is None


def test_unread_answers_are_counted_and_left_out(suite: PopeSuite):
    found = values(suite, {"coco/random/1": "Hm.", "coco/random/2": "No"})
    assert (found["robust/accuracy"], found["accuracy"]) == (100, 100)
    assert found["unscored"] == 1


def test_constant_answers(suite: PopeSuite):
    baselines = suite.baselines()
    assert baselines["always yes"]["f1"] == pytest.approx(200 / 3)
    assert baselines["always no"]["accuracy"] == 50
    assert "precision" not in baselines["always no"]


def test_items_of_one_image_are_one_cluster(suite: PopeSuite):
    items = ("coco/random/1", "coco/random/2", "coco/popular/2", "coco/random/3")
    clusters = [suite.score(item, "Yes").cluster for item in items]
    assert clusters == ["a.jpg", "a.jpg", "a.jpg", "b.jpg"]


def test_repope_gives_other_labels_to_the_same_questions(folder: Path):
    # Numbered anew, one label changed, one question dropped.
    rows = [question(1, "b.jpg", "cup", "no"), question(2, "a.jpg", "dog", "yes")]
    write(folder / "coco_repope_random.json", rows)
    suite = PopeSuite.load(folder)
    answers = {f"coco/random/{k}": "Yes" for k in (1, 2, 3, 4)}
    found = values(suite, answers)
    assert (found["accuracy"], found["repope/accuracy"]) == (50, 50)
    assert found["repope/random/precision"] == 50
    found = values(suite, {"coco/random/3": "Yes", "coco/random/2": "Yes"})
    assert (found["accuracy"], found["repope/accuracy"]) == (50, 0)


def test_answers_with_questions_find_their_split(suite: PopeSuite, tmp_path: Path):
    rows = [
        {"question_id": 2, "question": "Is there a chair in the image?", "answer": "no"},
        {"question_id": 1, "question": f"{ASKED}\nAnswer in one word.", "answer": "yes"},
    ]
    read = suite.read(write(tmp_path / "answers.jsonl", rows))
    assert read == {"coco/popular/2": "no", "coco/popular/1": "yes"}


def test_a_file_name_chooses_the_split(suite: PopeSuite, tmp_path: Path):
    rows = [{"question_id": 1, "prompt": "Is it?", "text": "yes"}]
    read = suite.read(write(tmp_path / "llava_popular.jsonl", rows))
    assert read == {"coco/popular/1": "yes"}


def test_a_folder_holds_one_file_per_split(suite: PopeSuite, tmp_path: Path):
    write(tmp_path / "run/popular.jsonl", [{"question_id": 1, "answer": "p"}])
    write(tmp_path / "run/random.jsonl", [{"question_id": 1, "answer": "r"}])
    assert suite.read(tmp_path / "run") == {"coco/popular/1": "p", "coco/random/1": "r"}


def test_records_of_a_run_are_known_by_their_item(suite: PopeSuite, tmp_path: Path):
    record = {"item": "coco/popular/2", "prompt": "Is it?", "response": "no"}
    file = write(tmp_path / "run/generations.jsonl", [record])
    assert suite.read(file) == {"coco/popular/2": "no"}


def test_questions_are_asked_as_they_stand_and_answers_go_out_by_split(
    suite: PopeSuite, tmp_path: Path
):
    prompts = {each.item: each for each in suite.prompts()}
    assert list(prompts) == list(suite.items)
    asked = prompts["coco/popular/2"]
    question = suite.questions["coco/popular/2"]
    assert (list(asked.images), asked.text) == ([question.image], question.text)
    responses = {"coco/random/1": "yes", "coco/popular/2": "no"}
    files = suite.export(responses, tmp_path / "out")
    assert [file.name for file in files] == [
        "coco_pope_random_answers.json",
        "coco_pope_popular_answers.json",
    ]
    assert suite.read(tmp_path / "out") == responses


def test_metrics_of_a_split_count_its_items(suite: PopeSuite):
    results = score_responses(suite, {"coco/random/1": "yes", "coco/popular/2": "no"})
    assert results.scored["accuracy"] == 2
    assert results.scored["random/accuracy"] == 1
    assert results.unscored["random/accuracy"] == len(suite.items) / 2 - 1


def test_rows_of_mixed_splits_state_their_category(suite: PopeSuite, tmp_path: Path):
    rows = [
        {"question_id": 1, "category": "random", "answer": "r"},
        {"question_id": 1, "category": "popular", "answer": "p"},
    ]
    assert suite.read(write(tmp_path / "all.jsonl", rows)) == {
        "coco/random/1": "r",
        "coco/popular/1": "p",
    }


def test_official_answers_without_ids_are_in_the_order_of_the_questions(
    suite: PopeSuite, tmp_path: Path
):
    things = ("dog", "cat", "cup", "car")
    rows = [{"question": f"Is there a {t} in the image?", "answer": t} for t in things]
    read = suite.read(write(tmp_path / "answers.json", rows))
    assert read == {f"coco/random/{k}": thing for k, thing in enumerate(things, start=1)}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question_id": 1, "answer": "yes"}], r"rows fit coco/random and coco/popular"),
        ([{"question_id": 9, "answer": "yes"}], r"rows fit none"),
        ([{"question_id": 1, "category": "random"}], r":1: `answer` or .* is missing"),
        ([{"question_id": 1, "category": "random", "answer": None}], r"must be text, got None"),
        ([{"question_id": 2, "category": "random", "answer": "a"}] * 2, r":2: .* answered twice"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    suite: PopeSuite, tmp_path: Path, rows: list[dict[str, Any]], message: str
):
    with pytest.raises(ValueError, match=message):
        suite.read(write(tmp_path / "answers.jsonl", rows))


def test_data_must_be_questions(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"coco_pope_random\.json"):
        PopeSuite.load(tmp_path)
    write(tmp_path / "coco_pope_random.json", [question(1, "a", "dog", "maybe")])
    with pytest.raises(ValueError, match=r"random\.json:1: `label` must be yes or no"):
        PopeSuite.load(tmp_path)
    write(tmp_path / "coco_pope_random.json", [question(1, "a", "dog", "no")] * 2)
    with pytest.raises(ValueError, match=r"`question_id` 1 occurs twice"):
        PopeSuite.load(tmp_path)


@needs_data
def test_official_scorer_agrees(tmp_path: Path):
    result = expected("pope_random_300")
    suite = PopeSuite.load(DATA / "pope")
    rows = [{"question_id": k, "answer": a} for k, a in enumerate(result["answers"], start=1)]
    read = suite.read(write(tmp_path / "random.jsonl", rows))
    found = values(suite, dict(read))
    names = {"Accuracy": "accuracy", "Precision": "precision", "Recall": "recall"}
    names |= {"F1 score": "f1", "Yes ratio": "yes_ratio"}
    for theirs, ours in names.items():
        assert found[ours] == pytest.approx(100 * result["expected"][theirs], abs=1e-10)
    sums = total(score_all(suite, dict(read)))
    cells = {cell: sums[f"coco/random/{cell.lower()}"] for cell in ("TP", "FP", "TN", "FN")}
    assert cells == {cell: result["expected"][cell] for cell in cells}
