"""Let a model answer the prompts of a benchmark. Append-only, so that a run can be resumed.

Records are JSON lines in ``generations.jsonl`` of the run's folder, one per prompt, with what the
answer depends on beside it in ``generation.json``.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from mdpo.data.encoding import Encoder
from mdpo.data.images import open_image
from mdpo.evaluation.generation_records import RECORDS, claim, read_records


@dataclass(frozen=True)
class Prompt:
    """One question about one image.

    Attributes:
        item_id: Unique within the benchmark.
        image: Path, relative to the data folder.
        text: What the user says.
    """

    item_id: str
    image: str
    text: str


def read_prompts(folder: Path) -> list[Prompt]:
    """Read ``prompts.jsonl``: rows with ``image_id``, ``image`` and ``prompt``.

    Args:
        folder: Of the data.

    Returns:
        Prompts in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a row lacks a field.
    """
    path = folder / "prompts.jsonl"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} not found. It must hold one JSON object a line with `image_id`, `image` "
            "(path below the folder) and `prompt`."
        )
    prompts = []
    for number, line in enumerate(
        path.read_text(encoding="utf-8").rstrip("\n").split("\n"), start=1
    ):
        row = json.loads(line)
        if missing := [name for name in ("image_id", "image", "prompt") if name not in row]:
            raise ValueError(f"{path}:{number}: `{missing[0]}` is missing.")
        prompts.append(Prompt(str(row["image_id"]), row["image"], row["prompt"]))
    return prompts


def generate(
    model: nn.Module,
    processor: Any,
    prompts: Sequence[Prompt],
    *,
    image_root: Path,
    out: Path,
    settings: dict[str, Any],
    batch_size: int = 16,
    max_new_tokens: int = 256,
) -> None:
    """Answer prompts greedily and append the answers to the run's records.

    Args:
        model: In evaluation mode.
        processor: Of the model.
        prompts: What to answer; those answered already are left out.
        image_root: Folder that image paths are relative to.
        out: Folder of the run.
        settings: What the answers depend on; a run is resumed only with the same.
        batch_size: Prompts per batch.
        max_new_tokens: Longest answer.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = settings | {"max_new_tokens": max_new_tokens, "decoding": "greedy"}
    claim(out, settings)
    done = {record["image_id"] for record in read_records(out)}
    waiting = [prompt for prompt in prompts if prompt.item_id not in done]
    with (
        (out / RECORDS).open("a", encoding="utf-8") as file,
        tqdm(total=len(prompts), initial=len(prompts) - len(waiting), desc="answering") as bar,
    ):
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            answers = answer(
                model,
                processor,
                [(prompt.image, prompt.text) for prompt in batch],
                image_root=image_root,
                max_new_tokens=max_new_tokens,
            )
            for prompt, (text, length) in zip(batch, answers, strict=True):
                record = asdict(prompt) | {
                    "image_id": prompt.item_id,
                    "caption": text,
                    "num_tokens": length,
                    "finish_reason": "length" if length >= max_new_tokens else "stop",
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            bar.update(len(batch))


@torch.no_grad()
def answer(
    model: nn.Module,
    processor: Any,
    questions: Sequence[tuple[str, str]],
    *,
    image_root: Path,
    max_new_tokens: int,
) -> list[tuple[str, int]]:
    """Answer one batch of questions greedily.

    Args:
        model: In evaluation mode.
        processor: Of the model.
        questions: Path of the image, and what the user says.
        image_root: Folder that image paths are relative to.
        max_new_tokens: Longest answer.

    Returns:
        Texts, with the number of tokens of each.
    """
    encoder = Encoder(processor)
    texts, images = [], []
    for path, question in questions:
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        texts.append(encoder.prompt_text([{"role": "user", "content": parts}]))
        images.append([open_image(path, root=image_root)])
    tokenizer = encoder.tokenizer
    # Padding stands on the left, so that each answer begins where its prompt ends.
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    try:
        inputs = encoder.prompts(texts, images)
    finally:
        tokenizer.padding_side = side
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in inputs.items()}
    generate_ids: Any = model.generate
    settings: Any = model.generation_config
    ends = settings.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    ids = generate_ids(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )[:, inputs["input_ids"].shape[1] :]
    answers = []
    for row in ids.tolist():
        length = next((k + 1 for k, token in enumerate(row) if token in ends), len(row))
        text = tokenizer.decode(row[:length], skip_special_tokens=True).strip()
        answers.append((text, length))
    return answers
