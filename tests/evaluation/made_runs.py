"""Small scored runs, made by the suites themselves, for tests of reports."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mdpo.evaluation.results import Answers, load_suite, score_responses, write_results

NASTY = "I cannot tell \U0001f600 </script><script>document.title = 'owned'</script> <b>&amp;</b>"
"""What no page may take for markup; the emoji is two units long in JavaScript."""

TRUTH = {"1": ["dog", "tree"], "2": ["cat"], "3": ["car", "dog"], "4": ["tree"]}
CAPTIONS = {
    "base": {
        "1": "\U0001f600 A dog, a cat and a tree.",
        "2": "A cat beside a car.",
        "3": "A car and a dog beside a tree.",
        "4": "A tree.",
    },
    "mdpo": {"1": "A dog.", "2": "A cat.", "3": "A car.", "4": "A tree with a dog."},
}
ANSWERS = {
    "base": ["Yes.", "Yes.", "Yes.", NASTY, "No.", "Yes."],
    "mdpo": ["Yes.", "No.", "Yes.", "No.", "No.", "Yes."],
}
LABELS = ["yes", "no", "yes", "no", "yes", "no"]
CATEGORIES = [
    "attribute",
    "adversarial",
    "comparison",
    "counting",
    "relation",
    "environment",
    "holistic",
    "other",
]


def make_data(folder: Path) -> None:
    """Write data of CHAIR, POPE and MMHal-Bench, and images."""
    for name in ("chair", "pope", "mmhal", "images"):
        (folder / name).mkdir(parents=True)
    words = "".join(f"{word}\n" for word in ("dog, puppy", "cat", "tree", "car"))
    (folder / "chair/synonyms.txt").write_text(words, encoding="utf-8")
    write_json(folder / "chair/ground_truth.json", TRUTH)
    questions = [
        {
            "question_id": number + 1,
            "image": f"{number // 2 + 1}.png",
            "text": f"Is there a {'dog' if number % 2 else 'cat'} in the image?",
            "label": label,
        }
        for number, label in enumerate(LABELS)
    ]
    lines = "".join(json.dumps(each) + "\n" for each in questions)
    (folder / "pope/coco_pope_random.json").write_text(lines, encoding="utf-8")
    rows = [
        {
            "image_id": f"m{k}",
            "question_type": kind,
            "question_topic": "food",
            "image_src": f"https://example.org/m{k}.jpg",
            "image_content": ["dog"],
            "question": "What is it?",
            "gt_answer": "A dog.",
            "model_answer": "",
        }
        for k, kind in enumerate(CATEGORIES)
    ]
    write_json(folder / "mmhal/mmhal-bench_answer_template.json", rows)
    for number in (1, 2, 3):
        Image.new("RGB", (800, 400), (60 * number, 90, 200)).save(folder / f"images/{number}.png")


def make_run(data: Path, out: Path, system: str, suites: Sequence[str] = ("chair", "pope")) -> Path:
    """Write a run of a system."""
    for name in suites:
        suite = load_suite(name, data / name)
        if name == "chair":
            answers = CAPTIONS[system]
        elif name == "pope":
            answers = dict(zip(suite.items, ANSWERS[system], strict=True))
        else:
            answers = {item: f"Fine.\nRating: {k % 7}" for k, item in enumerate(suite.items)}
        folder = out / system / name
        if name == "chair":
            write_generations(folder, answers)
        write_results(folder, score_responses(suite, Answers(answers, answers)))
    return out / system


def write_generations(folder: Path, answers: Mapping[str, str]) -> None:
    """Write records as `mdpo generate` does."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        {
            "key": item,
            "item": item,
            "prompt": "Describe <it>.",
            "images": [f"{item}.png"],
            "response": text,
        }
        for item, text in answers.items()
    ]
    lines = "".join(json.dumps(each) + "\n" for each in records)
    (folder / "generations.jsonl").write_text(lines, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


def change(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | changes)
