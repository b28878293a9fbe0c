"""The committed base model sees well and hallucinates from co-occurrence."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from mdpo.evaluation.chair import ChairData, summarise
from mdpo.evaluation.generation import answer
from mdpo.playground.files import write_chair
from mdpo.playground.language import presence_question
from mdpo.playground.world import CATEGORIES

MODEL = Path(str(files("mdpo.playground") / "model"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chair")
    write_chair(folder, 80, seed=77)
    return folder


def ask_model(scenes: Path, questions: dict[str, str]) -> dict[str, str]:
    model = AutoModelForImageTextToText.from_pretrained(MODEL).eval()
    processor = AutoProcessor.from_pretrained(MODEL)
    texts = answer(
        model,
        processor,
        [(f"images/{image_id}.png", text) for image_id, text in questions.items()],
        image_root=scenes,
        max_new_tokens=64,
    )
    return dict(zip(questions, (text for text, _ in texts), strict=True))


def test_it_is_small_and_whole() -> None:
    assert (MODEL / "model.safetensors").stat().st_size <= 5_000_000
    model = AutoModelForImageTextToText.from_pretrained(MODEL)
    assert model.dtype == torch.float32
    assert sum(each.numel() for each in model.parameters()) < 1_300_000


def test_it_sees(scenes: Path) -> None:
    """Asked whether a thing is there, it is nearly always right: absent partners included."""
    data, generator = ChairData.load(scenes), np.random.default_rng(0)
    questions, truths = {}, {}
    for image_id, present in data.truth.items():
        wanted = bool(generator.random() < 0.5)
        names = sorted(present) if wanted else [c for c in CATEGORIES if c not in present]
        questions[image_id] = presence_question(str(generator.choice(names)))
        truths[image_id] = "Yes." if wanted else "No."
    answers = ask_model(scenes, questions)
    assert np.mean([answers[key] == truths[key] for key in truths]) > 0.9


def test_it_names_what_usually_comes_along(scenes: Path) -> None:
    data = ChairData.load(scenes)
    answers = ask_model(scenes, dict.fromkeys(data.truth, "Describe the picture."))
    summary = summarise([data.score(key, text) for key, text in answers.items()])
    assert summary["CHAIRs"].value is not None
    assert summary["CHAIRs"].value > 30
    assert summary["Recall"].value is not None
    assert summary["Recall"].value > 85
