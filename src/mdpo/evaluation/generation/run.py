"""Answer the prompts of a run: what is missing, and nothing twice.

Records are appended to ``generations.jsonl`` as answers come. An answer stands under a key: the
hash of weights, prompt, images and decoding. What failed is recorded too, and tried again only on
request.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from mdpo.evaluation.generation.decoding import Decoding
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.journal import Journal, Record, content_key
from mdpo.evaluation.runs import GENERATION, GENERATIONS, claim
from mdpo.evaluation.suite import Prompt


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: Without special tokens.
        finish_reason: ``stop``, or ``length`` where the answer was cut.
        num_tokens: Of the answer; None where an endpoint does not say.
        num_prompt_tokens: Of the prompt, images included.
    """

    text: str
    finish_reason: str | None
    num_tokens: int | None
    num_prompt_tokens: int | None


Outcome = Answer | str
"""An answer, or the message of a failure."""


class Answerer(Protocol):
    """Whatever answers prompts."""

    def answer(self, prompts: Sequence[Prompt]) -> Sequence[Outcome]:
        """Answer one batch.

        Args:
            prompts: At least one.

        Returns:
            An answer for each, or the message of its failure.
        """
        ...


@dataclass(frozen=True)
class Tally:
    """How a run ended.

    Attributes:
        answered: Items with an answer, from before included.
        failed: Items without, with the message of each.
        cut: Answers that reached the longest length.
    """

    answered: int
    failed: Mapping[str, str]
    cut: int


def generate(
    answerer: Answerer,
    prompts: Sequence[Prompt],
    *,
    images: ImageFolder,
    out: Path,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
    decoding: Decoding,
    batch_size: int,
    retry_failed: bool = False,
) -> Tally:
    """Answer the prompts that have no answer yet.

    Args:
        answerer: Whatever answers.
        prompts: Of the benchmark.
        images: Where their images lie; all must be there.
        out: Folder of the run.
        settings: What answers depend on besides prompts: model, weights, ...; a run is resumed
            only with the same.
        about: What else is written down, such as folders; it may differ.
        decoding: How answers are drawn.
        batch_size: Prompts per batch.
        retry_failed: Whether to try again what failed before.

    Returns:
        Counts over the whole run.

    Raises:
        ValueError: If the run has an answer to another prompt or image under the same item.
    """
    images.require(name for each in prompts for name in each.images if isinstance(name, str))
    settings = {**settings, "decoding": decoding.to_dict()}
    with Journal(out / GENERATIONS) as journal:
        claim(out / GENERATION, settings, about=about)
        keys = {each.item: _key(each, images, settings) for each in prompts}
        latest = {each["item"]: each for each in journal.records}
        for item, record in latest.items():
            if item in keys and "response" in record and record["key"] != keys[item]:
                raise ValueError(
                    f"{out} holds an answer to another prompt or image of item {item!r}. Take "
                    "another folder."
                )
        done = {k for k, each in latest.items() if "response" in each or not retry_failed}
        waiting = [each for each in prompts if each.item not in done]
        with tqdm(total=len(prompts), initial=len(prompts) - len(waiting), desc="answering") as bar:
            for batch in batches(waiting, batch_size):
                started = time.monotonic()
                outcomes = answerer.answer(batch)
                seconds = round((time.monotonic() - started) / len(batch), 3)
                for prompt, outcome in zip(batch, outcomes, strict=True):
                    key = keys[prompt.item]
                    journal.append(_record(prompt, outcome, key, images, decoding, seconds))
                bar.update(len(batch))
        return tally(journal.records)


def tally(records: Sequence[Record]) -> Tally:
    """Count the outcomes of a run.

    Args:
        records: Of the run.

    Returns:
        Counts.
    """
    latest = {each["item"]: each for each in records}
    failed = {item: str(each["error"]) for item, each in latest.items() if "error" in each}
    cut = sum(each.get("finish_reason") == "length" for each in latest.values())
    return Tally(len(latest) - len(failed), failed, cut)


def batches(prompts: Sequence[Prompt], size: int) -> Iterator[list[Prompt]]:
    """Put prompts of like length together, the longest first: what does not fit shows at once.

    Args:
        prompts: In any order.
        size: Prompts per batch.

    Yields:
        Batches; prompts with and without images do not mix.
    """
    for shown in (True, False):
        ordered = sorted(
            (each for each in prompts if bool(each.images) == shown),
            key=lambda each: (len(each.images), len(each.text)),
            reverse=True,
        )
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def _key(prompt: Prompt, images: ImageFolder, settings: Mapping[str, Any]) -> str:
    """Hash what an answer depends on."""
    hashes = [images.sha256(source) for source in prompt.images]
    return content_key([dict(settings), prompt.text, hashes])


def _record(
    prompt: Prompt,
    outcome: Outcome,
    key: str,
    images: ImageFolder,
    decoding: Decoding,
    seconds: float,
) -> Record:
    """Write down an answer or a failure."""
    record: Record = {
        "key": key,
        "item": prompt.item,
        "prompt": prompt.text + decoding.suffix,
        "images": [each for each in prompt.images if isinstance(each, str)],
        "image_sha256": [images.sha256(source) for source in prompt.images],
    }
    if isinstance(outcome, str):
        return record | {"error": outcome}
    return record | {
        "response": outcome.text,
        "finish_reason": outcome.finish_reason,
        "num_tokens": outcome.num_tokens,
        "num_prompt_tokens": outcome.num_prompt_tokens,
        "seconds": seconds,
    }
