"""Answer the prompts of a run: what is missing, and nothing twice.

Records are appended to ``generations.jsonl`` as answers come. An answer stands under a key: the
hash of weights, prompt, images and decoding. What failed is recorded too, and tried again only on
request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from mdpo.evaluation.generation.decoding import Decoding
from mdpo.evaluation.generation.images import ImageFolder
from mdpo.evaluation.generation.messages import message_of
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
        seconds: That it took; of a batch its share.
        model: Name of the model that an endpoint says it asked; None of a model here.
    """

    text: str
    finish_reason: str | None
    num_tokens: int | None
    num_prompt_tokens: int | None
    seconds: float | None = field(default=None, compare=False)
    model: str | None = None


Outcome = Answer | str
"""An answer, or the message of a failure."""

Tell = Callable[[Prompt, Outcome], None]
"""Takes what became of a prompt."""


class Answerer(Protocol):
    """Whatever answers prompts."""

    def answer_all(self, prompts: Sequence[Prompt], tell: Tell) -> str | None:
        """Answer prompts.

        Args:
            prompts: In any order.
            tell: Takes each answer or failure as it comes.

        Returns:
            Why it stopped early; None if it did not.
        """
        ...


@dataclass(frozen=True)
class Tally:
    """How a run ended.

    Attributes:
        answered: Items with an answer, from before included.
        failed: Items without, with the message of each.
        cut: Answers that reached the longest length.
        waiting: Items of which nothing is known, as it stopped early.
        stopped: Why it did; None if it did not.
    """

    answered: int
    failed: Mapping[str, str]
    cut: int
    waiting: int = 0
    stopped: str | None = None


def generate(
    answerer: Answerer,
    prompts: Sequence[Prompt],
    *,
    images: ImageFolder,
    out: Path,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
    decoding: Decoding,
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
        retry_failed: Whether to try again what failed before.

    Returns:
        Counts over the whole run.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If the run has an answer to another prompt or image under the same item.
    """  # noqa: DOC502 - raised where prompts are checked
    check(prompts, images)
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
        waiting = [
            each
            for each in prompts
            if (before := latest.get(each.item)) is None
            or ("error" in before and (retry_failed or before["key"] != keys[each.item]))
        ]
        with tqdm(total=len(prompts), initial=len(prompts) - len(waiting), desc="answering") as bar:

            def tell(prompt: Prompt, outcome: Outcome) -> None:
                journal.append(_record(prompt, outcome, keys[prompt.item], images, decoding))
                bar.update()

            stopped = answerer.answer_all(waiting, tell)
        return _tally(journal.records, prompts, stopped)


def check(prompts: Sequence[Prompt], images: ImageFolder) -> None:
    """Refuse prompts that cannot be asked, before a model is loaded.

    Args:
        prompts: Of the benchmark.
        images: Where their images lie.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If a prompt marks another number of images than it has.
    """  # noqa: DOC502 - raised where both are looked at
    images.require(name for each in prompts for name in each.images if isinstance(name, str))
    for each in prompts:
        message_of(each)


def _tally(records: Sequence[Record], prompts: Sequence[Prompt], stopped: str | None) -> Tally:
    """Count the outcomes of a run."""
    latest = {each["item"]: each for each in records}
    failed = {item: str(each["error"]) for item, each in latest.items() if "error" in each}
    cut = sum(each.get("finish_reason") == "length" for each in latest.values())
    waiting = sum(each.item not in latest for each in prompts)
    return Tally(len(latest) - len(failed), failed, cut, waiting, stopped)


def _key(prompt: Prompt, images: ImageFolder, settings: Mapping[str, Any]) -> str:
    """Hash what an answer depends on."""
    hashes = [images.sha256(source) for source in prompt.images]
    return content_key([dict(settings), prompt.text, hashes])


def _record(
    prompt: Prompt, outcome: Outcome, key: str, images: ImageFolder, decoding: Decoding
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
    record |= {
        "response": outcome.text,
        "finish_reason": outcome.finish_reason,
        "num_tokens": outcome.num_tokens,
        "num_prompt_tokens": outcome.num_prompt_tokens,
        "seconds": outcome.seconds,
    }
    return record | ({"model": outcome.model} if outcome.model is not None else {})
