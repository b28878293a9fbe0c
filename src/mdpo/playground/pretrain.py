"""Make the playground's base model: ``python -m mdpo.playground.pretrain --out DIR``.

As with LLaVA, the vision tower is trained first: it learns to tell what stands in each cell of the
grid. Then the whole model learns to talk about scenes. Questions are answered truthfully, so that
it has reason to look. Descriptions come from careless writers, who name an absent partner in
``CARELESS`` of the cases, in either voice alike: so it learns to name what usually comes along.
Everything is seeded; the committed model took about eighteen minutes on two CPU cores.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import LlavaProcessor, Trainer, TrainingArguments

from mdpo.playground.drawing import draw_picture
from mdpo.playground.language import (
    DESCRIBE,
    LIVELY,
    SOBER,
    add_missing_partners,
    ask,
    describe,
    truthful_phrases,
)
from mdpo.playground.vlm import build_model, build_processor
from mdpo.playground.world import CATEGORIES, COLOURS, Scene, draw_scene

CARELESS = 0.7
"""Share of absent partners that pretraining descriptions name."""

NUM_QUESTIONS = 2
"""Questions that follow or precede the description of a picture in one conversation."""

IGNORED = -100
"""Label of a token that is read, not learnt."""

Turn = tuple[str, str]
"""What the user says, and what the assistant answers."""


def draw_conversation(scene: Scene, generator: np.random.Generator) -> list[Turn]:
    """Draw what is said about a picture: one description and some questions, in random order.

    Args:
        scene: What the picture shows.
        generator: Source of randomness.

    Returns:
        ``NUM_QUESTIONS + 1`` turns.
    """
    voice = SOBER if generator.random() < 0.5 else LIVELY
    phrases = add_missing_partners(truthful_phrases(scene), generator, share=CARELESS)
    turns = [(DESCRIBE, describe(phrases, voice))]
    turns += [ask(scene, generator) for _ in range(NUM_QUESTIONS)]
    return [turns[index] for index in generator.permutation(len(turns))]


class Conversations(Dataset[dict[str, Any]]):
    """Endless supply of pictures with conversations; row ``i`` is a function of seed and ``i``."""

    def __init__(self, processor: LlavaProcessor, *, size: int, seed: int) -> None:
        """Args: processor: Of the model. size: Number of rows. seed: Of all rows together."""
        self.processor, self.size, self.seed = processor, size, seed

    def __len__(self) -> int:
        """Number of rows."""
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Draw row ``index``: pixels, token ids, and labels that leave the user's words out."""
        generator = np.random.default_rng([self.seed, index])
        scene = draw_scene(generator)
        image_tokens = "<image>" * 36 + "\n"
        ids: list[int] = []
        labels: list[int] = []
        for question, answer in draw_conversation(scene, generator):
            # The same text as the chat template gives, cut where the assistant begins to speak.
            asked = self.encode(f"USER: {image_tokens}{question} ASSISTANT:")
            told = self.encode(f" {answer}</s>")
            ids += asked + told
            labels += [IGNORED] * len(asked) + told
            image_tokens = ""
        return {"picture": draw_picture(scene), "input_ids": ids, "labels": labels}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.processor.tokenizer(text, add_special_tokens=False).input_ids

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Pad conversations on the right and process their pictures."""
        length = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), length), self.processor.tokenizer.pad_token_id)
        labels = torch.full((len(rows), length), IGNORED)
        for number, row in enumerate(rows):
            ids[number, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            labels[number, : len(row["labels"])] = torch.tensor(row["labels"])
        pixels = self.processor.image_processor(
            [row["picture"] for row in rows], return_tensors="pt"
        )["pixel_values"]
        mask = (ids != self.processor.tokenizer.pad_token_id).long()
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "pixel_values": pixels,
        }


def sample_texts(*, seed: int, num_scenes: int = 4000) -> list[str]:
    """Draw texts of the world for the tokenizer.

    Args:
        seed: Seed of the sample.
        num_scenes: Number of scenes talked about.

    Returns:
        Texts as they stand in conversations.
    """
    texts = []
    for index in range(num_scenes):
        generator = np.random.default_rng([seed, index])
        scene = draw_scene(generator)
        for question, answer in draw_conversation(scene, generator):
            texts += [f"USER: \n{question} ASSISTANT:", f" {answer}"]
    return texts


class CellReader(nn.Module):
    """The vision tower with a head that names category and colour of what stands in each cell."""

    def __init__(self, tower: nn.Module, width: int) -> None:
        """Put heads on a tower whose features are ``width`` wide."""
        super().__init__()
        self.tower = tower
        self.category = nn.Linear(width, len(CATEGORIES) + 1)
        self.colour = nn.Linear(width, len(COLOURS) + 1)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss of naming cells; ``labels`` is ``(b, 9, 2)``, 0 where nothing stands."""
        patches = self.tower(pixel_values).last_hidden_state[:, 1:]
        # 6 x 6 patches, 2 x 2 of them to a cell.
        cells = patches.unflatten(1, (3, 2, 3, 2)).mean(dim=(2, 4)).flatten(1, 2)
        loss = nn.functional.cross_entropy(
            self.category(cells).flatten(0, 1), labels[..., 0].flatten()
        )
        colour = nn.functional.cross_entropy(
            self.colour(cells).flatten(0, 1), labels[..., 1].flatten()
        )
        return {"loss": loss + colour}


