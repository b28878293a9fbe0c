"""The demo's summary and page, on made-up runs whose figures are worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mdpo.cli import main
from mdpo.playground.demo import METHODS, evaluation_job, training_job
from mdpo.playground.page import write_page
from mdpo.playground.summary import SYSTEMS, summarise_systems, table_lines

TRUTH = {"1": ["cup", "plate"], "2": ["tree"]}

CAPTIONS = {
    "base": ["a cup and a fish", "a tree and a bird and a bird"],
    "dpo": ["a cup and a plate", "a tree and a bird"],
    "dpo-no-image": ["a fish", "a bird"],
    "mdpo": ["a cup and a plate", "a <tree>"],
}


ANSWERS = {
    "base": ["Yes.", "Yes.", "Yes.", "Yes."],
    "dpo": ["Yes.", "No.", "Yes.", "Yes."],
    "dpo-no-image": ["No.", "No.", "No.", "No."],
    "mdpo": ["Yes.", "No.", "Yes.", "No."],
}
"""To whether there is a cup, a fish (asked as adversarial), a tree, a bird."""


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def score(folder: Path, suite: str, data: Path, responses: dict[str, str]) -> None:
    records = [{"item": item, "response": text} for item, text in responses.items()]
    write_lines(folder / suite / "generations.jsonl", records)
    assert main(["score", suite, str(folder / suite), "--data", str(data)]) == 0


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    chair, pope = tmp_path / "playground" / "chair", tmp_path / "playground" / "pope"
    (chair / "images").mkdir(parents=True)
    (chair / "synonyms.txt").write_text("cup\nplate\ntree\nfish\nbird\n")
    (chair / "ground_truth.json").write_text(json.dumps(TRUTH))
    for image_id in TRUTH:
        Image.new("RGB", (48, 48)).save(chair / "images" / f"{image_id}.png")
    asked = [("1", "cup", "yes"), ("1", "fish", "no"), ("2", "tree", "yes"), ("2", "bird", "no")]
    for k, split in enumerate(("random", "adversarial")):
        rows = [
            {
                "question_id": number,
                "image": f"{image}.png",
                "text": f"Is there a {name} in the picture?",
                "label": label,
            }
            for number, (image, name, label) in enumerate(asked, start=1)
        ]
        write_lines(pope / f"playground_pope_{split}.json", rows[2 * k :])
    for system in SYSTEMS:
        for seed in (0, 1):
            run = tmp_path / (system if system == "base" else f"{system}-{seed}")
            score(run, "chair", chair, dict(zip(TRUTH, CAPTIONS[system], strict=True)))
            items = [f"playground/random/{k}" for k in (1, 2, 3, 4)]
            items += [f"playground/adversarial/{k}" for k in (3, 4)]
            texts = [*ANSWERS[system], *ANSWERS[system][2:]]
            score(run, "pope", pope, dict(zip(items, texts, strict=True)))
            if system == "base":
                continue
            (run / "rewards").mkdir()
            pairs = [
                {"row_id": "a", "chosen": 1.0, "rejected": 0.0, "rejected_image": 2.0},
                {"row_id": "b", "chosen": 1.0, "rejected": 1.0, "rejected_image": seed - 0.5},
            ]
            write_lines(run / "rewards" / "rewards.jsonl", pairs)
            (run / "rewards" / "metrics.json").write_text('{"metrics": {}}')
            history = [{"step": 1, "rewards/accuracies": 0.5, "rewards/chosen": 0.1}]
            (run / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    return tmp_path


def test_figures_by_hand(demo: Path) -> None:
    systems = summarise_systems(demo, seeds=[0, 1])
    # base: both captions hallucinate; 3 of 5 mentions; names cup and tree of three
    base = systems["base"]
    assert base["chair_s"]["value"] == 100.0
    assert base["chair_i"]["value"] == pytest.approx(60.0)
    assert base["cover"]["value"] == pytest.approx(200 / 3)
    assert base["mean_length"]["value"] == pytest.approx(6.5)
    assert "reward_accuracy" not in base
    # dpo: one of two captions, the same in both seeds; 1 of 4 mentions
    dpo = systems["dpo"]
    assert dpo["chair_s"]["value"] == 50.0
    assert dpo["chair_s"]["n"] == 2
    assert dpo["chair_i"]["value"] == 25.0
    assert dpo["chair_s"]["less_base"]["value"] == -50.0
    assert dpo["per_seed"]["chair_s"] == [50.0, 50.0]
    # six questions, the last two of which are adversarial: tree there, bird not
    assert base["pope_accuracy"]["value"] == 50.0
    assert dpo["pope_accuracy"]["value"] == pytest.approx(100 * 4 / 6)
    assert dpo["pope_accuracy"]["less_base"]["value"] == pytest.approx(100 / 6)
    assert base["pope_adversarial"]["value"] == 50.0
    assert systems["mdpo"]["pope_adversarial"]["value"] == 100.0
    assert dpo["chair_s"]["less_base"]["low"] <= -50 <= dpo["chair_s"]["less_base"]["high"]
    assert base["chair_s"]["less_base"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    # a tie is no win; the image is preferred in one of four
    assert dpo["reward_accuracy"]["value"] == 0.5
    assert dpo["image_accuracy"]["value"] == 0.5
    assert systems["mdpo"]["chair_s"]["value"] == 0.0
    assert systems["mdpo"]["cover"]["value"] == 100.0


def test_table_is_aligned(demo: Path) -> None:
    lines = table_lines(summarise_systems(demo, seeds=[0, 1]))
    assert [bool(line) for line in lines] == [True] * 5 + [False] + [True] * 4
    assert len({len(line) for line in lines[:5]}) == len({len(line) for line in lines[6:]}) == 1
    assert lines[6].startswith("less base")
    assert "-50.0 [" in lines[7]
    assert lines[1].startswith("base")
    assert "100.0 [100.0, 100.0]" in lines[1]


def test_page_shows_answers_with_marks_and_escapes_them(demo: Path) -> None:
    summary = {
        "systems": summarise_systems(demo, seeds=[0, 1]),
        "seeds": [0, 1],
        "versions": {"torch": "2"},
        "wall_seconds": 3,
    }
    write_page(demo, summary)
    page = (demo / "index.html").read_text()
    assert '<mark class="wrong">fish</mark>' in page
    assert '<mark class="right">cup</mark>' in page
    assert '&lt;<mark class="right">tree</mark>&gt;' in page
    assert "<svg" in page
    assert "data:image/png;base64," in page
    assert "http" not in page.split("<svg")[0]


def test_the_three_methods_differ_in_objective_and_images_only(tmp_path: Path) -> None:
    commands = {m: training_job(tmp_path, m, 3, extra=["--max_steps", "2"]) for m in METHODS}
    for method, job in commands.items():
        train, *measure, rewards = job.commands
        assert train[0] == "train"
        assert train[-2:] == ["--max_steps", "2"]
        assert train[train.index("--seed") + 1] == "3"
        assert ("--image_condition" in train) == (method == "dpo-no-image")
        assert [each[:2] for each in measure[::2]] == [["generate", "chair"], ["generate", "pope"]]
        assert [each[:2] for each in measure[1::2]] == [["score", "chair"], ["score", "pope"]]
        assert rewards[0] == "rewards"
    base = evaluation_job(tmp_path, "base", 3)
    assert [command[0] for command in base.commands] == ["generate", "score"] * 2
