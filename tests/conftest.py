"""Builders that all tests share: a tiny random LLaVA, made pictures, made rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mdpo.playground.vlm import build_model, build_processor

torch.set_num_threads(1)

TEXTS = [
    "USER: \nWhat is shown? ASSISTANT: A red boat and two birds.",
    "USER: \nDescribe the picture. ASSISTANT: There is a green cup with a blue plate.",
    "USER: \nHow many lamps are there? ASSISTANT: Three lamps, all of them yellow.",
]

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def processor() -> LlavaProcessor:
    return build_processor(TEXTS, vocabulary_size=320)


@pytest.fixture
def model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    return build_model(processor, seed=0).eval()


@pytest.fixture(scope="session")
def model_dir(processor: LlavaProcessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llava")
    build_model(processor, seed=0).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def make_picture() -> Callable[..., Image.Image]:
    return picture


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    """Rows in the native format, with a picture each."""

    def make(number: int = 4, *, first: int = 0) -> Rows:
        return [
            {
                "images": [picture(first + k)],
                "prompt": [{"role": "user", "content": "What is shown?" + " Say more." * (k % 3)}],
                "chosen": [{"role": "assistant", "content": "A red boat" + " and a bird" * k}],
                "rejected": [{"role": "assistant", "content": f"There are {k + 2} blue cups."}],
            }
            for k in range(number)
        ]

    return make


@pytest.fixture
def mixed_rows(make_rows: Callable[..., Rows]) -> Rows:
    """One image, several images, text only, in one set; prompts and responses uneven."""
    one, two, three, text = make_rows(4)
    two["images"] = [picture(10), picture(11, (48, 48))]
    three["images"] = [picture(12), picture(13, (90, 50)), picture(14, (20, 70))]
    text["images"] = []
    return [one, two, text, three]