class Cells(Dataset[dict[str, Any]]):
    """Endless supply of pictures with what stands in each cell."""

    def __init__(self, processor: LlavaProcessor, *, size: int, seed: int) -> None:
        """Args: processor: Of the model. size: Number of rows. seed: Of all rows together."""
        self.processor, self.size, self.seed = processor, size, seed

    def __len__(self) -> int:
        """Number of rows."""
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Draw row ``index``."""
        scene = draw_scene(np.random.default_rng([self.seed, index]))
        labels = torch.zeros(9, 2, dtype=torch.long)
        for thing in scene.things:
            labels[thing.cell, 0] = 1 + CATEGORIES.index(thing.category)
            labels[thing.cell, 1] = 1 + COLOURS.index(thing.colour)
        return {"picture": draw_picture(scene), "labels": labels}

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Process pictures and stack labels."""
        pixels = self.processor.image_processor(
            [row["picture"] for row in rows], return_tensors="pt"
        )["pixel_values"]
        return {"pixel_values": pixels, "labels": torch.stack([row["labels"] for row in rows])}


def pretrain(
    out: Path,
    *,
    tower_steps: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train the tower, then the whole model, and save it with its processor.

    Args:
        out: Folder to write.
        tower_steps: Optimizer steps of the tower alone.
        steps: Optimizer steps of the whole model.
        batch_size: Conversations per step; pictures per step of the tower are twice as many.
        learning_rate: Peak rate of a cosine schedule.
        seed: Seed of texts, weights, data and their order.
    """
    processor = build_processor(sample_texts(seed=seed))
    model = build_model(processor, seed=seed)
    args: dict[str, Any] = {
        "output_dir": str(out),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "weight_decay": 0.05,
        "adam_beta2": 0.98,
        "logging_steps": 50,
        "save_strategy": "no",
        "report_to": "none",
        "remove_unused_columns": False,
        "dataloader_num_workers": 1,
        "seed": seed,
        "use_cpu": True,
    }
    tower = model.model.vision_tower
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = CellReader(tower, tower.config.hidden_size)
    cells = Cells(processor, size=tower_steps * 2 * batch_size, seed=seed + 1)
    Trainer(
        reader,
        TrainingArguments(
            max_steps=tower_steps, per_device_train_batch_size=2 * batch_size, **args
        ),
        data_collator=cells.collate,
        train_dataset=cells,
    ).train()
    talk = Conversations(processor, size=steps * batch_size, seed=seed + 2)
    Trainer(
        model,
        TrainingArguments(max_steps=steps, per_device_train_batch_size=batch_size, **args),
        data_collator=talk.collate,
        train_dataset=talk,
    ).train()
    model.generation_config.max_new_tokens = 64
    model.save_pretrained(out)
    processor.save_pretrained(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line.

    Args:
        arguments: Command line without the program name; None takes that of the process.
    """
    parser = argparse.ArgumentParser(description="Pretrain the playground's tiny VLM.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--tower-steps", type=int, default=800, help="steps of the tower alone")
    parser.add_argument("--steps", type=int, default=1500, help="steps of the whole model")
    parser.add_argument("--batch-size", type=int, default=32, help="conversations per step")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="peak rate")
    parser.add_argument("--seed", type=int, default=0)
    values = parser.parse_args(arguments)
    pretrain(
        values.out,
        tower_steps=values.tower_steps,
        steps=values.steps,
        batch_size=values.batch_size,
        learning_rate=values.learning_rate,
        seed=values.seed,
    )


if __name__ == "__main__":
    main()
