"""From responses to metrics on disk, for any benchmark, on the command line."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import DATA, expected, needs_data

from mdpo.cli import main
from mdpo.evaluation.results import load_suite, score_responses, to_json
from mdpo.evaluation.suites import SUITES

LABELS = ("yes", "no", "yes", "no")


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    """Four questions on two images."""
    folder = tmp_path / "pope"
    folder.mkdir()
    rows = [
        {
            "question_id": k + 1,
            "image": f"{k // 2}.jpg",
            "text": "Is there a dog in the image?",
            "label": label,
        }
        for k, label in enumerate(LABELS)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "coco_pope_random.json").write_text(text)
    return folder


def answers(path: Path, *texts: str) -> Path:
    rows = [{"question_id": k + 1, "text": text} for k, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_metrics_on_disk(pope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = answers(tmp_path / "a.jsonl", "yes", "yes", "no", "no")
    out = tmp_path / "out"
    arguments = ["score", "pope", "--responses", str(given), "--data", str(pope), "--out", str(out)]
    assert main(arguments) == 0
    assert "accuracy" in capsys.readouterr().out
    written: Any = json.loads((out / "metrics.json").read_text())
    assert written["suite"] == "pope"
    assert written["backend"]
    metrics = written["metrics"]
    assert metrics["accuracy"]["value"] == metrics["accuracy"]["exact"] == 50.0
    assert metrics["yes_ratio"]["value"] == 50.0
    assert metrics["accuracy"]["n"] == 4
    assert metrics["accuracy"]["clusters"] == 2
    assert metrics["accuracy"]["low"] <= 50.0 <= metrics["accuracy"]["high"]
    assert metrics["accuracy"]["direction"] == "higher"
    assert metrics["yes_ratio"]["direction"] is None
    assert metrics["accuracy"]["baseline"] == {"always yes": 50.0, "always no": 50.0}
    digest = hashlib.sha256((pope / "coco_pope_random.json").read_bytes()).hexdigest()
    assert written["data"] == {"coco_pope_random.json": digest}
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert [item["details"]["official"] for item in items] == ["yes", "yes", "no", "no"]
    assert not list(out.glob("*.part"))


def test_missing_responses_are_counted_and_not_scored(pope: Path, tmp_path: Path) -> None:
    suite = load_suite("pope", pope)
    results = score_responses(suite, suite.read(answers(tmp_path / "a.jsonl", "yes", "no")))
    assert results.unscored["accuracy"] == 2
    assert results.scored["accuracy"] == 2
    assert results.estimates["accuracy"].value == 100.0
    assert to_json(results)["metrics"]["accuracy"]["unscored"] == 2


def test_an_undefined_metric_is_null_not_zero(pope: Path, tmp_path: Path) -> None:
    suite = load_suite("pope", pope)
    results = score_responses(suite, suite.read(answers(tmp_path / "a.jsonl", *["no"] * 4)))
    precision = to_json(results)["metrics"]["precision"]
    assert precision["value"] is precision["low"] is precision["exact"] is None


def test_order_and_seed(pope: Path, tmp_path: Path) -> None:
    suite = load_suite("pope", pope)
    given = dict(suite.read(answers(tmp_path / "a.jsonl", "yes", "yes", "no", "no")))
    turned = dict(reversed(given.items()))
    first, second = (to_json(score_responses(suite, each)) for each in (given, turned))
    assert first["metrics"] == second["metrics"]


@pytest.mark.parametrize("name", SUITES)
def test_missing_data_names_the_files(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    given = answers(tmp_path / "a.jsonl", "yes")
    where = ["--data", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    assert main(["score", name, "--responses", str(given), *where]) == 1
    error = capsys.readouterr().err
    assert "empty" in error
    assert "must hold" in error or "not found" in error
    assert not (tmp_path / "out").exists()


def test_no_response_is_refused(pope: Path) -> None:
    with pytest.raises(ValueError, match="at least one response"):
        score_responses(load_suite("pope", pope), {})


@needs_data
def test_the_official_answers(tmp_path: Path) -> None:
    official = expected("pope_random_300")
    rows = [
        {"question_id": k, "text": text, "category": "random"}
        for k, text in enumerate(official["answers"], start=1)
    ]
    given = tmp_path / "answers.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    arguments = ["--responses", str(given), "--data", str(DATA / "pope"), "--out", str(out)]
    assert main(["score", "pope", *arguments]) == 0
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    names = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1 score"}
    for ours, theirs in names.items():
        assert metrics[ours]["value"] == pytest.approx(100 * official["expected"][theirs])
