"""The demo's summary and page, on made-up runs whose figures are worked out by hand."""

import json
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    chair = tmp_path / "playground" / "chair"
    (chair / "images").mkdir(parents=True)
    (chair / "synonyms.txt").write_text("cup\nplate\ntree\nfish\nbird\n")
    (chair / "ground_truth.json").write_text(json.dumps(TRUTH))
    for image_id in TRUTH:
        Image.new("RGB", (48, 48)).save(chair / "images" / f"{image_id}.png")
    for system in SYSTEMS:
        for seed in (0, 1):
            run = tmp_path / (system if system == "base" else f"{system}-{seed}")
            (run / "chair").mkdir(parents=True, exist_ok=True)
            rows = [
                json.dumps({"image_id": image_id, "caption": caption})
                for image_id, caption in zip(TRUTH, CAPTIONS[system], strict=True)
            ]
            (run / "chair" / "generations.jsonl").write_text("\n".join(rows) + "\n")
            if system == "base":
                continue
            (run / "rewards").mkdir()
            pairs = [
                {"row_id": "a", "chosen": 1.0, "rejected": 0.0, "rejected_image": 2.0},
                {"row_id": "b", "chosen": 1.0, "rejected": 1.0, "rejected_image": seed - 0.5},
            ]
            text = "".join(json.dumps(pair) + "\n" for pair in pairs)
            (run / "rewards" / "rewards.jsonl").write_text(text)
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
    # a tie is no win; the image is preferred in one of four
    assert dpo["reward_accuracy"]["value"] == 0.5
    assert dpo["image_accuracy"]["value"] == 0.5
    assert systems["mdpo"]["chair_s"]["value"] == 0.0
    assert systems["mdpo"]["cover"]["value"] == 100.0


def test_table_is_aligned(demo: Path) -> None:
    lines = table_lines(summarise_systems(demo, seeds=[0, 1]))
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
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
        train, generate, score, rewards = job.commands
        assert train[0] == "train"
        assert train[-2:] == ["--max_steps", "2"]
        assert train[train.index("--seed") + 1] == "3"
        assert ("--image_condition" in train) == (method == "dpo-no-image")
        assert (generate[0], score[0], rewards[0]) == ("generate", "score", "rewards")
    base = evaluation_job(tmp_path, "base", 3)
    assert [command[0] for command in base.commands] == ["generate", "score"]
