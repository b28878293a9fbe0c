"""Write the playground to disk, in the formats of real models and data.

::

    DIR/model/                the tiny base model with its processor
    DIR/train.jsonl           preference pairs, native format; images in DIR/images/
    DIR/validation.jsonl      held-out pairs
    DIR/chair/                held-out scenes, as CHAIR data: synonyms.txt, ground_truth.json,
                              prompts.jsonl, images/
    DIR/pope/                 questions on the first of these scenes, as POPE data:
                              playground_pope_random.json, _popular.json, _adversarial.json
"""

import json
import shutil
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from mdpo.playground.drawing import draw_picture
from mdpo.playground.language import DESCRIBE
from mdpo.playground.pairs import draw_pair
from mdpo.playground.questions import SPLITS, draw_questions
from mdpo.playground.world import CATEGORIES, Scene, draw_scene

NUM_TRAIN, NUM_VALIDATION, NUM_CHAIR = 384, 128, 400

NUM_POPE = 200
"""Scenes of ``chair`` about which questions are asked."""

STREAMS = {"train": 1, "validation": 2, "chair": 4, "pope": 5}
"""First part of the seed of each split, so that no two splits share a scene.

Stream 3 held the scenes that the playground was developed on; none of them is in ``chair``.
"""

SYNONYMS = {"cup": ["mug"], "plate": ["dish"], "car": ["auto"], "boat": ["ship"], "house": ["home"]}


def write_playground(folder: Path, *, seed: int = 0) -> None:
    """Write model, pairs and held-out scenes.

    Args:
        folder: Made if missing; what is there under the same names is replaced.
        seed: Of the data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("mdpo.playground") / "model") as source:
        shutil.copytree(source, folder / "model", dirs_exist_ok=True)
    write_pairs(folder, "train", NUM_TRAIN, seed=seed)
    write_pairs(folder, "validation", NUM_VALIDATION, seed=seed)
    write_chair(folder / "chair", NUM_CHAIR, seed=seed)
    write_pope(folder / "pope", NUM_POPE, seed=seed)


def write_pairs(folder: Path, split: str, number: int, *, seed: int) -> None:
    """Write preference pairs in the native format.

    Args:
        folder: Of the playground.
        split: ``train`` or ``validation``.
        number: Of pairs.
        seed: Of the data.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in tqdm(range(number), desc=f"drawing {split}", delay=1):
        pair = draw_pair(np.random.default_rng([STREAMS[split], seed, index]))
        name = f"images/{split}-{index:05d}.png"
        draw_picture(pair.scene).save(folder / name)
        rows.append(
            {
                "id": f"{split}-{index:05d}",
                "images": [name],
                "prompt": [{"role": "user", "content": DESCRIBE}],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
        )
    write_jsonl(folder / f"{split}.jsonl", rows)


def write_chair(folder: Path, number: int, *, seed: int) -> None:
    """Write held-out scenes as CHAIR data.

    Args:
        folder: Made if missing.
        number: Of scenes.
        seed: Of the data.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    truth: dict[str, list[str]] = {}
    prompts = []
    for index in tqdm(range(number), desc="drawing held-out scenes", delay=1):
        scene = held_out_scene(index, seed=seed)
        image_id = f"{index + 1:05d}"
        draw_picture(scene).save(folder / "images" / f"{image_id}.png")
        truth[image_id] = sorted(scene.categories)
        image = f"images/{image_id}.png"
        prompts.append({"image_id": image_id, "image": image, "prompt": DESCRIBE})
    words = [", ".join([name, *SYNONYMS.get(name, [])]) for name in CATEGORIES]
    (folder / "synonyms.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "ground_truth.json").write_text(json.dumps(truth, indent=0) + "\n", "utf-8")
    write_jsonl(folder / "prompts.jsonl", prompts)


def write_pope(folder: Path, number: int, *, seed: int) -> None:
    """Write questions about the first held-out scenes as POPE data.

    Args:
        folder: Made if missing; pictures are those of the CHAIR data.
        number: Of scenes.
        seed: Of the data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for index in range(number):
        scene = held_out_scene(index, seed=seed)
        generator = np.random.default_rng([STREAMS["pope"], seed, index])
        for split, questions in draw_questions(scene, generator).items():
            for text, label in questions:
                rows[split].append(
                    {
                        "question_id": len(rows[split]) + 1,
                        "image": f"{index + 1:05d}.png",
                        "text": text,
                        "label": label,
                    }
                )
    for split in SPLITS:
        write_jsonl(folder / f"playground_pope_{split}.json", rows[split])


def held_out_scene(index: int, *, seed: int) -> Scene:
    """Draw a scene of the held-out data.

    Args:
        index: Its number, from 0.
        seed: Of the data.

    Returns:
        The scene.
    """
    return draw_scene(np.random.default_rng([STREAMS["chair"], seed, index]))


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows, one JSON object a line.

    Args:
        path: Of the file.
        rows: What to write.
    """
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
