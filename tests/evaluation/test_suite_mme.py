"""MME: questions and pairs of questions, by hand."""

import json
from pathlib import Path

import pytest

from mdpo.evaluation.results import score_responses
from mdpo.evaluation.suite import score_all, summarise, total
from mdpo.evaluation.suites.mme import CATEGORIES, MMESuite, official_answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images per category."""
    for category in CATEGORIES:
        lines = [
            f"{image}.jpg\tIs it {thing}? Please answer yes or no.\t{label}\n"
            for image in (1, 2)
            for thing, label in (("so", "Yes"), ("else", "No"))
        ]
        (tmp_path / f"{category}.txt").write_text("".join(lines), encoding="utf-8")
    return tmp_path


@pytest.fixture
def suite(folder: Path) -> MMESuite:
    return MMESuite.load(folder)


def values(suite: MMESuite, answers: dict[str, str]) -> dict[str, float]:
    sums = total(score_all(suite, answers))
    return {each.name: float(each.of(sums)) for each in suite.metrics}


@pytest.mark.parametrize(
    ("text", "official"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("NO.", "no"),
        (" yes, it is", "yes"),
        ("**No**", "no"),
        ("Notably, yes", "no"),
        ("I see no cat", "other"),
        ("Eyes", "yes"),
        ("ok no", "other"),
        ("", "other"),
    ],
)
def test_answers_are_read_by_their_first_four_characters(text: str, official: str):
    assert official_answer(text) == official


def test_scores_by_hand(suite: MMESuite):
    answers = dict.fromkeys(suite.items, "Yes")
    wrong = "existence/2.jpg/Is it else? Please answer yes or no."
    right = "existence/1.jpg/Is it else? Please answer yes or no."
    answers[right] = "I see that the answer is no"
    found = values(suite, answers)
    assert wrong in answers
    assert (found["existence/acc"], found["existence/acc+"], found["existence"]) == (50, 0, 50)
    assert (found["robust/existence/acc"], found["robust/existence/acc+"]) == (75, 50)
    assert found["robust/existence"] == 125
    assert found["total"] == 200
    assert found["robust/total"] == 275
    assert (found["disagreements"], found["unscored"]) == (1, 0)


def test_constant_answers_have_no_pair_right(suite: MMESuite):
    assert suite.baselines()["always no"]["total"] == 200
    assert suite.baselines()["always yes"]["color/acc+"] == 0


def test_all_right_is_800(suite: MMESuite):
    assert values(suite, {item: suite.labels[item] for item in suite.items})["total"] == 800


def test_a_missing_category_has_no_total(suite: MMESuite):
    answers = {item: "yes" for item in suite.items if not item.startswith("color")}
    found = summarise(score_all(suite, answers), suite.metrics)
    assert found["total"].value is None
    assert found["count"].value == 50


def test_an_image_with_one_answer_is_no_pair(suite: MMESuite):
    first = "color/1.jpg/Is it so? Please answer yes or no."
    assert suite.groups([suite.score(first, "yes")])[0].columns == {}


def test_official_answers_are_a_fourth_column(suite: MMESuite, folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    for category in (*CATEGORIES, "scene"):
        lines = (folder / "color.txt").read_text(encoding="utf-8").splitlines()
        answered = "".join(f"{line}\t{category} {k}\n" for k, line in enumerate(lines))
        (run / f"{category}.txt").write_text(answered, encoding="utf-8")
    read = suite.read(run)
    assert set(read) == set(suite.items)
    assert read["count/2.jpg/Is it so? Please answer yes or no."] == "count 2"


def test_rows_are_read(suite: MMESuite, tmp_path: Path):
    row = {"category": "count", "image": "1.jpg", "response": "no"}
    row["question"] = "Is it so? Please answer yes or no."
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert suite.read(path) == {"count/1.jpg/Is it so? Please answer yes or no.": "no"}


def test_broken_files_are_refused(folder: Path, suite: MMESuite, tmp_path: Path):
    with pytest.raises(ValueError, match=r"must have four columns"):
        suite.read(folder)
    (folder / "count.txt").write_text("1.jpg\tIs it?\tYes\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must have two questions, not so '1\.jpg'"):
        MMESuite.load(folder)
    (folder / "count.txt").write_text("1.jpg Is it? Yes\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"count\.txt:1: must be image, question"):
        MMESuite.load(folder)
    (folder / "count.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"count\.txt is missing"):
        MMESuite.load(folder)


def test_numbers_of_a_category_are_those_of_its_questions(suite: MMESuite):
    answers = {item: "Yes" for item in suite.items if item.startswith(("count", "color"))}
    results = score_responses(suite, answers)
    assert (results.scored["count"], results.unscored["count"]) == (4, 0)
    assert (results.scored["existence"], results.unscored["existence"]) == (0, 4)
    assert results.official["existence"] is None
    assert results.scored["total"] == 8


def test_questions_are_asked_as_they_stand_and_go_out_in_official_files(
    suite: MMESuite, tmp_path: Path
):
    first = suite.prompts()[0]
    assert list(first.images) == ["existence/1.jpg"]
    assert first.text == "Is it so? Please answer yes or no."
    answers = {item: f"Yes {k}" for k, item in enumerate(suite.items)}
    files = suite.export(answers | {suite.items[0]: "two\nlines\t."}, tmp_path / "out")
    assert [file.stem for file in files] == list(CATEGORIES)
    assert suite.read(tmp_path / "out") == answers | {suite.items[0]: "two lines ."}
