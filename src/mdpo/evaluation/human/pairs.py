"""Two systems' answers to the same items, side by side in an order that nobody can guess."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpo.evaluation.journal import content_key
from mdpo.evaluation.runs import GENERATIONS, read_run
from mdpo.evaluation.suites.rows import read_rows, value_of

IDS = ("item", "item_id", "image_id", "question_id", "id", "idx")
ANSWERS = ("response", "caption", "answer", "model_answer", "text")
QUESTIONS = ("prompt", "question")


@dataclass(frozen=True)
class Answered:
    """What a system answered to one item.

    Attributes:
        question: What was asked; empty if that is not known.
        images: Names of images.
        response: The answer.
    """

    question: str
    images: Sequence[str]
    response: str


@dataclass(frozen=True)
class Pair:
    """Two answers to one item.

    Attributes:
        item: Its id.
        question: What was asked.
        images: Names of images.
        answers: Left and right.
        left: Which system stands on the left, 0 or 1.
    """

    item: str
    question: str
    images: Sequence[str]
    answers: tuple[str, str]
    left: int


@dataclass(frozen=True)
class Pairs:
    """What is voted on, and what is not.

    Attributes:
        shown: Pairs in the order of the page.
        identical: Items that both systems answer alike; nobody is asked about them.
        unshared: Items that only one system has answered.
        left_out: Pairs that were not drawn.
    """

    shown: Sequence[Pair]
    identical: Sequence[str]
    unshared: Sequence[str]
    left_out: int


def read_answers(path: Path) -> dict[str, Answered]:
    """Read a system's answers.

    Args:
        path: Folder of a run, or a file of JSON rows with an id and an answer.

    Returns:
        Answers by item.

    Raises:
        ValueError: If an item is answered twice.
    """
    rows: Sequence[Mapping[str, Any]]
    if path.is_dir():
        run = read_run(path)
        latest = {each["item"]: each for each in run.generations if "response" in each}
        rows, place = list(latest.values()), path / GENERATIONS
    else:
        rows, place = read_rows(path), path
    found: dict[str, Answered] = {}
    for number, row in enumerate(rows, start=1):
        item = value_of(row, IDS, f"{place}:{number}")
        if item in found:
            raise ValueError(f"{place}:{number}: item {item!r} is answered twice; keep one answer.")
        response = value_of(row, ANSWERS, f"{place}:{number}")
        question = next((str(row[name]) for name in QUESTIONS if row.get(name)), "")
        images = row.get("images", row.get("image", []))
        names = [images] if isinstance(images, str) else [str(each) for each in images]
        found[item] = Answered(question, names, response)
    return found


def make_pairs(
    first: Mapping[str, Answered], second: Mapping[str, Answered], *, number: int, seed: int
) -> Pairs:
    """Draw items and shuffle sides.

    Args:
        first: Answers of one system.
        second: Of the other.
        number: Most pairs that are shown.
        seed: Of the drawing and of the sides; each item's side depends on the seed and its id
            alone.

    Returns:
        Pairs.

    Raises:
        ValueError: If the systems share no item, or give the same answers throughout.
    """
    shared = sorted(first.keys() & second.keys())
    identical = [k for k in shared if first[k].response.strip() == second[k].response.strip()]
    differing = [item for item in shared if item not in set(identical)]
    if not differing:
        raise ValueError(
            f"The systems share {len(shared)} items and answer all of them alike: there is nothing "
            "to vote on. Give runs on the same benchmark by different systems."
        )
    drawn = sorted(differing, key=lambda item: content_key([seed, "order", item]))[:number]
    pairs = []
    for item in drawn:
        left = random.Random(content_key([seed, "side", item])).randrange(2)
        answers = (first[item].response, second[item].response)
        about = first[item] if first[item].question or first[item].images else second[item]
        turned = (answers[left], answers[1 - left])
        pairs.append(Pair(item, about.question, about.images, turned, left))
    unshared = sorted(first.keys() ^ second.keys())
    return Pairs(pairs, identical, unshared, len(differing) - len(drawn))
