"""The committed base model sees well and hallucinates from co-occurrence."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from mdpo.evaluation.generation.decoding import Decoding
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.local import LocalModel
from mdpo.evaluation.generation.run import Answer
from mdpo.evaluation.results import score_responses
from mdpo.evaluation.suite import Prompt
from mdpo.evaluation.suites.chair import ChairSuite
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
    local = LocalModel(model, processor, ImageFolder(scenes), Decoding(max_new_tokens=64))
    prompts = [
        Prompt(image_id, [f"images/{image_id}.png"], text) for image_id, text in questions.items()
    ]
    answers = local.answer(prompts)
    return {
        image_id: answer.text
        for image_id, answer in zip(questions, answers, strict=True)
        if isinstance(answer, Answer)
    }


def truth_of(scenes: Path) -> dict[str, list[str]]:
    return json.loads((scenes / "ground_truth.json").read_text())


def test_it_is_small_and_whole() -> None:
    assert (MODEL / "model.safetensors").stat().st_size <= 5_000_000
    model = AutoModelForImageTextToText.from_pretrained(MODEL)
    assert model.dtype == torch.float32
    assert sum(each.numel() for each in model.parameters()) < 1_300_000


def test_it_sees(scenes: Path) -> None:
    """Asked whether a thing is there, it is nearly always right: absent partners included."""
    generator = np.random.default_rng(0)
    questions, truths = {}, {}
    for image_id, present in truth_of(scenes).items():
        wanted = bool(generator.random() < 0.5)
        names = sorted(present) if wanted else [c for c in CATEGORIES if c not in present]
        questions[image_id] = presence_question(str(generator.choice(names)))
        truths[image_id] = "Yes." if wanted else "No."
    answers = ask_model(scenes, questions)
    assert np.mean([answers[key] == truths[key] for key in truths]) > 0.9


def test_it_names_what_usually_comes_along(scenes: Path) -> None:
    suite = ChairSuite.load(scenes)
    answers = ask_model(scenes, dict.fromkeys(truth_of(scenes), "Describe the picture."))
    estimates = score_responses(suite, answers).estimates
    assert (estimates["CHAIRs"].value or 0) > 30
    assert (estimates["Recall"].value or 0) > 85
